/*
 * exchange_test.c - publish and take by threads of one process on one mapping: the orders of loads and stores, under TSan, and that nothing is
 * lost or twice.
 *
 * An object's content is written and read without atomics: only the acquire and release of the link stand between its writer and its next
 * reader. Every lane pushes, takes, frees, allocates anew and pushes again, on few links, so that operations meet and help each other.
 */
#include "../unit/engine.h"

#include <stdatomic.h>
#include <unistd.h>

#include <liballoc/heap.h>

enum { THREADS = 4, ROUNDS = 60000, LINKS = 2 };

struct object {
    la_link next, part;
    uint64_t id, check[4];
};

static struct la_heap *heap;
static la_link *links[LINKS];
static _Atomic(uint64_t) pushed, taken, bad;

static void fill(struct object *o, uint64_t id)
{
    o->id = id;
    for (unsigned i = 0; i < ARRAY_SIZE(o->check); i++)
        o->check[i] = id * 0x9e3779b97f4a7c15u + i;
}

static bool is_whole(const struct object *o)
{
    for (unsigned i = 0; i < ARRAY_SIZE(o->check); i++)
        if (o->check[i] != o->id * 0x9e3779b97f4a7c15u + i)
            return false;
    return true;
}

static void push(la_link *link, struct object *o)
{
    if (!o || la_push(heap, link, o, offsetof(struct object, next)) != 0)
        atomic_fetch_add(&bad, 1);
    else
        atomic_fetch_add(&pushed, 1);
}

static void push_bundle(la_link *link, uint64_t id)
{
    struct la_bundle *bundle;
    struct object *root, *part;
    int r;

    if (la_bundle_begin(heap, &bundle) != 0 || !(root = la_bundle_alloc(bundle, sizeof(*root))) || !(part = la_bundle_alloc(bundle, sizeof(*part)))) {
        atomic_fetch_add(&bad, 1);
        return;
    }
    fill(root, id);
    fill(part, ~id);
    atomic_store_explicit(&root->part, (void *)part, memory_order_relaxed);
    do {
        void *old = la_load(heap, link);

        atomic_store_explicit(&root->next, old, memory_order_relaxed);
        r = la_bundle_publish(bundle, link, old, root);
    } while (r == -EAGAIN);
    atomic_fetch_add(r == 0 ? &pushed : &bad, 1);
}

static struct object *take(la_link *link)
{
    struct object *o = la_take(heap, link, offsetof(struct object, next));

    if (!o)
        return NULL;
    atomic_fetch_add(&taken, 1);
    if (!is_whole(o))
        atomic_fetch_add(&bad, 1);
    return o;
}

static void release(struct object *o)
{
    struct object *part = (struct object *)atomic_load_explicit(&o->part, memory_order_relaxed);

    if (part && (!is_whole(part) || part->id != ~o->id))
        atomic_fetch_add(&bad, 1);
    la_free(part);
    la_free(o);
}

static struct object *new_object(uint64_t id)
{
    struct object *o = la_heap_hold(heap, sizeof(*o));

    if (o) {
        atomic_store_explicit(&o->part, NULL, memory_order_relaxed);
        fill(o, id);
    }
    return o;
}

static void *work(void *arg)
{
    uint64_t number = (uint64_t)(uintptr_t)arg;

    for (uint64_t i = 0; i < ROUNDS; i++) {
        la_link *link = links[(i / 3 + number) % LINKS];
        struct object *o;

        if (i % 8 == 0)
            push_bundle(link, number << 32 | i);
        else
            push(link, new_object(number << 32 | i));
        o = take(links[i % LINKS]);
        if (o && i % 4 == 0) {
            fill(o, o->id);     /* the same again, by another writer */
            push(link, o);
            o = take(link);
        }
        if (o)
            release(o);
    }
    return NULL;
}

static void objects_pass_between_threads_whole(void **state)
{
    struct la_fsck found = { .struct_size = sizeof(found) };
    pthread_t threads[THREADS];
    const char *what = NULL;
    struct object *o;

    (void)state;
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, (void *)i), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < LINKS; i++)
        while ((o = take(links[i])) != NULL)
            release(o);
    assert_int_equal(atomic_load(&bad), 0);
    assert_int_equal(atomic_load(&taken), atomic_load(&pushed));
    assert_int_equal(la_heap_fsck(heap, print_finding, &what, &found), 0);
    assert_int_equal(found.blocks[1] + found.blocks[2] + found.blocks[3], 0);
}

static int setup(void **state)
{
    char name[40];

    (void)state;
    snprintf(name, sizeof(name), "exchange-%d", (int)getpid());
    if (la_heap_create(name, 64 * MiB, 0, &heap) < 0 || la_heap_remove(name) < 0)
        return -1;
    return la_heap_root(heap, "one", &links[0]) < 0 || la_heap_root(heap, "two", &links[1]) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    return la_heap_detach(heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(objects_pass_between_threads_whole) };

    return cmocka_run_group_tests(tests, setup, teardown);
}
