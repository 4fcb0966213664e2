/*
 * operator new without a C++ runtime in the program: there is none to throw, or one that came later with a plug-in and is
 * visible to that only.
 */
#include "support.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

static const size_t too_much = (size_t)1 << 60;

typedef void *new_function(size_t size);
typedef void *new_nothrow_function(size_t size, const void *tag);
typedef void delete_function(void *block);

static void operators_work_without_a_runtime(void **state)
{
    new_function *operator_new = (new_function *)dlsym(RTLD_DEFAULT, "_Znwm");
    delete_function *operator_delete = (delete_function *)dlsym(RTLD_DEFAULT, "_ZdlPv");
    char *block;

    (void)state;
    assert_null(dlopen("libstdc++.so.6", RTLD_LAZY | RTLD_NOLOAD));
    assert_true(operator_new && operator_delete);
    block = operator_new(100);
    fill(block, 100, 1);
    operator_delete(block);
}

static void a_failing_new_aborts_when_nobody_can_catch(void **state)
{
    new_function *operator_new = (new_function *)dlsym(RTLD_DEFAULT, "_Znam");
    pid_t child = fork();
    int status;

    (void)state;
    if (child == 0) {
        const struct rlimit none = { 0, 0 };

        setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL);
        operator_new(opaque_size(too_much));
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void a_failing_nothrow_new_is_null_without_a_runtime(void **state)
{
    new_nothrow_function *operator_new = (new_nothrow_function *)dlsym(RTLD_DEFAULT, "_ZnwmRKSt9nothrow_t");

    (void)state;
    assert_null(opaque(operator_new(opaque_size(too_much), "")));
}

/* The last test, since the runtime stays. Weak symbols would not do: they were bound before the plug-in came. */
static void a_plugin_gets_its_exception(void **state)
{
    void *plugin = dlopen(PLUGIN, RTLD_NOW | RTLD_LOCAL);
    int (*catches_bad_alloc)(size_t), (*nothrow_is_null)(size_t);

    (void)state;
    if (!plugin)
        fail_msg("%s", dlerror());
    catches_bad_alloc = (int (*)(size_t))dlsym(plugin, "catches_bad_alloc");
    nothrow_is_null = (int (*)(size_t))dlsym(plugin, "nothrow_is_null");
    assert_null(dlsym(RTLD_DEFAULT, "_ZSt17__throw_bad_allocv"));   /* visible to the plug-in only */
    assert_int_equal(catches_bad_alloc(too_much), 1);
    assert_int_equal(nothrow_is_null(too_much), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operators_work_without_a_runtime),
        cmocka_unit_test(a_failing_new_aborts_when_nobody_can_catch),
        cmocka_unit_test(a_failing_nothrow_new_is_null_without_a_runtime),
        cmocka_unit_test(a_plugin_gets_its_exception),
    };

    return cmocka_run_group_tests(tests, require_preload, NULL);
}
