/*
 * gpu_pinned.c - objects in memory that a GPU reads and writes where it lies, and the address of each for the GPU.
 *
 * A supply pins and maps memory extent by extent, whatever it is made of; the chain above allocates objects in it at the usual speed; seg_key_of()
 * tells the device's address of any of them, or of any byte in them, in a few nanoseconds. Where there is no GPU the same program runs over
 * ordinary memory, and says why.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <liballoc/liballoc.h>
#include <segments/cuda.h>
#include <segments/find.h>

enum { FRAMES = 1000, LARGEST = 64 << 10 };

struct frame {
    size_t bytes;
    unsigned char pixels[];
};

/* What a kernel would be started with. */
static void start_kernel(unsigned number, const struct frame *frame, uint64_t device)
{
    if (number % 250 == 0)
        printf("frame %3u: %5zu bytes at %p, for the GPU at %#" PRIx64 "\n", number, frame->bytes, (const void *)frame, device);
}

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, la_last_error());
    return EXIT_FAILURE;
}

/* The registrar of the GPU; NULL: there is none. */
static struct seg_registrar *find_gpu(void)
{
    struct seg_registrar *registrar = NULL;

    if (seg_registrar_cuda(SEG_CUDA_PORTABLE | SEG_CUDA_MAPPED, &registrar) == 0)
        puts("memory is pinned, and mapped for the GPU");
    else
        printf("no GPU (%s): ordinary memory instead\n", la_last_error());
    return registrar;
}

/* Where the GPU sees @object. */
static int find_device_address(const void *object, size_t bytes, const struct seg_registrar *registrar, uint64_t *ret)
{
    struct seg_key_here key;

    if (registrar && (seg_key_of(object, registrar, &key) < 0 || key.bytes < bytes))
        return -1;
    *ret = registrar ? key.device : (uintptr_t)object;
    return 0;
}

/* One frame is filled, and given to the device; its block is used again when the device has said that it is done. */
static int send_frame(unsigned number, struct la_chain *chain, struct seg_registrar *registrar, struct la_limbo *limbo, const uint64_t *done)
{
    size_t bytes = 1 + (size_t)number * 7919 % LARGEST;
    struct frame *frame = la_chain_alloc(chain, sizeof(*frame) + bytes);
    uint64_t device;

    if (!frame)
        return -1;
    frame->bytes = bytes;
    memset(frame->pixels, (int)number, bytes);
    if (find_device_address(frame, sizeof(*frame) + bytes, registrar, &device) < 0)
        return -1;
    start_kernel(number, frame, device);
    return la_free_after(limbo, frame, la_token_counter(done, number + 1));
}

int main(void)
{
    struct seg_supply_config config = { .struct_size = sizeof(config), .name = "frames", .list = "thp,anon" };
    struct seg_supply_info info = { .struct_size = sizeof(info) };
    struct seg_registrar *registrar = find_gpu();
    struct seg_supply *supply;
    struct la_chain *chain;
    struct la_limbo *limbo;
    uint64_t done = 0;          /* frames that the device has finished with: a program would store what it polls */

    config.registrars[0] = registrar;
    if (seg_supply_create(&config, &supply) < 0 || la_chain_create(seg_supply_source(supply), 0, &chain) < 0 || la_limbo_create(&limbo) < 0)
        return fail("supply");
    for (unsigned i = 0; i < FRAMES; i++) {
        if (send_frame(i, chain, registrar, limbo, &done) < 0)
            return fail("frame");
        done = i > 8 ? i - 8 : 0;
    }
    printf("%zu frames are in flight\n", la_limbo_pending(limbo));
    done = FRAMES;
    while (la_limbo_pending(limbo) > 0)
        la_limbo_poll(limbo, 0);
    seg_supply_info(supply, &info);
    printf("%d frames, in %zu KiB of %s, %zu extents\n", FRAMES, info.bytes >> 10, info.source, info.segments);
    if (la_limbo_destroy(limbo) < 0 || la_chain_destroy(chain) < 0 || seg_supply_destroy(supply) < 0 || seg_registrar_destroy(registrar) < 0)
        return fail("end");
    return EXIT_SUCCESS;
}
