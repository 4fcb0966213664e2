// program.cpp - an outside user's C++ program: the headers work in C++, exceptions leave LA_WITH_CHAIN cleanly.
#include <cstdio>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <vector>

#include <liballoc/liballoc.h>

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            std::fprintf(stderr, "program.cpp:%d: %s (%s)\n", __LINE__, #condition, la_last_error()); \
            std::exit(1);                                                                          \
        }                                                                                          \
    } while (0)

template <class T> struct chain_allocator {
    using value_type = T;

    explicit chain_allocator(la_chain *c) : chain(c) {}
    template <class U> chain_allocator(const chain_allocator<U> &other) : chain(other.chain) {}

    T *allocate(std::size_t n)
    {
        if (void *block = la_chain_alloc(chain, n * sizeof(T)))
            return static_cast<T *>(block);
        throw std::bad_alloc();
    }
    void deallocate(T *block, std::size_t) { la_free(block); }

    la_chain *chain;
};

template <class T, class U> bool operator==(const chain_allocator<T> &a, const chain_allocator<U> &b)
{
    return a.chain == b.chain;
}

template <class T, class U> bool operator!=(const chain_allocator<T> &a, const chain_allocator<U> &b)
{
    return !(a == b);
}

int main()
{
    alignas(16) static char buffer[256 << 10];
    la_chain *chain = nullptr;

    REQUIRE(la_chain_create_in(buffer, sizeof(buffer), 0, &chain) == 0);
    {
        std::vector<int, chain_allocator<int>> numbers{ chain_allocator<int>(chain) };

        for (int i = 0; i < 1000; i++)
            numbers.push_back(i);
        REQUIRE(reinterpret_cast<char *>(numbers.data()) >= buffer);
        REQUIRE(reinterpret_cast<char *>(numbers.data()) < buffer + sizeof(buffer));

        bool full = false;
        try {
            numbers.reserve(sizeof(buffer));
        } catch (const std::bad_alloc &) {
            full = true;
        }
        REQUIRE(full && numbers.back() == 999);
    }

    try {
        LA_WITH_CHAIN(chain) {
            REQUIRE(la_default_get() == chain);
            throw std::runtime_error("leaves the scope");
        }
    } catch (const std::runtime_error &) {
    }
    REQUIRE(la_default_get() == nullptr);
    REQUIRE(la_chain_destroy(chain) == 0);

    // Under preload operator new is ours as well.
    std::vector<double> *plain = new std::vector<double>(100);
    la_owner owner = {};
    owner.struct_size = sizeof(owner);
    REQUIRE((la_owner_of(plain, &owner) == 0) == (std::getenv("EXPECT_PRELOAD") != nullptr));
    delete plain;
    return 0;
}
