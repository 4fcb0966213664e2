/*
 * segment_map_test.c - segments/segment_map.c: lookups agree with a linear search at every address that matters, also while extents come and go.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include <liballoc/error.h>

/* The object itself, not the library's: the reader's two steps are tested one by one. */
#include "segments/segment_map.c"

/* Nothing is mapped at these addresses: the map looks at numbers only. */
#define BASE ((uintptr_t)0x123400000000)

static struct map_record *show(uintptr_t base, size_t size)
{
    struct map_record *record = map_record_new();
    struct map_answer answer = { .base = base, .size = size, .fd = -1 };

    assert_non_null(record);
    if (map_enter(record, base, size) < 0) {
        map_record_free(record);
        return NULL;
    }
    answer.keys[0] = (struct map_key){ .registrar = (void *)0x10, .local = base, .remote = base + 1, .device = base + 2 };
    map_show(record, &answer);
    return record;
}

static void take_away(struct map_record *record)
{
    map_hide(record);
    map_leave(record);
    map_record_free(record);
}

static bool is_found(uintptr_t address, uintptr_t base)
{
    struct seg_location l = { .struct_size = sizeof(l) };

    return seg_find((void *)address, &l) == 0 && l.base == (void *)base && l.offset == address - base;
}

static bool is_nowhere(uintptr_t address)
{
    struct seg_location l = { .struct_size = sizeof(l) };
    struct seg_key_here key;

    return seg_find((void *)address, &l) == -ENOENT && seg_key_of((void *)address, (void *)0x10, &key) == -ENOENT;
}

static void edges_belong_to_whom_they_should(void **state)
{
    static const size_t sizes[] = { 1, 64, 4096, (2 << 20) - 4096, 2 << 20, (2 << 20) + 4096, 5 << 20, (size_t)40 << 30 };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
        for (uintptr_t shift = 0; shift <= 2 << 20; shift += (2 << 20) - 4096) {
            uintptr_t base = BASE + shift;
            struct map_record *record = show(base, sizes[i]);

            assert_true(is_nowhere(base - 1));
            assert_true(is_found(base, base));
            assert_true(is_found(base + sizes[i] - 1, base));
            assert_true(is_nowhere(base + sizes[i]));
            take_away(record);
            assert_true(is_nowhere(base));
        }
    assert_true(is_nowhere(0));
    assert_true(is_nowhere(UINTPTR_MAX));
    assert_true(is_nowhere((uintptr_t)1 << 48));
}

static void overlap_is_refused_wherever_it_is(void **state)
{
    struct map_record *a = show(BASE + 4096, 4096), *b = show(BASE + (6 << 20), 4 << 20);

    (void)state;
    assert_null(show(BASE + 4096, 4096));
    assert_null(show(BASE, 4097));
    assert_null(show(BASE + 8191, 1));
    assert_null(show(BASE, 64 << 20));              /* the far end meets b: nothing stays entered */
    assert_true(is_nowhere(BASE));
    assert_null(show(BASE + (8 << 20), 4096));
    assert_null(show(((uintptr_t)1 << 48) - 4096, 8192));
    assert_null(show(UINTPTR_MAX - 4095, 8192));
    take_away(a);
    take_away(b);
    a = show(BASE, 64 << 20);
    assert_non_null(a);
    take_away(a);
}

static void many_small_extents_share_a_granule(void **state)
{
    enum { COUNT = 512 };
    static struct map_record *record[COUNT];

    (void)state;
    for (int round = 0; round < 3; round++) {
        for (uintptr_t i = 0; i < COUNT; i++)
            assert_non_null(record[i] = show(BASE + i * 4096, 4096));
        for (uintptr_t i = 0; i < COUNT; i += 2)
            take_away(record[i]);
        for (uintptr_t i = 0; i < COUNT; i++)
            assert_true(i % 2 ? is_found(BASE + i * 4096 + 17, BASE + i * 4096) : is_nowhere(BASE + i * 4096 + 17));
        for (uintptr_t i = 1; i < COUNT; i += 2)
            take_away(record[i]);
        assert_true(is_nowhere(BASE + 4096));
    }
}

/* Against a linear search over random extents. */
static void lookups_agree_with_a_linear_search(void **state)
{
    enum { SLOTS = 200, ROUNDS = 4000 };
    static struct { struct map_record *record; uintptr_t base; size_t size; } slot[SLOTS];
    uint64_t seed = 88172645463325252ull;

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        unsigned i;
        uintptr_t at, expected = 0;

        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        i = seed % SLOTS;
        if (slot[i].record) {
            take_away(slot[i].record);
            slot[i].record = NULL;
        } else {
            slot[i].base = BASE + (seed >> 8) % 4096 * 65536;
            slot[i].size = 4096 << (seed >> 24) % 13;
            slot[i].record = show(slot[i].base, slot[i].size);
            for (unsigned j = 0; j < SLOTS; j++)
                if (j != i && slot[j].record && slot[j].base < slot[i].base + slot[i].size && slot[i].base < slot[j].base + slot[j].size)
                    assert_null(slot[i].record);
        }
        at = BASE + (seed >> 30) % (4096 * 65536ull);
        for (unsigned j = 0; j < SLOTS; j++)
            if (slot[j].record && at - slot[j].base < slot[j].size)
                expected = slot[j].base;
        assert_true(expected ? is_found(at, expected) : is_nowhere(at));
    }
    for (unsigned i = 0; i < SLOTS; i++)
        if (slot[i].record)
            take_away(slot[i].record);
}

static _Atomic(bool) stop;

/* Whatever is found fits together: never half of one extent and half of another. */
static void *look(void *arg)
{
    size_t found = 0;

    (void)arg;
    while (!atomic_load(&stop))
        for (uintptr_t i = 0; i < 8; i++) {
            struct seg_location l = { .struct_size = sizeof(l) };
            struct seg_key_here key;
            void *address = (void *)(BASE + i * (1 << 20) + 100);

            if (seg_key_of(address, (void *)0x10, &key) == 0) {
                if (key.remote != key.local + 1 || (uintptr_t)address + 2 != key.device)
                    return (void *)1;
                found++;
            }
            if (seg_find(address, &l) == 0 && ((uintptr_t)l.base != l.keys[0].local || (uintptr_t)l.base + l.offset != (uintptr_t)address))
                return (void *)1;
        }
    return NULL;
}

static void lookups_never_see_half_a_change(void **state)
{
    pthread_t threads[2];
    void *failed;

    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, look, NULL), 0);
    for (int round = 0; round < 20000; round++) {
        /* The same addresses, cut in two ways: one granule alone, and several that share it. */
        struct map_record *a = show(BASE + (round % 3 << 20), (size_t)(1 + round % 4) << 20), *b = show(BASE + (6 << 20), 1 << 20);

        assert_true(a && b);
        take_away(a);
        take_away(b);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
}

static void reader_notices_a_change_between_its_two_looks(void **state)
{
    struct map_record *record = show(BASE, 4096), *again;
    uint64_t sequence = 0;

    (void)state;
    assert_ptr_equal(find(BASE + 1, &sequence), record->cell);
    assert_true(is_same(record->cell, sequence));
    map_hide(record);
    assert_false(is_same(record->cell, sequence));
    map_leave(record);
    map_record_free(record);
    again = show(BASE, 4096);
    assert_ptr_equal(again, record);            /* the same memory, and the same address */
    assert_false(is_same(record->cell, sequence));
    take_away(again);
}

static void old_keys_are_stale(void **state)
{
    struct map_record *record = show(BASE, 4096);
    struct seg_key_here key, next;

    (void)state;
    assert_int_equal(seg_key_of((void *)BASE, (void *)0x10, &key), 0);
    assert_int_equal(seg_key_of((void *)BASE, (void *)0x20, &next), -ENOKEY);
    assert_int_equal(seg_check((void *)BASE, key.generation), 0);
    take_away(record);
    assert_int_equal(seg_check((void *)BASE, key.generation), -ESTALE);
    record = show(BASE, 4096);                  /* another extent at the same place */
    assert_int_equal(seg_check((void *)BASE, key.generation), -ESTALE);
    assert_int_equal(seg_key_of((void *)BASE, (void *)0x10, &next), 0);
    assert_int_equal(seg_check((void *)BASE, next.generation), 0);
    take_away(record);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edges_belong_to_whom_they_should),
        cmocka_unit_test(overlap_is_refused_wherever_it_is),
        cmocka_unit_test(many_small_extents_share_a_granule),
        cmocka_unit_test(lookups_agree_with_a_linear_search),
        cmocka_unit_test(lookups_never_see_half_a_change),
        cmocka_unit_test(reader_notices_a_change_between_its_two_looks),
        cmocka_unit_test(old_keys_are_stale),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
