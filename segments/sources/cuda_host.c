/*
 * cuda_host.c - "cuda-host[:WORD[+WORD...]]": memory of the CUDA driver's own making, pinned from the start. Words: portable, mapped, wc
 * (write-combined: fast for the device, very slow for the processor to read, as chains do with the first words of free blocks).
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include <segments/cuda.h>

#include "base/error.h"
#include "os/headroom.h"
#include "os/os.h"
#include "segments/catalogue.h"
#include "segments/cuda/runtime.h"

static const struct {
    const char *word;
    unsigned flag;
} words[] = { { "portable", CUDA_ALLOC_PORTABLE }, { "mapped", CUDA_ALLOC_MAPPED }, { "wc", CUDA_ALLOC_WRITE_COMBINED } };

static int read_flags(const char *text, unsigned *flags)
{
    while (*text) {
        size_t length = strcspn(text, "+"), i = 0;

        while (i < ARRAY_SIZE(words) && (strlen(words[i].word) != length || memcmp(words[i].word, text, length) != 0))
            i++;
        if (i == ARRAY_SIZE(words))
            return la_fail(-EINVAL, "cuda-host:%s: words are portable, mapped, wc, with + between", text);
        *flags |= words[i].flag;
        text += length + (text[length] == '+');
    }
    return 0;
}

/* @self is the flags, one above, so that it is not NULL. */
static int cuda_open(const char *text, void *user, void **ret)
{
    unsigned flags = 0;
    int r = read_flags(text, &flags);

    (void)user;
    if (r == 0)
        r = seg_cuda_available();
    if (r < 0)
        return r;
    *ret = (void *)((uintptr_t)flags + 1);
    return 0;
}

static void cuda_close(void *self)
{
    (void)self;
}

static int cuda_info(void *self, struct seg_source_info *ret)
{
    (void)self;
    ret->can = SEG_PINNED;
    ret->page_size = os_page_size();
    ret->available = os_headroom();
    return 0;
}

static int cuda_acquire(void *self, const struct seg_ask *ask, struct seg_extent *ret)
{
    size_t page = os_page_size(), left = align_down(os_headroom(), page), least = align_up(ask->min_size, page);
    size_t size = MAX(least, MIN(align_up(ask->wanted_size, page), left));
    const struct cuda_runtime *cuda;
    void *base = NULL;
    int error, r = cuda_runtime_open(&cuda);

    if (r < 0)
        return r;
    if (least < ask->min_size || least > left)
        return la_fail(-ENOMEM, "CUDA: %zu pinned bytes are more than the machine or this control group has left", ask->min_size);
    error = cuda->cudaHostAlloc(&base, size, (unsigned)((uintptr_t)self - 1));
    if (error && size > least) {
        cuda->cudaGetLastError();
        size = least;
        error = cuda->cudaHostAlloc(&base, size, (unsigned)((uintptr_t)self - 1));
    }
    if (error)
        return cuda_fail(cuda, error, "cudaHostAlloc", size);
    ret->base = base;
    ret->size = size;
    ret->page_size = page;
    ret->capabilities = SEG_PINNED;
    ret->missed = ask->preferred & ~(unsigned)SEG_PINNED;
    return 0;
}

static int cuda_release(void *self, struct seg_extent *extent)
{
    const struct cuda_runtime *cuda;
    int error;

    (void)self;
    if (!cuda_runtime_is_ours())
        return 0;       /* the parent's */
    cuda_runtime_open(&cuda);
    error = cuda->cudaFreeHost(extent->base);
    return error == 0 || error == CUDA_UNLOADING ? 0 : cuda_fail(cuda, error, "cudaFreeHost", extent->size);
}

const struct seg_source_ops cuda_host_source = {
    .struct_size = sizeof(cuda_host_source), .name = "cuda-host", .can = SEG_PINNED, .open = cuda_open, .close = cuda_close,
    .info = cuda_info, .acquire = cuda_acquire, .release = cuda_release,
};
