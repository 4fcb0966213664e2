/*
 * runtime.h - the functions of the CUDA runtime that segments call, found when the program runs.
 */
#ifndef SEGMENTS_CUDA_RUNTIME_H
#define SEGMENTS_CUDA_RUNTIME_H

#include <stddef.h>

#include "segments/cuda/abi.h"

struct cuda_runtime {
#define X(type, name, arguments) type (*name) arguments;
    CUDA_FUNCTIONS(X)
#undef X
};

/* Return: 0, -ENODEV (not there, too old), -ECHILD (in a child of the process that has opened it). */
int cuda_runtime_open(const struct cuda_runtime **ret);

/* It was opened by this process, not by one that has forked it. */
int cuda_runtime_is_ours(void);

/* Turn an error of CUDA's into one of ours, with a sentence. @error is not 0; @size 0: it is about no memory. */
int cuda_fail(const struct cuda_runtime *cuda, int error, const char *what, size_t size);

/* What the runtime says of an address; SEG_CUDA_PAGEABLE also when it does not know. */
int cuda_memory(const struct cuda_runtime *cuda, const void *address);

#endif
