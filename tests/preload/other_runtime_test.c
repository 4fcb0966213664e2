/* Whatever C++ runtime a program is linked with is the one that decides when memory has run out. */
#include "support.h"

extern char other_runtime_block[16];

typedef void *new_function(size_t size);

static void the_next_operator_new_in_line_is_asked(void **state)
{
    new_function *operator_new = (new_function *)dlsym(RTLD_DEFAULT, "_Znwm");
    void *block = opaque(operator_new(100));

    (void)state;
    assert_ptr_not_equal(block, other_runtime_block);
    free(block);
    assert_ptr_equal(opaque(operator_new(opaque_size((size_t)1 << 60))), other_runtime_block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_operator_new_in_line_is_asked),
    };

    return cmocka_run_group_tests(tests, require_preload, NULL);
}
