/*
 * vgem.h - a source whose memory the kernel's vgem has made, a graphics driver without a device: real dmabufs, that no registration by address can
 * take as there are no pages behind the mapping.
 */
#ifndef TESTS_GUEST_VGEM_H
#define TESTS_GUEST_VGEM_H

#include <stdbool.h>

#include <segments/source.h>

/* As struct seg_choice.user: capabilities of the extents, and how many are out. */
struct vgem {
    unsigned capabilities, out;
    int card;
};

/* Loads the module. false: this kernel has none. */
bool vgem_open(struct vgem *vgem, unsigned capabilities);
void vgem_close(struct vgem *vgem);

extern const struct seg_source_ops vgem_source;

#endif
