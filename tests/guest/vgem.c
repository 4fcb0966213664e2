#include "vgem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Of <drm/drm.h>, which kernels keep as it is. */
struct create_dumb {
    uint32_t height, width, bits, flags, handle, pitch;
    uint64_t size;
};

struct handle_to_fd {
    uint32_t handle, flags;
    int32_t fd;
};

struct close_handle {
    uint32_t handle, pad;
};

#define CREATE_DUMB _IOWR('d', 0xb2, struct create_dumb)
#define HANDLE_TO_FD _IOWR('d', 0x2d, struct handle_to_fd)
#define CLOSE_HANDLE _IOW('d', 0x09, struct close_handle)

enum { PAGE = 4096 };

bool vgem_open(struct vgem *vgem, unsigned capabilities)
{
    if (system("modprobe vgem") != 0)
        return false;
    *vgem = (struct vgem){ .capabilities = capabilities, .card = open("/dev/dri/card0", O_RDWR | O_CLOEXEC) };
    return vgem->card >= 0;
}

void vgem_close(struct vgem *vgem)
{
    close(vgem->card);
}

static int open_source(const char *text, void *user, void **ret)
{
    (void)text;
    *ret = user;
    return 0;
}

static void close_source(void *self)
{
    (void)self;
}

static int info(void *self, struct seg_source_info *ret)
{
    const struct vgem *vgem = self;

    ret->can = vgem->capabilities;
    ret->page_size = PAGE;
    return 0;
}

/* The descriptor holds the memory; -errno: none. */
static int make(int card, size_t size)
{
    struct create_dumb dumb = { .width = PAGE / 4, .height = (uint32_t)(size / PAGE), .bits = 32 };
    struct handle_to_fd prime = { .flags = O_CLOEXEC | O_RDWR, .fd = -1 };
    struct close_handle handle = { 0 };
    int r;

    if (ioctl(card, CREATE_DUMB, &dumb) < 0)
        return -errno;
    handle.handle = prime.handle = dumb.handle;
    r = ioctl(card, HANDLE_TO_FD, &prime) < 0 ? -errno : prime.fd;
    ioctl(card, CLOSE_HANDLE, &handle);
    return r;
}

static int acquire(void *self, const struct seg_ask *ask, struct seg_extent *ret)
{
    size_t size = ask->min_size / PAGE * PAGE + (ask->min_size % PAGE ? PAGE : 0);
    struct vgem *vgem = self;
    int fd = ask->required & ~vgem->capabilities ? -ENOTSUP : ask->min_size > (size_t)64 << 20 ? -ENOMEM : make(vgem->card, size);
    void *base = fd < 0 ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (base == MAP_FAILED) {
        int r = fd < 0 ? fd : -errno;

        if (fd >= 0)
            close(fd);
        return r;
    }
    ret->base = base;
    ret->size = size;
    ret->page_size = PAGE;
    ret->fd = fd;
    ret->capabilities = vgem->capabilities;
    vgem->out++;
    return 0;
}

static int release(void *self, struct seg_extent *extent)
{
    struct vgem *vgem = self;

    munmap(extent->base, extent->size);
    close(extent->fd);
    vgem->out--;
    return 0;
}

static int export_dmabuf(void *self, const struct seg_extent *extent, struct seg_dmabuf *ret)
{
    (void)self;
    ret->fd = fcntl(extent->fd, F_DUPFD_CLOEXEC, 0);
    ret->offset = 0;
    return ret->fd < 0 ? -errno : 0;
}

const struct seg_source_ops vgem_source = {
    .struct_size = sizeof(vgem_source), .name = "vgem", .can = SEG_DEVICE_ONLY | SEG_SHARED, .open = open_source, .close = close_source, .info = info,
    .acquire = acquire, .release = release, .export_dmabuf = export_dmabuf,
};
