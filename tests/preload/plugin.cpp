/* A C++ module for runtime_test.c, which has no C++ runtime of its own: what an extension of an interpreter is. */
#include <new>
#include <string>
#include <vector>

extern "C" int catches_bad_alloc(std::size_t size)
{
    try {
        std::vector<char> all(size);
        return all.empty();
    } catch (const std::bad_alloc &) {
        return 1;
    }
}

extern "C" int nothrow_is_null(std::size_t size)
{
    char *block = new (std::nothrow) char[size];

    delete[] block;
    return block == nullptr;
}
