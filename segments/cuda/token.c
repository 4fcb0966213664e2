/*
 * token.c - a CUDA event as a token of deferred frees (liballoc/limbo.h).
 */
#include <errno.h>

#include <segments/cuda.h>

#include "base/error.h"
#include "segments/cuda/runtime.h"

/* In a child of fork() nothing is asked: the device works for the parent. */
static int is_complete(void *event, uint64_t value)
{
    const struct cuda_runtime *cuda;
    int error, r = cuda_runtime_open(&cuda);

    (void)value;
    if (r < 0)
        return r;
    error = cuda->cudaEventQuery(event);
    if (error == 0)
        return 1;
    if (error != CUDA_NOT_READY)
        return cuda_fail(cuda, error, "cudaEventQuery", 0);
    cuda->cudaGetLastError();
    return 0;
}

int seg_cuda_token(void *event, struct la_token *ret)
{
    static const struct la_token_ops ops = { .struct_size = sizeof(ops), .name = "CUDA event", .is_complete = is_complete };
    const struct cuda_runtime *cuda;
    int r = cuda_runtime_open(&cuda);

    if (r == 0)
        *ret = (struct la_token){ .ops = &ops, .object = event };
    return r;
}
