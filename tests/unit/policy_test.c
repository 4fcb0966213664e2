/* policy_test.c - keep while little or young, give back what is old or a large share of what lives. */
#include "engine.h"

#include "core/policy.h"

static bool keeps(size_t cached, size_t mapped, uint64_t age_ms)
{
    return policy_keeps(&(struct policy_input){ .cached = cached, .mapped = mapped, .age_ms = age_ms });
}

static void little_is_kept_for_ever(void **state)
{
    (void)state;
    assert_true(keeps(0, 0, 0));
    assert_true(keeps(4 * MiB, 4 * MiB, 3600000));
}

static void cycle_of_a_few_32_mib_blocks_is_kept(void **state)
{
    (void)state;
    assert_true(keeps(8 * 32 * MiB, 256 * MiB, 5000));
}

static void old_memory_is_given_back(void **state)
{
    (void)state;
    assert_false(keeps(5 * MiB, 100 * GiB, 60000));
}

static void much_is_kept_only_as_a_share_of_what_lives(void **state)
{
    (void)state;
    assert_true(keeps(GiB, 4 * GiB, 0));
    assert_false(keeps(GiB, 3 * GiB, 0));
}

static void more_cached_never_turns_give_back_into_keep(void **state)
{
    (void)state;
    for (size_t mapped = 0; mapped <= 8 * GiB; mapped += GiB)
        for (uint64_t age = 0; age <= 30000; age += 5000) {
            bool kept = true;
            for (size_t cached = 0; cached <= 4 * GiB; cached += 64 * MiB) {
                bool now = keeps(cached, mapped, age);
                assert_true(kept || !now);
                kept = now;
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(little_is_kept_for_ever),
        cmocka_unit_test(cycle_of_a_few_32_mib_blocks_is_kept),
        cmocka_unit_test(old_memory_is_given_back),
        cmocka_unit_test(much_is_kept_only_as_a_share_of_what_lives),
        cmocka_unit_test(more_cached_never_turns_give_back_into_keep),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
