/*
 * fault.c - a source and a registrar that break their contract, once, at a place of your choice.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <segments/conformance.h>

/* Is it this call's turn? */
static bool is_due(struct seg_faults *f)
{
    unsigned times = f->times ? f->times : 1;

    f->taken++;
    if (f->fault == SEG_FAULT_NONE || !f->at || f->taken < f->at || f->taken >= f->at + times)
        return false;
    f->failed++;
    return true;
}

static bool is_give_back_due(struct seg_faults *f)
{
    f->given_back++;
    if (f->given_back != f->give_back_at)
        return false;
    f->failed++;
    return true;
}

static int refuse(const struct seg_faults *f, int usual)
{
    return -(f->error ? f->error : usual);
}

/* ---- source ---- */

struct fault_source {
    struct seg_faults *faults;
    const struct seg_source_ops *ops;   /* underneath */
    void *self;
};

static int fault_open(const char *text, void *user, void **ret)
{
    const struct seg_source_ops *ops = seg_source_find(text[0] ? text : "anon");
    struct seg_faults *faults = user;
    struct fault_source *source;
    int r;

    if (!faults || !ops)
        return seg_fail(-EINVAL, "fault source: .user is a struct seg_faults, .text the name of a source");
    source = mmap(NULL, sizeof(*source), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (source == MAP_FAILED)
        return -ENOMEM;
    *source = (struct fault_source){ .faults = faults, .ops = ops };
    r = ops->open("", NULL, &source->self);
    if (r < 0)
        munmap(source, sizeof(*source));
    else
        *ret = source;
    return r;
}

static void fault_close(void *self)
{
    struct fault_source *source = self;

    source->ops->close(source->self);
    munmap(source, sizeof(*source));
}

static int fault_info(void *self, struct seg_source_info *ret)
{
    struct fault_source *source = self;

    return source->ops->info(source->self, ret);
}

static int acquire_honestly(struct fault_source *source, const struct seg_ask *ask, struct seg_extent *ret)
{
    struct seg_faults *f = source->faults;
    int r = source->ops->acquire(source->self, ask, ret);

    if (r == 0 && f->out++ == 0) {
        f->first = ret->base;
        f->first_size = ret->size;
    }
    return r;
}

/* Where nothing is, now. */
static void *unmapped(size_t size)
{
    void *p = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    munmap(p, size);
    return p;
}

/* What is given wrongly is made of nothing, so that nothing is to be given back. */
static int acquire_wrongly(struct fault_source *source, const struct seg_ask *ask, struct seg_extent *ret)
{
    static char page[3 << 12] __attribute__((aligned(1 << 12)));
    size_t size = (size_t)sysconf(_SC_PAGESIZE);

    ret->page_size = size;
    ret->capabilities = ask->required;
    ret->size = (ask->min_size + size - 1) / size * size;
    ret->base = page;
    switch (source->faults->fault) {
    case SEG_FAULT_SHORT:
        ret->size = ret->size > size ? size : 0;        /* which is there */
        break;
    case SEG_FAULT_LONG:
        ret->size = (ask->wanted_size + size - 1) / size * size + 2 * size;
        break;
    case SEG_FAULT_UNMAPPED:
        ret->base = unmapped(ret->size);
        break;
    case SEG_FAULT_MISALIGNED:
        ret->base = page + 64;
        break;
    case SEG_FAULT_NULL:
        ret->base = NULL;
        break;
    case SEG_FAULT_AGAIN:
        ret->base = source->faults->first;
        ret->size = source->faults->first_size;
        break;
    case SEG_FAULT_INCAPABLE:
        ret->base = source->faults->first;
        ret->capabilities = 0;
        break;
    default:
        break;
    }
    return 0;
}

static int fault_acquire(void *self, const struct seg_ask *ask, struct seg_extent *ret)
{
    struct fault_source *source = self;
    struct seg_faults *f = source->faults;

    if (!is_due(f))
        return acquire_honestly(source, ask, ret);
    switch (f->fault) {
    case SEG_FAULT_FAIL:
        return refuse(f, ENOMEM);
    case SEG_FAULT_POSITIVE:
        return 1;
    case SEG_FAULT_SLOW:
        f->wait(f->user);
        return acquire_honestly(source, ask, ret);
    default:
        return acquire_wrongly(source, ask, ret);
    }
}

static int fault_release(void *self, struct seg_extent *extent)
{
    struct fault_source *source = self;
    int r;

    if (!extent->cookie)
        return 0;       /* one of the wrong ones */
    if (is_give_back_due(source->faults))
        return refuse(source->faults, EBUSY);
    r = source->ops->release(source->self, extent);
    if (r == 0)
        source->faults->out--;
    return r;
}

const struct seg_source_ops *seg_fault_source(void)
{
    static const struct seg_source_ops ops = {
        .struct_size = sizeof(ops), .name = "fault", .can = ~(unsigned)(SEG_PINNED | SEG_DEVICE_ONLY), .open = fault_open,
        .close = fault_close, .info = fault_info, .acquire = fault_acquire, .release = fault_release,
    };

    return &ops;
}

/* ---- registrar ---- */

static int fault_attach(void *self, const struct seg_extent *extent, struct seg_key *ret)
{
    struct seg_faults *f = self;

    if (is_due(f)) {
        if (f->fault == SEG_FAULT_POSITIVE)
            return 1;
        if (f->fault != SEG_FAULT_SLOW)
            return refuse(f, ENOMEM);
        f->wait(f->user);
    }
    f->out++;
    *ret = (struct seg_key){ .local = f->taken, .remote = f->taken, .device = (uintptr_t)extent->base };
    return 0;
}

static int fault_detach(void *self, const struct seg_extent *extent, const struct seg_key *key)
{
    struct seg_faults *f = self;

    (void)extent;
    (void)key;
    if (is_give_back_due(f))
        return refuse(f, EBUSY);
    f->out--;
    return 0;
}

int seg_fault_registrar(struct seg_faults *faults, unsigned flags, struct seg_registrar **ret)
{
    struct seg_registrar_ops ops = { .struct_size = sizeof(ops), .name = "fault", .flags = flags, .attach = fault_attach,
                                     .detach = fault_detach };

    return seg_registrar_create(&ops, faults, ret);
}
