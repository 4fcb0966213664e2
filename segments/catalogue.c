/*
 * catalogue.c - the sources that lists can name. Entries are added and never removed, so finding takes no lock.
 */
#include "segments/catalogue.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>

#include "base/error.h"
#include "base/fmt.h"
#include "os/vspace.h"

enum { REGISTERED_MAX = 16, NAME_MAX_LENGTH = 31 };

static const struct seg_source_ops *const driver_sources[] = { &cuda_host_source, &cuda_device_source };

static _Atomic(const struct seg_source_ops *) registered[REGISTERED_MAX];

int seg_fail(int code, const char *format, ...)
{
    char text[256];
    va_list args;

    va_start(args, format);
    la_vformat(text, sizeof(text), format, args);
    va_end(args);
    return la_fail(code, "%s", text);
}

static const struct seg_source_ops *find(const char *name, size_t length)
{
    for (size_t i = 0; i < kind_source_count; i++)
        if (strlen(kind_sources[i].name) == length && memcmp(kind_sources[i].name, name, length) == 0)
            return &kind_sources[i];
    for (size_t i = 0; i < ARRAY_SIZE(driver_sources); i++)
        if (strlen(driver_sources[i]->name) == length && memcmp(driver_sources[i]->name, name, length) == 0)
            return driver_sources[i];
    for (size_t i = 0; i < REGISTERED_MAX; i++) {
        /* Acquire: pairs with the release in seg_source_register(). */
        const struct seg_source_ops *ops = atomic_load_explicit(&registered[i], memory_order_acquire);

        if (ops && strlen(ops->name) == length && memcmp(ops->name, name, length) == 0)
            return ops;
    }
    return NULL;
}

const struct seg_source_ops *seg_source_find(const char *name)
{
    return name ? find(name, strlen(name)) : NULL;
}

int source_check_ops(const struct seg_source_ops *ops)
{
    size_t length;

    if (!ops || ops->struct_size < offsetof(struct seg_source_ops, resize) || ops->struct_size > 4 * sizeof(*ops))
        return la_fail(-EINVAL, "set struct_size of the operations to sizeof(struct seg_source_ops)");
    length = ops->name ? strlen(ops->name) : 0;
    if (length == 0 || length > NAME_MAX_LENGTH ||
        strspn(ops->name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") != length)
        return la_fail(-EINVAL, "a source needs a name of letters, digits, - and _, at most %d", NAME_MAX_LENGTH);
    if (!ops->open || !ops->close || !ops->info || !ops->acquire || !ops->release)
        return la_fail(-EINVAL, "source %s needs open, close, info, acquire and release", ops->name);
    return 0;
}

static int enter(const struct seg_source_ops *ops)
{
    for (size_t i = 0; i < REGISTERED_MAX; i++)
        if (!atomic_load_explicit(&registered[i], memory_order_relaxed)) {
            atomic_store_explicit(&registered[i], ops, memory_order_release);
            return 0;
        }
    return -ENOSPC;
}

int seg_source_register(const struct seg_source_ops *ops)
{
    int r = source_check_ops(ops);

    if (r < 0)
        return r;
    vspace_lock();
    r = seg_source_find(ops->name) ? -EEXIST : enter(ops);
    vspace_unlock();
    if (r == -EEXIST)
        return la_fail(r, "a source named \"%s\" exists", ops->name);
    return r < 0 ? la_fail(r, "no more than %d sources can be registered", REGISTERED_MAX) : 0;
}

/* ---- lists ---- */

static int read_entry(const char *text, size_t length, struct list_entry *entry)
{
    const char *colon = memchr(text, ':', length);
    size_t name = colon ? (size_t)(colon - text) : length, argument = colon ? length - name - 1 : 0;

    entry->ops = find(text, name);
    if (!entry->ops)
        return la_fail(-EINVAL, "source \"%.*s\" is unknown: anon, thp, hugetlb:2M, hugetlb:1G, memfd, shm:NAME, file:PATH, cuda-host, cuda-device, or "
                       "one that seg_source_register() knows", (int)MIN(name, (size_t)40), text);
    if (argument >= sizeof(entry->text))
        return la_fail(-E2BIG, "source \"%.*s\": more than %zu bytes behind the colon", (int)name, text, sizeof(entry->text) - 1);
    memcpy(entry->text, colon ? colon + 1 : "", argument);
    entry->text[argument] = '\0';
    return 0;
}

int list_read(const char *list, struct list_entry *entries, size_t room)
{
    size_t count = 0;

    for (const char *at = list;; at++) {
        size_t length = strcspn(at, ",");
        int r;

        if (count == room)
            return la_fail(-E2BIG, "list \"%.60s\" has more than %zu sources", list, room);
        r = read_entry(at, length, &entries[count++]);
        if (r < 0)
            return r;
        at += length;
        if (!*at)
            return (int)count;
    }
}
