/*
 * The C++ operators: every form of new gives a block of ours, every form of delete takes it, and the end of memory is what
 * the standard says: the new handler is called, then std::bad_alloc or nullptr.
 */
#include "support.h"

#include <algorithm>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace {

const std::size_t too_much = std::size_t(1) << 60;

struct alignas(256) Wide {
    char bytes[300];
};

void require_whole(void *block, std::size_t size, std::size_t alignment)
{
    assert_non_null(block);
    assert_true(is_aligned(block, alignment));
    assert_true(malloc_usable_size(block) >= size);
    fill(block, malloc_usable_size(block), 1);
}

void every_operator_new_has_its_delete(void **)
{
    for (std::size_t size : { 0ul, 1ul, 8ul, 17ul, 1000ul, 40000ul, 5000000ul }) {
        void *block;

        require_whole(block = ::operator new(size), size, size > 8 ? 16 : 8);
        ::operator delete(block);
        require_whole(block = ::operator new(size), size, 8);
        ::operator delete(block, size);
        require_whole(block = ::operator new(size, std::nothrow), size, 8);
        ::operator delete(block, std::nothrow);
        require_whole(block = ::operator new[](size), size, 8);
        ::operator delete[](block);
        require_whole(block = ::operator new[](size), size, 8);
        ::operator delete[](block, size);
        require_whole(block = ::operator new[](size, std::nothrow), size, 8);
        ::operator delete[](block, std::nothrow);
        for (std::size_t bytes = 1; bytes <= 65536; bytes *= 4) {
            std::align_val_t alignment { bytes };

            require_whole(block = ::operator new(size, alignment), size, bytes);
            ::operator delete(block, alignment);
            require_whole(block = ::operator new(size, alignment), size, bytes);
            ::operator delete(block, size, alignment);
            require_whole(block = ::operator new(size, alignment, std::nothrow), size, bytes);
            ::operator delete(block, alignment, std::nothrow);
            require_whole(block = ::operator new[](size, alignment), size, bytes);
            ::operator delete[](block, alignment);
            require_whole(block = ::operator new[](size, alignment), size, bytes);
            ::operator delete[](block, size, alignment);
            require_whole(block = ::operator new[](size, alignment, std::nothrow), size, bytes);
            ::operator delete[](block, alignment, std::nothrow);
        }
    }
    ::operator delete(nullptr);
    ::operator delete[](nullptr, std::align_val_t(64));
}

void the_operators_are_ours(void **)
{
    for (const char *name : { "_Znwm", "_ZnamSt11align_val_tRKSt9nothrow_t", "_ZdlPv", "_ZdaPvmSt11align_val_t" }) {
        Dl_info info;

        assert_true(dladdr(dlsym(RTLD_DEFAULT, name), &info) != 0);
        assert_non_null(strstr(info.dli_fname, "liballoc-malloc.so"));
    }
}

/* Calls @allocate and expects std::bad_alloc. */
void require_bad_alloc(const std::function<void *()> &allocate)
{
    bool caught = false;

    try {
        opaque(allocate());
    } catch (const std::bad_alloc &) {
        caught = true;
    }
    assert_true(caught);
}

void the_end_of_memory_is_bad_alloc(void **)
{
    std::size_t size = opaque_size(too_much);

    require_bad_alloc([=] { return ::operator new(size); });
    require_bad_alloc([=] { return ::operator new[](size); });
    require_bad_alloc([=] { return ::operator new(size, std::align_val_t(128)); });
    require_bad_alloc([=] { return ::operator new[](size, std::align_val_t(128)); });
    require_bad_alloc([=] { return ::operator new(opaque_size(SIZE_MAX)); });
    require_bad_alloc([=] { return static_cast<void *>(new double[size]); });
    require_bad_alloc([=] { return static_cast<void *>(new Wide[size >> 9]); });
    require_bad_alloc([=] { std::vector<char> v(size); return nullptr; });
    require_bad_alloc([=] { return ::operator new(100, std::align_val_t(opaque_size(24))); });
}

void nothrow_new_returns_null(void **)
{
    std::size_t size = opaque_size(too_much);

    assert_null(opaque(::operator new(size, std::nothrow)));
    assert_null(opaque(::operator new[](size, std::nothrow)));
    assert_null(opaque(::operator new(size, std::align_val_t(128), std::nothrow)));
    assert_null(opaque(::operator new[](size, std::align_val_t(128), std::nothrow)));
}

int handler_calls;

void give_up_at_the_third_call()
{
    if (++handler_calls == 3)
        std::set_new_handler(nullptr);
}

struct Refused : std::bad_alloc {};

void throw_refused()
{
    handler_calls++;
    throw Refused();
}

void the_new_handler_is_called_until_it_gives_up(void **)
{
    std::size_t size = opaque_size(too_much);

    handler_calls = 0;
    std::set_new_handler(give_up_at_the_third_call);
    require_bad_alloc([=] { return ::operator new(size); });
    assert_int_equal(handler_calls, 3);

    handler_calls = 0;
    std::set_new_handler(give_up_at_the_third_call);
    require_bad_alloc([=] { return ::operator new[](size, std::align_val_t(4096)); });
    assert_int_equal(handler_calls, 3);

    handler_calls = 0;
    std::set_new_handler(give_up_at_the_third_call);
    assert_null(opaque(::operator new(size, std::nothrow)));
    assert_int_equal(handler_calls, 3);
}

void what_the_new_handler_throws_arrives(void **)
{
    std::size_t size = opaque_size(too_much);
    bool caught = false;

    handler_calls = 0;
    std::set_new_handler(throw_refused);
    try {
        opaque(::operator new(size));
    } catch (const Refused &) {
        caught = true;
    }
    assert_true(caught);
    assert_null(opaque(::operator new(size, std::nothrow)));       /* and here it is swallowed */
    assert_null(opaque(::operator new[](size, std::align_val_t(64), std::nothrow)));
    std::set_new_handler(nullptr);
    assert_int_equal(handler_calls, 3);
}

void containers_and_exceptions_work(void **)
{
    std::map<std::string, std::vector<int>> lists;
    std::unordered_map<int, std::unique_ptr<Wide>> wide;
    std::list<std::shared_ptr<std::string>> strings;
    long caught = 0;

    for (int i = 0; i < 20000; i++) {
        lists["key " + std::to_string(i % 500)].push_back(i);
        wide[i % 300] = std::make_unique<Wide>();
        assert_true(is_aligned(wide[i % 300].get(), 256));
        strings.push_back(std::make_shared<std::string>(i % 200, 'x'));
        if (i > 1000)
            strings.pop_front();
        try {
            if (i % 10 == 0)
                throw std::runtime_error(std::string(i % 1000, 'e'));
        } catch (const std::exception &e) {
            caught += static_cast<long>(std::string(e.what()).size());
        }
    }
    assert_int_equal(lists.size(), 500);
    assert_int_equal(lists["key 77"].size(), 40);
    assert_int_equal(caught, 2000 * 495);
}

void objects_move_between_threads(void **)
{
    std::vector<std::unique_ptr<std::vector<std::string>>> made(4);
    std::vector<std::thread> threads;

    for (auto &list : made)
        threads.emplace_back([&list] {
            list = std::make_unique<std::vector<std::string>>();
            for (int i = 0; i < 20000; i++)
                list->push_back(std::string(i % 100, 'y'));
        });
    for (auto &thread : threads)
        thread.join();
    threads.clear();
    for (std::size_t i = 0; i < made.size(); i++)
        threads.emplace_back([&made, i] { made[i]->clear(); made[i].reset(); });
    for (auto &thread : threads)
        thread.join();
    assert_true(std::none_of(made.begin(), made.end(), [](auto &list) { return bool(list); }));
}

}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_operators_are_ours),
        cmocka_unit_test(every_operator_new_has_its_delete),
        cmocka_unit_test(the_end_of_memory_is_bad_alloc),
        cmocka_unit_test(nothrow_new_returns_null),
        cmocka_unit_test(the_new_handler_is_called_until_it_gives_up),
        cmocka_unit_test(what_the_new_handler_throws_arrives),
        cmocka_unit_test(containers_and_exceptions_work),
        cmocka_unit_test(objects_move_between_threads),
    };

    return cmocka_run_group_tests(tests, require_preload, NULL);
}
