/*
 * wrong.c - a program with one error of memory use, chosen by its argument; tests/misuse/wrong_frees runs it under preload.
 *
 * Each error prints "pointer ADDRESS" before it happens, and "went on" after it: what the report has to name, and whether the
 * process was left alone. What follows shows that the heap still works.
 */
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* The compiler sees neither where a pointer comes from nor that it was freed. */
static void *opaque(void *pointer)
{
    __asm__ volatile("" : "+r"(pointer) : : "memory");
    return pointer;
}

static void *name_pointer(void *pointer)
{
    printf("pointer %p\n", pointer);
    return opaque(pointer);
}

static void free_wrong(void *pointer)
{
    free(name_pointer(pointer));
}

/* ---- freed twice ---- */

static void twice(size_t size)
{
    void *block = opaque(malloc(size));

    free(block);
    free_wrong(opaque(block));
}

static void twice_8_bytes(void)
{
    twice(8);
}

static void twice_small(void)
{
    twice(100);
}

static void twice_large(void)
{
    twice(100000);
}

static void twice_huge(void)
{
    twice(5000000);
}

/* Others were freed in between, so a look at the last one freed is not enough. */
static void twice_later(void)
{
    char *blocks[100];

    for (unsigned i = 0; i < 100; i++)
        blocks[i] = opaque(malloc(200));
    for (unsigned i = 0; i < 100; i++)
        free(blocks[i]);
    free_wrong(opaque(blocks[10]));
}

static void *free_in_thread(void *block)
{
    free(block);
    return NULL;
}

static void twice_by_two_threads(void)
{
    void *block = opaque(malloc(100));
    pthread_t thread;

    if (pthread_create(&thread, NULL, free_in_thread, block) != 0)
        exit(3);
    pthread_join(thread, NULL);
    free_wrong(opaque(block));
}

static void twice_large_later(void)
{
    char *blocks[5];

    for (unsigned i = 0; i < 5; i++)
        blocks[i] = opaque(malloc(100000));
    for (unsigned i = 0; i < 5; i++)
        free(blocks[i]);
    free_wrong(opaque(blocks[1]));
}

static void twice_large_by_two_threads(void)
{
    void *block = opaque(malloc(100000));
    pthread_t thread;

    free(block);
    if (pthread_create(&thread, NULL, free_in_thread, name_pointer(block)) != 0)
        exit(3);
    pthread_join(thread, NULL);
}

static void twice_aligned(void)
{
    void *block = opaque(aligned_alloc(4096, 5000));

    free(block);
    free_wrong(opaque(block));
}

/* ---- not the start of a block ---- */

static void interior(size_t size, size_t offset)
{
    char *block = opaque(malloc(size));

    memset(block, 'a', size);
    free_wrong(block + offset);
    for (size_t i = 0; i < size; i++)
        if (block[i] != 'a')
            exit(4);
    free(block);
}

static void inside_small(void)
{
    interior(100, 16);
}

static void inside_odd(void)
{
    interior(100, 1);
}

static void inside_large(void)
{
    interior(100000, 4096);
}

static void inside_large_far(void)
{
    interior(300000, 2 * 65536);
}

static void inside_huge(void)
{
    interior(5000000, 64);
}

/* ---- from elsewhere ---- */

static void of_the_stack(void)
{
    char local[100] = "", *start = opaque(local);

    free_wrong(start + 16);
}

static void of_static_memory(void)
{
    static char memory[100];

    free_wrong(memory);
}

static void of_mmap(void)
{
    char *pages = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    free_wrong(pages);
    munmap(pages, 1 << 20);
}

static void null_plus_one(void)
{
    free_wrong((void *)1);
}

static void wild(void)
{
    free_wrong((void *)0x4141414141414141);
}

static void of_the_kernel(void)
{
    free_wrong((void *)(UINTPTR_MAX - 15));
}

static void beyond_all_blocks(void)
{
    char *block = opaque(malloc(100));

    free_wrong((void *)(((uintptr_t)block & ~(uintptr_t)65535) + 60 * 65536));
    free(block);
}

/* ---- other functions ---- */

static void realloc_wrong(void *pointer, size_t size)
{
    if (opaque(realloc(name_pointer(pointer), size)))
        printf("realloc gave a block\n");
}

static void realloc_of_freed(void)
{
    void *block = opaque(malloc(100));

    free(block);
    realloc_wrong(opaque(block), 5000);
}

static void realloc_of_freed_in_place(void)
{
    void *block = opaque(malloc(100));

    free(block);
    realloc_wrong(opaque(block), 101);
}

static void realloc_of_freed_large(void)
{
    void *block = opaque(malloc(100000));

    free(block);
    realloc_wrong(opaque(block), 200000);
}

static void realloc_of_freed_huge(void)
{
    void *block = opaque(malloc(5000000));

    free(block);
    realloc_wrong(opaque(block), 9000000);
}

static void realloc_of_interior(void)
{
    char *block = opaque(malloc(100));

    realloc_wrong(block + 16, 5000);
    free(block);
}

static void realloc_of_foreign(void)
{
    static char memory[100];

    realloc_wrong(memory, 5000);
}

/* The report speaks of the call that went wrong, not of an earlier one. */
static void free_after_realloc(void)
{
    static char memory[100];
    void *block = opaque(realloc(opaque(malloc(100)), 5000));

    free_wrong(memory);
    free(block);
}

static void usable_size_of_foreign(void)
{
    static char memory[100];

    if (malloc_usable_size(name_pointer(memory)) != 0)
        exit(5);
}

static void usable_size_of_interior(void)
{
    char *block = opaque(malloc(100));

    if (malloc_usable_size(name_pointer(block + 8)) != 0)
        exit(5);
    free(block);
}

static void nothing_wrong(void)
{
    free(name_pointer(malloc(100)));
}

/* ---- */

static const struct {
    const char *name;
    void (*commit)(void);
} errors[] = {
    { "twice_8_bytes", twice_8_bytes },
    { "twice_small", twice_small },
    { "twice_large", twice_large },
    { "twice_huge", twice_huge },
    { "twice_later", twice_later },
    { "twice_by_two_threads", twice_by_two_threads },
    { "twice_large_later", twice_large_later },
    { "twice_large_by_two_threads", twice_large_by_two_threads },
    { "twice_aligned", twice_aligned },
    { "inside_small", inside_small },
    { "inside_odd", inside_odd },
    { "inside_large", inside_large },
    { "inside_large_far", inside_large_far },
    { "inside_huge", inside_huge },
    { "of_the_stack", of_the_stack },
    { "of_static_memory", of_static_memory },
    { "of_mmap", of_mmap },
    { "null_plus_one", null_plus_one },
    { "wild", wild },
    { "of_the_kernel", of_the_kernel },
    { "beyond_all_blocks", beyond_all_blocks },
    { "realloc_of_freed", realloc_of_freed },
    { "realloc_of_freed_in_place", realloc_of_freed_in_place },
    { "realloc_of_freed_large", realloc_of_freed_large },
    { "realloc_of_freed_huge", realloc_of_freed_huge },
    { "realloc_of_interior", realloc_of_interior },
    { "realloc_of_foreign", realloc_of_foreign },
    { "free_after_realloc", free_after_realloc },
    { "usable_size_of_foreign", usable_size_of_foreign },
    { "usable_size_of_interior", usable_size_of_interior },
    { "nothing_wrong", nothing_wrong },
};

/* Every block its own, of every kind: a block that was put on a list twice is handed out twice. */
static void use_the_heap(void)
{
    enum { COUNT = 2000 };
    static const size_t sizes[] = { 8, 100, 200, 5000, 100000 };
    static unsigned char *blocks[COUNT];

    for (unsigned i = 0; i < COUNT; i++) {
        blocks[i] = malloc(sizes[i % 5]);
        memset(blocks[i], (int)(i % 256), sizes[i % 5]);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        if (blocks[i][0] != i % 256 || memcmp(blocks[i], blocks[i] + 1, sizes[i % 5] - 1) != 0)
            exit(6);
        free(blocks[i]);
    }
}

int main(int argc, char **argv)
{
    static char buffer[BUFSIZ];

    /* Else the first printf() would allocate, and might get the very block that is going to be freed twice. */
    setvbuf(stdout, buffer, _IOLBF, sizeof(buffer));
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (unsigned i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
            puts(errors[i].name);
        return 0;
    }
    for (unsigned i = 0; argc == 2 && i < sizeof(errors) / sizeof(errors[0]); i++)
        if (strcmp(argv[1], errors[i].name) == 0) {
            errors[i].commit();
            use_the_heap();
            puts("went on");
            return 0;
        }
    fprintf(stderr, "usage: wrong --list | ERROR\n");
    return 2;
}
