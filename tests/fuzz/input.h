/*
 * input.h - what the fuzzer says, read from the front; when there is no more, it is zeros.
 */
#ifndef TESTS_FUZZ_INPUT_H
#define TESTS_FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct input {
    const uint8_t *at;
    size_t left;
};

static inline void take(struct input *in, void *ret, size_t size)
{
    size_t n = size < in->left ? size : in->left;

    memset(ret, 0, size);
    memcpy(ret, in->at, n);
    in->at += n;
    in->left -= n;
}

static inline unsigned take8(struct input *in)
{
    uint8_t value;

    take(in, &value, sizeof(value));
    return value;
}

static inline unsigned take16(struct input *in)
{
    uint16_t value;

    take(in, &value, sizeof(value));
    return value;
}

/* What must hold whatever the input says: also where assert() is compiled out. */
#define REQUIRE(condition)                                                                                                          \
    do {                                                                                                                            \
        if (!(condition)) {                                                                                                         \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);                                           \
            abort();                                                                                                                \
        }                                                                                                                           \
    } while (0)

#endif
