/*
 * operator_new.c - every replaceable operator new and delete of C++17, without a C++ runtime.
 *
 * C programs get this library too, so it must not need libstdc++; the operators are C functions under their mangled
 * names (Itanium C++ ABI; m is size_t on every 64-bit Linux). What C cannot do, calling the new handler and throwing
 * std::bad_alloc, happens after the memory has run out, so it may be slow: the work is left to the operator of the same
 * name in the C++ runtime of the program. That one asks our malloc() once more, then runs handlers, throws, or (nothrow)
 * catches. It is looked up at that moment and not by weak symbols, because those would be bound at start: they stay
 * NULL in a Python that loads its C++ modules later, and a failing new would abort where an exception was due.
 *
 * The delete family ignores size, alignment and tag: the region map knows better.
 */
#include <dlfcn.h>
#include <stdlib.h>

#include <liballoc/chain.h>

#include "base/util.h"

/* ---- memory has run out ---- */

/* The definition after ours in lookup order, or of a runtime that was loaded for a plug-in only. */
static COLD void *runtime_operator(const char *name)
{
    static const char *const runtimes[] = { "libstdc++.so.6", "libc++abi.so.1", "libc++.so.1" };
    void *found = dlsym(RTLD_NEXT, name);

    for (size_t i = 0; !found && i < ARRAY_SIZE(runtimes); i++) {
        void *runtime = dlopen(runtimes[i], RTLD_LAZY | RTLD_NOLOAD);

        if (runtime)
            found = dlsym(runtime, name);
    }
    return found;
}

static COLD void *new_failed(const char *name, size_t size)
{
    void *(*operator_new)(size_t) = (void *(*)(size_t))runtime_operator(name);

    /* A throwing new never returns NULL, and without a runtime there is nobody who could catch. */
    if (!operator_new)
        abort();
    return operator_new(size);
}

static COLD void *new_nothrow_failed(const char *name, size_t size, const void *tag)
{
    void *(*operator_new)(size_t, const void *) = (void *(*)(size_t, const void *))runtime_operator(name);

    return operator_new ? operator_new(size, tag) : NULL;
}

static COLD void *new_aligned_failed(const char *name, size_t size, size_t alignment)
{
    void *(*operator_new)(size_t, size_t) = (void *(*)(size_t, size_t))runtime_operator(name);

    if (!operator_new)
        abort();
    return operator_new(size, alignment);
}

static COLD void *new_aligned_nothrow_failed(const char *name, size_t size, size_t alignment, const void *tag)
{
    void *(*operator_new)(size_t, size_t, const void *) = (void *(*)(size_t, size_t, const void *))runtime_operator(name);

    return operator_new ? operator_new(size, alignment, tag) : NULL;
}

/* ---- operator new; the array forms are the same functions ---- */

#define NAMED(mangled) __asm__(mangled)
#define SAME_AS(mangled) __attribute__((alias(mangled)))

LA_API void *new_plain(size_t size) NAMED("_Znwm");
LA_API void *new_array(size_t size) NAMED("_Znam") SAME_AS("_Znwm");
LA_API void *new_nothrow(size_t size, const void *tag) NAMED("_ZnwmRKSt9nothrow_t");
LA_API void *new_array_nothrow(size_t size, const void *tag) NAMED("_ZnamRKSt9nothrow_t") SAME_AS("_ZnwmRKSt9nothrow_t");
LA_API void *new_aligned(size_t size, size_t alignment) NAMED("_ZnwmSt11align_val_t");
LA_API void *new_array_aligned(size_t size, size_t alignment) NAMED("_ZnamSt11align_val_t") SAME_AS("_ZnwmSt11align_val_t");
LA_API void *new_aligned_nothrow(size_t size, size_t alignment, const void *tag) NAMED("_ZnwmSt11align_val_tRKSt9nothrow_t");
LA_API void *new_array_aligned_nothrow(size_t size, size_t alignment, const void *tag)
    NAMED("_ZnamSt11align_val_tRKSt9nothrow_t") SAME_AS("_ZnwmSt11align_val_tRKSt9nothrow_t");

void *new_plain(size_t size)
{
    void *block = la_malloc(size);

    return likely(block != NULL) ? block : new_failed("_Znwm", size);
}

void *new_nothrow(size_t size, const void *tag)
{
    void *block = la_malloc(size);

    return likely(block != NULL) ? block : new_nothrow_failed("_ZnwmRKSt9nothrow_t", size, tag);
}

void *new_aligned(size_t size, size_t alignment)
{
    void *block = la_aligned_alloc(alignment, size);

    return likely(block != NULL) ? block : new_aligned_failed("_ZnwmSt11align_val_t", size, alignment);
}

void *new_aligned_nothrow(size_t size, size_t alignment, const void *tag)
{
    void *block = la_aligned_alloc(alignment, size);

    if (unlikely(!block))
        return new_aligned_nothrow_failed("_ZnwmSt11align_val_tRKSt9nothrow_t", size, alignment, tag);
    return block;
}

/* ---- operator delete: one function, twelve names ---- */

LA_API void delete_plain(void *block) NAMED("_ZdlPv");
LA_API void delete_array(void *block) NAMED("_ZdaPv") SAME_AS("_ZdlPv");
LA_API void delete_sized(void *block) NAMED("_ZdlPvm") SAME_AS("_ZdlPv");
LA_API void delete_array_sized(void *block) NAMED("_ZdaPvm") SAME_AS("_ZdlPv");
LA_API void delete_nothrow(void *block) NAMED("_ZdlPvRKSt9nothrow_t") SAME_AS("_ZdlPv");
LA_API void delete_array_nothrow(void *block) NAMED("_ZdaPvRKSt9nothrow_t") SAME_AS("_ZdlPv");
LA_API void delete_aligned(void *block) NAMED("_ZdlPvSt11align_val_t") SAME_AS("_ZdlPv");
LA_API void delete_array_aligned(void *block) NAMED("_ZdaPvSt11align_val_t") SAME_AS("_ZdlPv");
LA_API void delete_sized_aligned(void *block) NAMED("_ZdlPvmSt11align_val_t") SAME_AS("_ZdlPv");
LA_API void delete_array_sized_aligned(void *block) NAMED("_ZdaPvmSt11align_val_t") SAME_AS("_ZdlPv");
LA_API void delete_aligned_nothrow(void *block) NAMED("_ZdlPvSt11align_val_tRKSt9nothrow_t") SAME_AS("_ZdlPv");
LA_API void delete_array_aligned_nothrow(void *block) NAMED("_ZdaPvSt11align_val_tRKSt9nothrow_t") SAME_AS("_ZdlPv");

void delete_plain(void *block)
{
    la_free(block);
}
