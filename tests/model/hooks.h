/*
 * hooks.h - the atomics of the library, seen by the model checker. Given to the compiler with -include, before any other header, when
 * the files of the shared heap are built for the model (meson.build has the list): their text is the production text.
 *
 * Every access becomes a call with the place in the source; machine.c decides whether the lane stops there and who goes on.
 */
#ifndef MODEL_HOOKS_H
#define MODEL_HOOKS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum model_rmw { MODEL_EXCHANGE, MODEL_ADD, MODEL_SUB, MODEL_OR, MODEL_AND };

uint64_t model_load(const volatile void *at, unsigned size, memory_order order, const char *place, const char *function);
void model_store(volatile void *at, unsigned size, uint64_t value, memory_order order, const char *place, const char *function);
bool model_compare_exchange(volatile void *at, unsigned size, void *expected, uint64_t desired, memory_order order,
                            const char *place, const char *function);
uint64_t model_rmw(volatile void *at, unsigned size, enum model_rmw op, uint64_t operand, memory_order order,
                   const char *place, const char *function);
void model_fence(memory_order order);

/* A bundle's private record must go back with everything else when the explorer goes back. */
void *model_meta_alloc(size_t size);
void model_meta_free(void *memory, size_t size);
#define la_meta_alloc model_meta_alloc
#define la_meta_free model_meta_free

/* The certificate is the kernel's: in the model a process is dead when its lane was killed. */
struct la_heap;
bool model_process_is_alive(struct la_heap *heap, unsigned slot);
#define heap_process_is_alive model_process_is_alive

/* The value's type without _Atomic and qualifiers. */
#define MODEL_TYPE(p) __typeof__((void)0, *(p))
#define MODEL_TEXT_OF(x) #x
#define MODEL_TEXT(x) MODEL_TEXT_OF(x)
#define MODEL_HERE __FILE__ ":" MODEL_TEXT(__LINE__), __func__
/* clang-format off */
#define MODEL_VOID(p) ((volatile void *)(uintptr_t)(p))

#undef atomic_load_explicit
#undef atomic_load
#undef atomic_store_explicit
#undef atomic_store
#undef atomic_exchange_explicit
#undef atomic_exchange
#undef atomic_compare_exchange_strong_explicit
#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_weak_explicit
#undef atomic_compare_exchange_weak
#undef atomic_fetch_add_explicit
#undef atomic_fetch_add
#undef atomic_fetch_sub_explicit
#undef atomic_fetch_sub
#undef atomic_fetch_or_explicit
#undef atomic_fetch_or
#undef atomic_fetch_and_explicit
#undef atomic_fetch_and
#undef atomic_thread_fence

#define atomic_load_explicit(p, order) \
    ((MODEL_TYPE(p))model_load(MODEL_VOID(p), sizeof(*(p)), order, MODEL_HERE))
#define atomic_store_explicit(p, value, order) \
    model_store(MODEL_VOID(p), sizeof(*(p)), (uint64_t)(value), order, MODEL_HERE)
#define atomic_compare_exchange_strong_explicit(p, expected, desired, order, failed) \
    model_compare_exchange(MODEL_VOID(p), sizeof(*(p)), expected, (uint64_t)(desired), order, MODEL_HERE)
#define MODEL_RMW(p, op, operand, order) \
    __extension__({ (MODEL_TYPE(p))model_rmw(MODEL_VOID(p), sizeof(*(p)), op, (uint64_t)(operand), order, MODEL_HERE); })

#define atomic_load(p) atomic_load_explicit(p, memory_order_seq_cst)
#define atomic_store(p, value) atomic_store_explicit(p, value, memory_order_seq_cst)
#define atomic_compare_exchange_strong(p, expected, desired) \
    atomic_compare_exchange_strong_explicit(p, expected, desired, memory_order_seq_cst, memory_order_seq_cst)
/* Without spurious failures: a weak one that fails is a load and one more round. */
#define atomic_compare_exchange_weak_explicit atomic_compare_exchange_strong_explicit
#define atomic_compare_exchange_weak atomic_compare_exchange_strong
#define atomic_exchange_explicit(p, value, order) MODEL_RMW(p, MODEL_EXCHANGE, value, order)
#define atomic_exchange(p, value) MODEL_RMW(p, MODEL_EXCHANGE, value, memory_order_seq_cst)
#define atomic_fetch_add_explicit(p, value, order) MODEL_RMW(p, MODEL_ADD, value, order)
#define atomic_fetch_add(p, value) MODEL_RMW(p, MODEL_ADD, value, memory_order_seq_cst)
#define atomic_fetch_sub_explicit(p, value, order) MODEL_RMW(p, MODEL_SUB, value, order)
#define atomic_fetch_sub(p, value) MODEL_RMW(p, MODEL_SUB, value, memory_order_seq_cst)
#define atomic_fetch_or_explicit(p, value, order) MODEL_RMW(p, MODEL_OR, value, order)
#define atomic_fetch_or(p, value) MODEL_RMW(p, MODEL_OR, value, memory_order_seq_cst)
#define atomic_fetch_and_explicit(p, value, order) MODEL_RMW(p, MODEL_AND, value, order)
#define atomic_fetch_and(p, value) MODEL_RMW(p, MODEL_AND, value, memory_order_seq_cst)
#define atomic_thread_fence(order) model_fence(order)
/* clang-format on */

/* The ring of notices comes round after a few of them: notice.c uses that many of its entries. */
#include "core/shared_layout.h"
#define HEAP_NOTICES MODEL_NOTICES

/* Those of one process: in the model each lane is a process of its own. */
#include "base/lock.h"
#define lock_take(lock) ((void)(lock))
#define lock_give(lock) ((void)(lock))

#endif
