/*
 * client.c - the requests of the public API, one function each.
 *
 * A list comes in pages that are complete in themselves; the callback is called between them, with no lock held.
 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include <liballoc/error.h>

#include "base/error.h"
#include "base/fmt.h"
#include "shmserver/client/connection.h"
#include "shmserver/protocol/record.h"

enum { LA_FLAGS = LA_HEAP_NO_RECOVER | LA_HEAP_FORK_REPORT | LA_HEAP_READ_ONLY | LA_HEAP_DUMP, HUGE_FLAGS = LA_HEAP_HUGE_2M | LA_HEAP_HUGE_1G };

/* Of a new heap; 0: small ones. */
static uint64_t page_size_of(unsigned flags)
{
    return flags & LA_HEAP_HUGE_1G ? GiB : flags & LA_HEAP_HUGE_2M ? 2 * MiB : 0;
}

/* Of the name the daemon judges; here only that it fits into a message. */
static int put_name(struct wire_message *m, const char *name)
{
    if (!name || strlen(name) > LA_HEAP_NAME_MAX)
        return la_fail(-EINVAL, "name \"%.80s\": use 1 to %d of A-Z a-z 0-9 . _ -, the first no . or -", name ? name : "(null)",
                       LA_HEAP_NAME_MAX);
    wire_put_text(m, TLV_NAME, name);
    return 0;
}

/* Makes a repeated request the same request; that it is unique is a comfort, not a right. */
static void put_key(struct wire_message *m)
{
    uint64_t key;

    if (getrandom(&key, sizeof(key), 0) == sizeof(key))
        wire_put_u64(m, TLV_KEY, 0, key);
}

int shms_heap_create(struct shms_client *client, const char *name, size_t size)
{
    return shms_heap_create_huge(client, name, size, 0);
}

int shms_heap_create_huge(struct shms_client *client, const char *name, size_t size, size_t page_size)
{
    struct wire_message m;
    int r;

    wire_begin(&m, WIRE_CREATE, 0, 0);
    r = put_name(&m, name);
    if (r < 0)
        return r;
    wire_put_u64(&m, TLV_SIZE, TLV_CRITICAL, size);
    if (page_size)
        wire_put_u64(&m, TLV_PAGE_SIZE, TLV_CRITICAL, page_size);
    put_key(&m);
    return connection_ask(client, &m, NULL);
}

static void say_detached(struct shms_client *client, uint64_t id)
{
    struct wire_message m;

    if (!client)
        return;
    connection_drop(client, id);
    wire_begin(&m, WIRE_DETACH, 0, 0);
    wire_put_u64(&m, TLV_ID, 0, id);
    connection_ask(client, &m, NULL);
}

/*
 * The descriptor is the heap's from now on, with a description of its own: its lock is this process's death certificate. If it cannot be
 * attached the daemon must not go on counting us; but -EALREADY means that it is, and one count stands for both.
 */
static int attach(struct shms_client *client, const struct wire_message *m, int fd, unsigned flags, struct la_heap **ret)
{
    int r = la_heap_attach_fd(fd, flags, ret);
    char why[200];
    uint64_t id;

    if (!wire_get_u64(m, TLV_ID, &id))
        return r;
    if (r == 0 || r == -EALREADY) {
        connection_hold(client, id);
        return r;
    }
    la_format(why, sizeof(why), "%s", la_last_error());
    say_detached(client, id);
    return la_fail(r, "%s", why);
}

int shms_heap_open(struct shms_client *client, const char *name, size_t size, unsigned flags, struct la_heap **ret)
{
    struct wire_message m;
    int fd = -1, r;

    if (flags & ~(unsigned)(LA_FLAGS | HUGE_FLAGS | SHMS_CREATE_ONLY))
        return la_fail(-EINVAL, "shms_heap_open() flags %#x are unknown", flags);
    if ((flags & SHMS_CREATE_ONLY) && size == 0)
        return la_fail(-EINVAL, "SHMS_CREATE_ONLY needs the size of the new heap");
    if ((flags & LA_HEAP_READ_ONLY) && size > 0)
        return la_fail(-EINVAL, "LA_HEAP_READ_ONLY is for a heap that exists: nobody could write what is to be read (size 0)");
    wire_begin(&m, WIRE_ATTACH, 0, 0);
    r = put_name(&m, name);
    if (r < 0)
        return r;
    if (size > 0) {
        wire_put_u64(&m, TLV_SIZE, TLV_CRITICAL, size);
        if (page_size_of(flags))
            wire_put_u64(&m, TLV_PAGE_SIZE, TLV_CRITICAL, page_size_of(flags));
        put_key(&m);
    }
    if (flags & SHMS_CREATE_ONLY)
        wire_put_u64(&m, TLV_EXCLUSIVE, TLV_CRITICAL, 1);
    if (flags & LA_HEAP_READ_ONLY)
        wire_put_u64(&m, TLV_READ_ONLY, TLV_CRITICAL, 1);
    r = connection_ask(client, &m, &fd);
    if (r == 0 && fd < 0)
        r = la_fail(-EPROTO, "shmserver answered without the heap's descriptor");
    return r < 0 ? r : attach(client, &m, fd, flags & LA_FLAGS, ret);
}

int shms_heap_close(struct shms_client *client, struct la_heap *heap)
{
    struct la_heap_info info = { .struct_size = sizeof(info) };
    int r;

    if (!heap)
        return 0;
    r = la_heap_info(heap, &info);
    if (r == 0)
        r = la_heap_detach(heap);
    if (r < 0)
        return r;
    /* A courtesy that spares the daemon a search; a daemon that is gone needs none. */
    say_detached(client, info.id);
    return 0;
}

int shms_heap_remove(struct shms_client *client, const char *name)
{
    struct wire_message m;
    bool again;
    int r;

    wire_begin(&m, WIRE_REMOVE, 0, 0);
    r = put_name(&m, name);
    if (r == 0)
        r = connection_ask_again(client, &m, NULL, &again);
    /* A daemon that died before it answered has done it. */
    return r == -ENOENT && again ? 0 : r;
}

int shms_heap_set_acl(struct shms_client *client, const char *name, uint32_t owner, uint32_t group, uint32_t mode)
{
    struct wire_message m;
    int r;

    wire_begin(&m, WIRE_ACL, 0, 0);
    r = put_name(&m, name);
    if (r < 0)
        return r;
    if (owner != SHMS_UNCHANGED)
        wire_put_u64(&m, TLV_OWNER, TLV_CRITICAL, owner);
    if (group != SHMS_UNCHANGED)
        wire_put_u64(&m, TLV_GROUP, TLV_CRITICAL, group);
    if (mode != SHMS_UNCHANGED)
        wire_put_u64(&m, TLV_MODE, TLV_CRITICAL, mode);
    return connection_ask(client, &m, NULL);
}

int shms_heap_seal(struct shms_client *client, const char *name)
{
    struct wire_message m;
    int r;

    wire_begin(&m, WIRE_SEAL, 0, 0);
    r = put_name(&m, name);
    return r < 0 ? r : connection_ask(client, &m, NULL);
}

int shms_heap_info(struct shms_client *client, const char *name, struct shms_heap *ret)
{
    size_t size = ret ? ret->struct_size : 0;
    struct shms_heap heap;
    struct wire_message m;
    struct wire_tlv tlv;
    int r;

    if (size < sizeof(ret->struct_size) || size > 4 * sizeof(heap))
        return la_fail(-EINVAL, "set struct_size to sizeof(struct shms_heap) before the call");
    wire_begin(&m, WIRE_INFO, 0, 0);
    r = put_name(&m, name);
    if (r == 0)
        r = connection_ask(client, &m, NULL);
    if (r < 0)
        return r;
    if (!wire_find(&m, TLV_HEAP, &tlv) || !record_get_heap(&tlv, &heap))
        return la_fail(-EPROTO, "shmserver answered without saying anything about heap %s", name);
    memset(ret, 0, size);
    memcpy(ret, &heap, MIN(size, sizeof(heap)));
    ret->struct_size = size;
    return 0;
}

/* ---- lists ---- */

struct list {
    enum wire_type type;
    const char *name;       /* only of this heap; NULL: of all */
    /* The user's callback: one of the two, or none. */
    void (*each_heap)(void *user, const struct shms_heap *heap);
    void (*each_process)(void *user, const struct shms_process *process);
    void (*each_event)(void *user, const struct shms_event *event);
    uint64_t after;         /* where to begin */
    void (*each_quota)(void *user, const struct shms_quota *quota);
    void *user;
};

static int ask_page(struct shms_client *client, const struct list *list, uint64_t after, struct wire_message *m)
{
    int r = 0;

    wire_begin(m, list->type, 0, 0);
    if (list->name)
        r = put_name(m, list->name);
    if (after)
        wire_put_u64(m, TLV_AFTER, TLV_CRITICAL, after);
    return r < 0 ? r : connection_ask(client, m, NULL);
}

/* Return: 1 if the TLV is a record of the list, else 0. */
static int hand_out(const struct list *list, const struct wire_tlv *tlv)
{
    struct shms_process process;
    struct shms_quota quota;
    struct shms_event event;
    struct shms_heap heap;

    if (list->type == WIRE_LIST && record_get_heap(tlv, &heap)) {
        if (list->each_heap)
            list->each_heap(list->user, &heap);
        return 1;
    }
    if (list->type == WIRE_PROCESSES && record_get_process(tlv, &process)) {
        if (list->each_process)
            list->each_process(list->user, &process);
        return 1;
    }
    if (list->type == WIRE_EVENTS && record_get_event(tlv, &event)) {
        if (list->each_event)
            list->each_event(list->user, &event);
        return 1;
    }
    if (list->type == WIRE_QUOTA && record_get_quota(tlv, &quota)) {
        if (list->each_quota)
            list->each_quota(list->user, &quota);
        return 1;
    }
    return 0;
}

static int run_list(struct shms_client *client, const struct list *list)
{
    uint64_t after = list->after, next;
    int count = 0;

    for (;;) {
        struct wire_message m;
        struct wire_tlv tlv;
        int r = ask_page(client, list, after, &m);

        if (r < 0)
            return r;
        for (size_t cursor = 0; wire_next(&m, &cursor, &tlv);)
            count += hand_out(list, &tlv);
        if (!wire_get_u64(&m, TLV_NEXT, &next))
            return count;
        if (next <= after)
            return la_fail(-EPROTO, "shmserver's list goes in circles");
        after = next;
    }
}

int shms_list(struct shms_client *client, void (*each)(void *user, const struct shms_heap *heap), void *user)
{
    const struct list list = { .type = WIRE_LIST, .each_heap = each, .user = user };

    return run_list(client, &list);
}

int shms_processes(struct shms_client *client, const char *name,
                   void (*each)(void *user, const struct shms_process *process), void *user)
{
    const struct list list = { .type = WIRE_PROCESSES, .name = name, .each_process = each, .user = user };

    return run_list(client, &list);
}

int shms_quotas(struct shms_client *client, void (*each)(void *user, const struct shms_quota *quota), void *user)
{
    const struct list list = { .type = WIRE_QUOTA, .each_quota = each, .user = user };

    return run_list(client, &list);
}

int shms_quota_set(struct shms_client *client, const struct shms_quota *quota)
{
    struct wire_message m;

    /* Callers that do not know of the last limit. */
    if (!quota || quota->struct_size < offsetof(struct shms_quota, max_committed))
        return la_fail(-EINVAL, "set struct_size to sizeof(struct shms_quota) before the call");
    wire_begin(&m, WIRE_QUOTA, 0, 0);
    wire_put(&m, TLV_QUOTA, TLV_CRITICAL, quota, MIN(quota->struct_size, sizeof(*quota)));
    return connection_ask(client, &m, NULL);
}

/* ---- looking after a daemon ---- */

int shms_events(struct shms_client *client, uint64_t after, void (*each)(void *user, const struct shms_event *event), void *user)
{
    const struct list list = { .type = WIRE_EVENTS, .each_event = each, .after = after, .user = user };

    return run_list(client, &list);
}

int shms_kick(struct shms_client *client, int32_t pid, bool kill)
{
    struct wire_message m;

    wire_begin(&m, WIRE_KICK, 0, 0);
    wire_put_u64(&m, TLV_PID, TLV_CRITICAL, (uint32_t)pid);
    if (kill)
        wire_put_u64(&m, TLV_KILL, TLV_CRITICAL, 1);
    return connection_ask(client, &m, NULL);
}

int shms_gc(struct shms_client *client, uint64_t *recovered, uint64_t *freed)
{
    struct wire_message m;
    int r;

    wire_begin(&m, WIRE_GC, 0, 0);
    r = connection_ask(client, &m, NULL);
    if (r < 0)
        return r;
    if (recovered && !wire_get_u64(&m, TLV_RECOVERED, recovered))
        *recovered = 0;
    if (freed && !wire_get_u64(&m, TLV_FREED, freed))
        *freed = 0;
    return 0;
}
