/*
 * engine.h - what most tests of the private engine share: chains, threads that are joined, reports of wrong frees.
 *
 * Includes CMocka with what it needs in front of it, so that a test starts with this line.
 */
#ifndef TESTS_UNIT_ENGINE_H
#define TESTS_UNIT_ENGINE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <liballoc/liballoc.h>

#include "../support/emulated.h"
#include "base/util.h"

/* A sanitizer's own mappings make limits on the address space and counts of page faults meaningless. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* Hides from the compiler where a pointer comes from: it must not draw conclusions from a wrong free. */
static inline void *opaque(void *pointer)
{
    __asm__ volatile("" : "+r"(pointer) : : "memory");
    return pointer;
}

/* ---- soundness ---- */

static inline void print_finding(void *user, const char *line)
{
    (void)user;
    print_error("%s\n", line);
}

static inline void assert_chain_is_sound(struct la_chain *chain)
{
    assert_int_equal(la_chain_check(chain, print_finding, NULL), 0);
}

static inline void assert_heap_is_sound(void)
{
    assert_int_equal(la_heap_check(print_finding, NULL), 0);
}

/* ---- wrong frees ---- */

struct misuse_record {
    unsigned count;
    const void *pointer;
    char text[256];
};

static inline void record_misuse_(void *user, const void *pointer, const char *text)
{
    struct misuse_record *r = user;

    r->count++;
    r->pointer = pointer;
    snprintf(r->text, sizeof(r->text), "%s", text);
}

/* From now on wrong frees are written to @record and the process goes on. */
static inline void record_misuse(struct misuse_record *record)
{
    memset(record, 0, sizeof(*record));
    assert_int_equal(la_misuse_set(LA_MISUSE_REPORT, record_misuse_, record), 0);
}

/* Exactly one report since record_misuse(), and it names @pointer. */
static inline void assert_reported_once(const struct misuse_record *record, const void *pointer)
{
    char address[32];

    snprintf(address, sizeof(address), "%p ", pointer);
    assert_int_equal(record->count, 1);
    assert_ptr_equal(record->pointer, pointer);
    assert_memory_equal(record->text, address, strlen(address));
}

/* ---- threads ---- */

struct thread_body_ {
    void (*body)(void *arg);
    void *arg;
};

static inline void *run_body_(void *arg)
{
    struct thread_body_ *b = arg;

    b->body(b->arg);
    return NULL;
}

/* Run @body(@arg) in a thread of its own, from its birth to its end. */
static inline void in_other_thread(void (*body)(void *arg), void *arg)
{
    struct thread_body_ b = { body, arg };
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, run_body_, &b), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static inline void free_body_(void *block)
{
    la_free(block);
}

static inline void free_in_other_thread(void *block)
{
    in_other_thread(free_body_, block);
}

/* ---- memory for user buffers ---- */

/*
 * @size bytes between two pages that trap, @offset bytes behind a page boundary; one canary byte pattern fills what
 * lies between the buffer and those pages.
 */
struct fenced {
    unsigned char *mapping, *buffer;
    size_t mapping_size, size;
};

enum { FENCE = 64 << 10, CANARY = 0xc5 };

static inline struct fenced fenced_new(size_t size, size_t offset)
{
    struct fenced f = { .size = size, .mapping_size = align_up(size + offset, FENCE) + 2 * (size_t)FENCE };

    f.mapping = mmap(NULL, f.mapping_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(f.mapping, MAP_FAILED);
    assert_int_equal(mprotect(f.mapping, FENCE, PROT_NONE), 0);
    assert_int_equal(mprotect(f.mapping + f.mapping_size - FENCE, FENCE, PROT_NONE), 0);
    f.buffer = f.mapping + FENCE + offset;
    memset(f.mapping + FENCE, CANARY, offset);
    memset(f.buffer + size, CANARY, (size_t)(f.mapping + f.mapping_size - FENCE - (f.buffer + size)));
    return f;
}

static inline bool fenced_is_intact(const struct fenced *f)
{
    for (const unsigned char *p = f->mapping + FENCE; p < f->mapping + f->mapping_size - FENCE; p++) {
        if (p == f->buffer)
            p += f->size;
        if (p < f->mapping + f->mapping_size - FENCE && *p != CANARY)
            return false;
    }
    return true;
}

static inline void fenced_free(struct fenced *f)
{
    assert_true(fenced_is_intact(f));
    munmap(f->mapping, f->mapping_size);
}

#endif
