/* meta_test.c - memory for the engine's own structures: zeroed, kept by size, never from malloc. */
#include "engine.h"

#include "core/meta.h"

static bool is_zero(const unsigned char *p, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (p[i])
            return false;
    return true;
}

static void memory_is_zeroed_also_the_second_time(void **state)
{
    (void)state;
    for (size_t size = 1; size <= 9 * MiB; size = size * 3 + 1)
        for (int round = 0; round < 2; round++) {
            unsigned char *p = la_meta_alloc(size);

            assert_non_null(p);
            assert_int_equal((uintptr_t)p % 64, 0);
            assert_true(is_zero(p, size));
            memset(p, 0xee, size);
            la_meta_free(p, size);
        }
}

static void freed_memory_serves_the_next_of_its_size(void **state)
{
    void *p = la_meta_alloc(3000);

    (void)state;
    la_meta_free(p, 3000);
    assert_ptr_equal(la_meta_alloc(4096), p);   /* both are rounded to 4 KiB */
    la_meta_free(p, 4096);
}

static void pieces_do_not_overlap(void **state)
{
    enum { N = 600 };
    static unsigned char *pieces[N];
    static size_t sizes[N];

    (void)state;
    for (unsigned i = 0; i < N; i++) {
        sizes[i] = 1 + i * 97 % 5000;
        pieces[i] = la_meta_alloc(sizes[i]);
        assert_non_null(pieces[i]);
        memset(pieces[i], (int)(i % 251) + 1, sizes[i]);
    }
    for (unsigned i = 0; i < N; i++) {
        for (size_t j = 0; j < sizes[i]; j++)
            assert_int_equal(pieces[i][j], i % 251 + 1);
        la_meta_free(pieces[i], sizes[i]);
    }
}

static void what_the_system_cannot_give_is_null(void **state)
{
    (void)state;
    assert_null(la_meta_alloc((size_t)1 << 50));
    la_meta_free(NULL, 100);
}

static void take_and_give(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < 20000; i++) {
        size_t size = 64 + i % 3 * 64;
        unsigned *p = la_meta_alloc(size);

        if (*p != 0)
            abort();
        *p = i + 1;
        la_meta_free(p, size);
    }
}

static void threads_share_it(void **state)
{
    struct thread_body_ body = { take_and_give, NULL };
    pthread_t threads[3];

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_body_, &body), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
        pthread_join(threads[i], NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_also_the_second_time),
        cmocka_unit_test(freed_memory_serves_the_next_of_its_size),
        cmocka_unit_test(pieces_do_not_overlap),
        cmocka_unit_test(what_the_system_cannot_give_is_null),
        cmocka_unit_test(threads_share_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
