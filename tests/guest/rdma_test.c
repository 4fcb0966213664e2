/*
 * rdma_test.c - objects of chains over registered memory, on RDMA devices: soft-RoCE (rxe) and soft-iWARP (siw) of the guest, written and read by a
 * second process that is told addresses and keys (peer.c).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>

#include <infiniband/verbs.h>

#include <liballoc/liballoc.h>
#include <segments/conformance.h>
#include <segments/find.h>
#include <segments/verbs.h>

#include "../unit/child.h"
#include "base/util.h"
#include "peer.h"
#include "segments/registrar_state.h"
#include "segments/verbs/runtime.h"
#include "vgem.h"

/* What segments/verbs/ takes for granted instead of including the header. */
#define SAME_PLACE(ours, theirs) _Static_assert(offsetof(struct verbs_mr, ours) == offsetof(struct ibv_mr, theirs), #ours)
SAME_PLACE(address, addr);
SAME_PLACE(length, length);
SAME_PLACE(lkey, lkey);
SAME_PLACE(rkey, rkey);
_Static_assert(sizeof(struct verbs_mr) == sizeof(struct ibv_mr), "ibv_mr");
#define SAME_FLAG(name) _Static_assert((int)SEG_VERBS_##name == (int)IBV_ACCESS_##name, #name)
SAME_FLAG(LOCAL_WRITE);
SAME_FLAG(REMOTE_WRITE);
SAME_FLAG(REMOTE_READ);
SAME_FLAG(REMOTE_ATOMIC);
SAME_FLAG(MW_BIND);
SAME_FLAG(RELAXED_ORDERING);

enum { ACCESS = SEG_VERBS_LOCAL_WRITE | SEG_VERBS_REMOTE_WRITE | SEG_VERBS_REMOTE_READ };

/* The device under test, by its address: the guest's init says which. */
static const char *address;

static size_t pinned_bytes(void)
{
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    size_t kib = 0;

    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "VmPin: %zu", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib * KiB;
}

/* A peer, and a chain over memory that is registered in the domain in which it reaches us. */
struct side {
    struct peer peer;
    struct seg_registrar *registrar;
    struct seg_supply *supply;
    struct la_chain *chain;
};

static void open_side_over(struct side *s, struct seg_supply_config *config, size_t max_size)
{
    peer_start(&s->peer, address);
    if (seg_registrar_verbs(s->peer.connection->pd, ACCESS, max_size, &s->registrar) < 0)
        fail_msg("seg_registrar_verbs: %s", la_last_error());
    config->struct_size = sizeof(*config);
    config->registrars[0] = s->registrar;
    if (seg_supply_create(config, &s->supply) < 0 || la_chain_create(seg_supply_source(s->supply), 0, &s->chain) < 0)
        fail_msg("%s: %s", config->list, la_last_error());
}

static void open_side(struct side *s, const char *list)
{
    struct seg_supply_config config = { .list = list };

    open_side_over(s, &config, 0);
}

static void close_memory(struct side *s)
{
    assert_int_equal(la_chain_destroy(s->chain), 0);
    assert_int_equal(seg_supply_destroy(s->supply), 0);
    assert_int_equal(seg_registrar_destroy(s->registrar), 0);
}

static void close_side(struct side *s)
{
    close_memory(s);
    peer_stop(&s->peer);
}

static void *allocate(struct side *s, size_t size)
{
    void *object = la_chain_alloc(s->chain, size);

    if (!object)
        fail_msg("%zu bytes: %s", size, la_last_error());
    return object;
}

static struct seg_key_here key_of(const struct side *s, const void *object)
{
    struct seg_key_here key;

    assert_int_equal(seg_key_of(object, s->registrar, &key), 0);
    return key;
}

/* ---- objects ---- */

enum { OBJECTS = 24 };

struct object {
    void *at;
    size_t size;
};

static void allocate_objects(struct side *s, struct object *objects)
{
    for (unsigned i = 0; i < OBJECTS; i++) {
        objects[i].size = (size_t)48 << i / 2;      /* to 96 KiB */
        objects[i].at = allocate(s, objects[i].size);
        assert_true(key_of(s, objects[i].at).bytes >= objects[i].size);
    }
}

static void objects_are_written_and_read_by_a_peer(void **state)
{
    static const char *const lists[] = { "anon", "thp", "memfd", "shm:rdma-test", "hugetlb:2M", "memfd:2M" };
    struct object objects[OBJECTS];

    (void)state;
    for (size_t n = 0; n < ARRAY_SIZE(lists); n++) {
        struct side s;
        bool same;

        open_side(&s, lists[n]);
        allocate_objects(&s, objects);
        for (unsigned i = 0; i < OBJECTS; i++)
            assert_int_equal(peer_write(&s.peer, objects[i].at, key_of(&s, objects[i].at).remote, objects[i].size, i), IBV_WC_SUCCESS);
        for (unsigned i = 0; i < OBJECTS; i++) {    /* all of them, and none by another's write */
            assert_true(peer_is_filled(objects[i].at, objects[i].size, i));
            peer_fill(objects[i].at, objects[i].size, i + 100);
        }
        for (unsigned i = 0; i < OBJECTS; i++) {
            assert_int_equal(peer_read(&s.peer, objects[i].at, key_of(&s, objects[i].at).remote, objects[i].size, i + 100, &same), IBV_WC_SUCCESS);
            assert_true(same);
        }
        assert_int_equal(peer_receive(&s.peer, objects[9].at, key_of(&s, objects[9].at).local, objects[9].size, 109, &same), IBV_WC_SUCCESS);
        assert_true(same);
        close_side(&s);
    }
}

/* ---- growth under traffic ---- */

enum { GROWTHS = 8, BLOCKS_MAX = 20000, BLOCK = 16 << 10, ROUNDS = 3 };

struct traffic {
    struct side *side;
    void *blocks[BLOCKS_MAX];
    pthread_mutex_t lock;               /* the rest */
    pthread_cond_t changed;
    unsigned count;                     /* blocks that may be written to */
    unsigned rounds;                    /* operations that have succeeded */
    const char *failure;                /* of the first that has not: what was wrong */
    enum ibv_wc_status status;          /* and what its device said */
    bool stop;
};

/* Which block next: the newest, and one of the others. 0: the end. */
static unsigned next_block(struct traffic *t, bool newest, unsigned *random)
{
    unsigned count;

    pthread_mutex_lock(&t->lock);
    while (t->count == 0 && !t->stop)
        pthread_cond_wait(&t->changed, &t->lock);
    count = t->stop ? 0 : t->count;
    pthread_mutex_unlock(&t->lock);
    *random = *random * 1664525 + 1013904223;
    return !count || newest ? count : *random % count + 1;
}

/* NULL, or what went wrong. */
static const char *write_and_read(struct traffic *t, void *block, unsigned seed)
{
    struct seg_key_here key;
    bool same;

    if (seg_key_of(block, t->side->registrar, &key) < 0)
        return "no key";
    t->status = peer_write(&t->side->peer, block, key.remote, BLOCK, seed);
    if (t->status != IBV_WC_SUCCESS)
        return "the write failed";
    if (!peer_is_filled(block, BLOCK, seed))
        return "other bytes than were written";
    t->status = peer_read(&t->side->peer, block, key.remote, BLOCK, seed, &same);
    if (t->status != IBV_WC_SUCCESS)
        return "the read failed";
    return same ? NULL : "other bytes were read";
}

static void *run_traffic(void *arg)
{
    struct traffic *t = arg;
    unsigned random = 1, block;

    for (unsigned seed = 0; (block = next_block(t, seed % 2, &random)) != 0; seed++) {
        const char *failure = write_and_read(t, t->blocks[block - 1], seed);

        pthread_mutex_lock(&t->lock);
        t->rounds += !failure;
        t->failure = failure;
        t->stop |= failure != NULL;
        pthread_cond_broadcast(&t->changed);
        pthread_mutex_unlock(&t->lock);
    }
    return NULL;
}

static size_t segments_of(struct seg_supply *supply)
{
    struct seg_supply_info info = { .struct_size = sizeof(info) };

    assert_int_equal(seg_supply_info(supply, &info), 0);
    return info.segments;
}

/* Blocks for the peer, until there is an extent more; then the peer has its turn at all of them. */
static void grow_once(struct traffic *t)
{
    size_t before = segments_of(t->side->supply);
    unsigned target;

    while (segments_of(t->side->supply) == before) {
        assert_true(t->count < BLOCKS_MAX);
        t->blocks[t->count] = allocate(t->side, BLOCK);
        pthread_mutex_lock(&t->lock);
        t->count++;
        pthread_cond_broadcast(&t->changed);
        pthread_mutex_unlock(&t->lock);
    }
    pthread_mutex_lock(&t->lock);
    target = t->rounds + ROUNDS;
    while (t->rounds < target && !t->stop)
        pthread_cond_wait(&t->changed, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

static void memory_grows_under_traffic(void **state)
{
    static struct traffic t;
    struct seg_supply_config config = { .list = "memfd" };
    struct side s;
    pthread_t thread;

    (void)state;
    open_side_over(&s, &config, 8 * MiB);
    t = (struct traffic){ .side = &s, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    assert_int_equal(pthread_create(&thread, NULL, run_traffic, &t), 0);
    for (int i = 0; i < GROWTHS; i++)
        grow_once(&t);
    pthread_mutex_lock(&t.lock);
    t.stop = true;
    pthread_cond_broadcast(&t.changed);
    pthread_mutex_unlock(&t.lock);
    pthread_join(thread, NULL);
    if (t.failure)
        fail_msg("after %u blocks: %s, %s", t.rounds, t.failure, ibv_wc_status_str(t.status));
    assert_true(t.rounds >= GROWTHS * ROUNDS);
    assert_true(segments_of(s.supply) >= GROWTHS);
    close_side(&s);
}

/* ---- what is refused ---- */

static void wrong_key_is_refused_by_the_device(void **state)
{
    struct side s;
    char *object;
    bool same;

    (void)state;
    open_side(&s, "memfd");
    object = allocate(&s, 1000);
    peer_fill(object, 1000, 1);
    assert_int_not_equal(peer_write(&s.peer, object, key_of(&s, object).remote ^ 0x5500, 1000, 2), IBV_WC_SUCCESS);
    assert_int_not_equal(peer_read(&s.peer, object, key_of(&s, object).remote ^ 0x5500, 1000, 1, &same), IBV_WC_SUCCESS);
    assert_false(same);
    assert_true(peer_is_filled(object, 1000, 1));
    close_side(&s);
}

static void access_that_was_not_given_is_refused_by_the_device(void **state)
{
    struct side s;
    struct seg_registrar *reader;
    struct seg_supply_config config = { .struct_size = sizeof(config), .list = "anon" };
    struct seg_supply *supply;
    struct seg_key_here key;
    struct la_range range;
    bool same;

    (void)state;
    open_side(&s, "anon");
    assert_int_equal(seg_registrar_verbs(s.peer.connection->pd, SEG_VERBS_REMOTE_READ, 0, &reader), 0);
    config.registrars[0] = reader;
    assert_int_equal(seg_supply_create(&config, &supply), 0);
    assert_int_equal(seg_supply_acquire(supply, MiB, MiB, &range), 0);
    assert_int_equal(seg_key_of(range.base, reader, &key), 0);
    peer_fill(range.base, 4096, 1);
    assert_int_equal(peer_read(&s.peer, range.base, key.remote, 4096, 1, &same), IBV_WC_SUCCESS);
    assert_true(same);
    assert_int_not_equal(peer_write(&s.peer, range.base, key.remote, 4096, 2), IBV_WC_SUCCESS);
    assert_true(peer_is_filled(range.base, 4096, 1));
    assert_int_equal(seg_supply_release(supply, range), 0);
    assert_int_equal(seg_supply_destroy(supply) | seg_registrar_destroy(reader), 0);
    close_side(&s);
}

static void domains_do_not_open_each_other(void **state)
{
    struct seg_registrar *other;
    struct seg_supply_config config = { .list = "memfd" };
    struct seg_key_here mine, others;
    struct ibv_pd *domain;
    struct side s;
    char *object;
    bool same;

    (void)state;
    peer_start(&s.peer, address);
    domain = ibv_alloc_pd(s.peer.connection->verbs);
    assert_non_null(domain);
    assert_int_equal(seg_registrar_verbs(domain, ACCESS, 0, &other), 0);
    peer_stop(&s.peer);
    config.registrars[1] = other;
    open_side_over(&s, &config, 0);
    object = allocate(&s, 5000);
    peer_fill(object, 5000, 3);
    mine = key_of(&s, object);
    assert_int_equal(seg_key_of(object, other, &others), 0);
    assert_int_not_equal(mine.remote, others.remote);
    assert_int_equal(peer_read(&s.peer, object, mine.remote, 5000, 3, &same), IBV_WC_SUCCESS);
    assert_true(same);
    assert_int_not_equal(peer_read(&s.peer, object, others.remote, 5000, 3, &same), IBV_WC_SUCCESS);
    close_memory(&s);
    assert_int_equal(seg_registrar_destroy(other), 0);
    assert_int_equal(ibv_dealloc_pd(domain), 0);        /* nothing is registered in it any more */
    peer_stop(&s.peer);
}

/* ---- the end of keys ---- */

/* A source that looks, when an extent comes back, whether it is still pinned. */
static const struct seg_source_ops *memfd;
static size_t pinned_before, late;

static int release_and_look(void *self, struct seg_extent *extent)
{
    size_t now = pinned_bytes();

    late += now + extent->size > pinned_before;
    pinned_before = now;
    return memfd->release(self, extent);
}

static void keys_end_before_memory_is_unmapped(void **state)
{
    struct seg_source_ops watch;
    struct seg_choice choice = { .ops = &watch };
    struct seg_supply_config config = { .choices = &choice, .choice_count = 1 };
    size_t pinned_first = pinned_bytes();
    struct side s;
    void *object;
    uint64_t key;
    bool same;

    (void)state;
    memfd = seg_source_find("memfd");
    watch = *memfd;
    watch.name = "watch";
    watch.release = release_and_look;
    late = 0;
    open_side_over(&s, &config, 8 * MiB);
    for (int i = 0; i < 400; i++)
        object = allocate(&s, 20000);
    assert_true(segments_of(s.supply) > 1);
    key = key_of(&s, object).remote;
    assert_int_equal(peer_write(&s.peer, object, key, 20000, 1), IBV_WC_SUCCESS);
    pinned_before = pinned_bytes();
    assert_true(pinned_before > pinned_first + 4 * MiB);
    close_memory(&s);
    assert_int_equal(late, 0);
    assert_int_equal(pinned_bytes(), pinned_first);
    assert_int_not_equal(peer_read(&s.peer, object, key, 20000, 1, &same), IBV_WC_SUCCESS);
    peer_stop(&s.peer);
}

/* ---- the death of an owner ---- */

enum { SHARED_SIZE = 16 << 20 };

/* A supply over all of a segment that others can attach to. */
static struct seg_segment *open_side_in(struct side *s, unsigned flags)
{
    struct seg_request request = { .struct_size = sizeof(request), .kind = SEG_POSIX_SHM, .flags = flags, .name = "rdma-test-shared",
                                   .wanted_size = SHARED_SIZE };
    struct seg_choice choice = { .ops = seg_source_parts() };
    struct seg_supply_config config = { .choices = &choice, .choice_count = 1 };
    struct seg_segment *segment;

    CHECK(seg_open(&request, &segment) == 0);
    choice.user = segment;
    open_side_over(s, &config, 0);
    return segment;
}

static void *base_of(struct seg_segment *segment)
{
    struct seg_info info = { .struct_size = sizeof(info) };

    CHECK(seg_info(segment, &info) == 0);
    return info.base;
}

/* In a process of its own, this program anew: has a peer write into an object, says where it is, and waits to be killed. */
static void victim_main(int argc, char **argv)
{
    struct seg_segment *segment;
    size_t offset;
    struct side s;
    char *object;

    if (argc != 4 || strcmp(argv[1], "--victim") != 0)
        return;
    address = argv[2];
    segment = open_side_in(&s, SEG_CREATE);
    object = la_chain_alloc(s.chain, 70000);
    CHECK(object && peer_write(&s.peer, object, key_of(&s, object).remote, 70000, 5) == IBV_WC_SUCCESS);
    offset = (size_t)(object - (char *)base_of(segment));
    CHECK(write(atoi(argv[3]), &offset, sizeof(offset)) == sizeof(offset));
    for (;;)
        pause();
}

static pid_t start_victim(int *report)
{
    char text[16];
    int ends[2];
    pid_t pid;

    assert_int_equal(pipe(ends), 0);
    snprintf(text, sizeof(text), "%d", ends[1]);
    pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", "victim", "--victim", address, text, (char *)NULL);
        _exit(1);
    }
    close(ends[1]);
    *report = ends[0];
    return pid;
}

static void memory_of_a_killed_owner_is_registered_anew(void **state)
{
    struct seg_segment *segment;
    struct seg_key_here key;
    struct la_range range;
    struct side s;
    size_t offset;
    pid_t victim;
    int report;
    bool same;

    (void)state;
    victim = start_victim(&report);
    assert_int_equal(read(report, &offset, sizeof(offset)), sizeof(offset));
    assert_int_equal(kill(victim, SIGKILL), 0);
    assert_int_equal(child_status(victim), 128 + SIGKILL);
    close(report);
    segment = open_side_in(&s, SEG_ATTACH);
    assert_int_equal(seg_supply_acquire(s.supply, SHARED_SIZE, SHARED_SIZE, &range), 0);
    assert_ptr_equal(range.base, base_of(segment));
    assert_true(peer_is_filled((char *)range.base + offset, 70000, 5));
    assert_int_equal(seg_key_of((char *)range.base + offset, s.registrar, &key), 0);
    assert_int_equal(peer_read(&s.peer, (char *)range.base + offset, key.remote, 70000, 5, &same), IBV_WC_SUCCESS);
    assert_true(same);
    assert_int_equal(seg_supply_release(s.supply, range), 0);
    close_side(&s);
    assert_int_equal(seg_close(segment), 0);
    assert_int_equal(seg_remove("rdma-test-shared"), 0);
}

/* ---- fork ---- */

struct forked {
    struct side *side;
    int go_on;
};

/* Lives, with all pages of its parent, until it is told to go on. */
static void live_beside(void *arg)
{
    struct forked *f = arg;
    struct la_range none;
    char c;

    CHECK(seg_supply_acquire(f->side->supply, MiB, MiB, &none) == -ECHILD);
    CHECK(read(f->go_on, &c, 1) == 1);
}

static void fork_leaves_registered_objects_with_the_parent(void **state)
{
    struct side s;
    int go_on[2];
    struct forked f = { .side = &s };
    char *object;
    bool same;
    pid_t child;

    (void)state;
    open_side(&s, "anon");
    object = allocate(&s, 50000);
    peer_fill(object, 50000, 1);
    assert_int_equal(pipe(go_on), 0);
    f.go_on = go_on[0];
    child = start_child(live_beside, &f);
    peer_fill(object, 50000, 2);        /* were the pages the child's now, the device would still see the first content */
    assert_int_equal(peer_read(&s.peer, object, key_of(&s, object).remote, 50000, 2, &same), IBV_WC_SUCCESS);
    assert_true(same);
    assert_int_equal(peer_write(&s.peer, object, key_of(&s, object).remote, 50000, 3), IBV_WC_SUCCESS);
    assert_true(peer_is_filled(object, 50000, 3));
    assert_int_equal(write(go_on[1], "", 1), 1);
    assert_int_equal(child_status(child), 0);
    close(go_on[0]);
    close(go_on[1]);
    close_side(&s);
}

/* ---- limits ---- */

enum { NOBODY = 65534 };

/* The first of several devices is as good as any. */
static struct ibv_pd *open_domain(const char *name)
{
    struct ibv_device **list = ibv_get_device_list(NULL);
    struct ibv_context *context = NULL;

    for (int i = 0; list && list[i] && !context; i++)
        if (strcmp(ibv_get_device_name(list[i]), name) == 0)
            context = ibv_open_device(list[i]);
    CHECK(context);
    ibv_free_device_list(list);
    return ibv_alloc_pd(context);
}

static const char *device_name(void)
{
    return strcmp(address, "192.0.2.1") == 0 ? "rxe0" : "siw0";
}

static void limit_to(size_t bytes)
{
    struct rlimit limit = { bytes, bytes };

    CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
}

static struct seg_supply *supply_in(struct ibv_pd *domain, struct seg_registrar **registrar)
{
    struct seg_supply_config config = { .struct_size = sizeof(config), .list = "memfd,anon" };
    struct seg_supply *supply;

    CHECK(domain && seg_registrar_verbs(domain, ACCESS, 0, registrar) == 0);
    config.registrars[0] = *registrar;
    CHECK(seg_supply_create(&config, &supply) == 0);
    return supply;
}

static void be_an_ordinary_user(void *arg)
{
    struct seg_registrar *registrar;
    struct seg_supply *supply;
    struct la_chain *chain;
    struct la_range range;

    (void)arg;
    limit_to(MiB);
    CHECK(setresgid(NOBODY, NOBODY, NOBODY) == 0 && setresuid(NOBODY, NOBODY, NOBODY) == 0);
    supply = supply_in(open_domain(device_name()), &registrar);
    CHECK(la_chain_create(seg_supply_source(supply), 0, &chain) == 0);
    CHECK(la_chain_alloc(chain, 1000) == NULL);     /* a chain grows by more than 1 MiB */
    CHECK(la_last_error_code() == -EDQUOT);
    CHECK(strstr(la_last_error(), "RLIMIT_MEMLOCK is 1048576, 0 used") && strstr(la_last_error(), "ulimit -l"));
    CHECK(pinned_bytes() == 0);
    CHECK(la_chain_destroy(chain) == 0);
    CHECK(seg_supply_acquire(supply, MiB / 2, 64 * MiB, &range) == 0 && range.size == MiB / 2);       /* what is allowed is had */
    CHECK(pinned_bytes() == MiB / 2);
    CHECK(seg_supply_release(supply, range) == 0 && pinned_bytes() == 0);
    CHECK(seg_supply_destroy(supply) == 0 && seg_registrar_destroy(registrar) == 0);
}

static void limit_of_locked_memory_holds_for_an_ordinary_user(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(be_an_ordinary_user, NULL), 0);
}

/* siw does not let CAP_IPC_LOCK pass; we cannot know that before it is asked. */
static void exceed_as_root(void *arg)
{
    struct seg_registrar *registrar;
    struct seg_supply *supply;
    struct la_range range;
    int r;

    (void)arg;
    limit_to(MiB);
    supply = supply_in(open_domain(device_name()), &registrar);
    r = seg_supply_acquire(supply, 2 * MiB, 2 * MiB, &range);
    CHECK(r == (strcmp(device_name(), "rxe0") == 0 ? 0 : -ENOMEM));
    CHECK(r == 0 || strstr(la_last_error(), "RLIMIT_MEMLOCK"));
    CHECK(r < 0 || seg_supply_release(supply, range) == 0);
    CHECK(pinned_bytes() == 0 && seg_supply_destroy(supply) == 0);
}

static void devices_own_limits_are_named(void **state)
{
    (void)state;
    assert_int_equal(run_in_child(exceed_as_root, NULL), 0);
}

/* ---- the contract ---- */

static void print(void *user, const char *rule, const char *finding)
{
    (void)user;
    print_message("\"%s\" is broken: %s\n", rule, finding);
}

static void contract_is_kept_on_a_device(void **state)
{
    struct seg_conformance run = { .struct_size = sizeof(run), .report = print };
    struct seg_registrar *registrar;
    struct peer peer;

    (void)state;
    assert_true(seg_verbs_available() >= 1);
    peer_start(&peer, address);
    assert_int_equal(seg_registrar_verbs(peer.connection->pd, ACCESS, 0, &registrar), 0);
    assert_int_equal(seg_conformance_registrar(&registrar->ops, registrar->self, "memfd", &run), 0);
    assert_int_equal(seg_registrar_destroy(registrar), 0);
    peer_stop(&peer);
}

/* ---- memory of another device ---- */

static unsigned descriptors(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void open_vgem(struct vgem *vgem, unsigned capabilities)
{
    if (vgem_open(vgem, capabilities))
        return;
    print_message("this kernel has no vgem: no dmabuf to register\n");
    skip();
}

/* Software devices copy with the processor: they have no business with memory that it cannot touch. */
static void device_that_takes_no_dmabuf_says_so(void **state)
{
    static const struct { unsigned capabilities; int code; const char *says; } cases[] = {
        { SEG_DEVICE_ONLY, -ENOTSUP, "" },
        { SEG_SHARED, -EFAULT, "; by address: verbs: ibv_reg_mr of 1048576 bytes, access 0x7: errno 14" },
    };

    (void)state;
    assert_int_equal(seg_verbs_dmabuf(), -ENOTSUP);
    assert_non_null(strstr(la_last_error(), "none of 2 RDMA devices registers a dmabuf"));
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct seg_choice choice = { .ops = &vgem_source };
        struct seg_supply_config config = { .struct_size = sizeof(config), .choices = &choice, .choice_count = 1 };
        struct seg_supply *supply;
        struct la_range range;
        struct peer peer;
        struct vgem vgem;
        unsigned before;

        open_vgem(&vgem, cases[i].capabilities);
        choice.user = &vgem;
        peer_start(&peer, address);
        assert_int_equal(seg_registrar_verbs(peer.connection->pd, ACCESS, 0, &config.registrars[0]), 0);
        assert_int_equal(seg_supply_create(&config, &supply), 0);
        before = descriptors();
        assert_int_equal(seg_supply_acquire(supply, MiB, MiB, &range), cases[i].code);
        if (!strstr(la_last_error(), "the device does not register a dmabuf (errno 95;") || !strstr(la_last_error(), cases[i].says))
            fail_msg("\"%s\"", la_last_error());
        assert_int_equal(descriptors(), before);
        assert_int_equal(vgem.out, 0);
        assert_int_equal(seg_supply_destroy(supply) | seg_registrar_destroy(config.registrars[0]), 0);
        peer_stop(&peer);
        vgem_close(&vgem);
    }
}

static void dmabuf_of_the_kernel_keeps_the_contract(void **state)
{
    struct seg_conformance run = { .struct_size = sizeof(run), .report = print };
    struct seg_choice choice = { .ops = &vgem_source };
    struct vgem vgem;

    (void)state;
    open_vgem(&vgem, SEG_SHARED);
    choice.user = &vgem;
    assert_int_equal(seg_conformance_source(&choice, &run), 0);
    assert_int_equal(vgem.out, 0);
    vgem_close(&vgem);
}

int main(int argc, char **argv)
{
    static const char *const addresses[] = { "192.0.2.1", "198.51.100.1" };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limit_of_locked_memory_holds_for_an_ordinary_user),
        cmocka_unit_test(devices_own_limits_are_named),
        cmocka_unit_test(objects_are_written_and_read_by_a_peer),
        cmocka_unit_test(memory_grows_under_traffic),
        cmocka_unit_test(wrong_key_is_refused_by_the_device),
        cmocka_unit_test(access_that_was_not_given_is_refused_by_the_device),
        cmocka_unit_test(domains_do_not_open_each_other),
        cmocka_unit_test(keys_end_before_memory_is_unmapped),
        cmocka_unit_test(memory_of_a_killed_owner_is_registered_anew),
        cmocka_unit_test(fork_leaves_registered_objects_with_the_parent),
        cmocka_unit_test(contract_is_kept_on_a_device),
        cmocka_unit_test(device_that_takes_no_dmabuf_says_so),
        cmocka_unit_test(dmabuf_of_the_kernel_keeps_the_contract),
    };
    int failed = 0;

    limit_to(RLIM_INFINITY);
    peer_main(argc, argv);
    victim_main(argc, argv);
    for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
        address = addresses[i];
        failed += cmocka_run_group_tests_name(device_name(), tests, NULL, NULL);
    }
    return failed;
}
