/*
 * image.h - the crash images in a trace: the file as each instruction left it.
 */
#ifndef CRASH_IMAGE_H
#define CRASH_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "trace.h"

/* Hashes of images that were seen. */
struct image_set {
    uint64_t *slots;
    uint32_t used, mask;
};

struct images {
    const struct trace *trace;
    char *bytes;                /* of the current image */
    uint64_t *page_hash;        /* of each page; 0: all zero */
    uint64_t hash;
    uint32_t next;              /* change */
    bool begun;
    uint64_t step;              /* after which the current image is */
    uintptr_t at;               /* that instruction */
};

bool image_set_add(struct image_set *set, uint64_t hash);  /* false: it is in there */
void image_set_free(struct image_set *set);

void images_open(struct images *images, const struct trace *trace);
/* Go on to the next image: first the one before the first instruction. false: there is no further one. */
bool images_next(struct images *images);
/* The current image as a file in memory. Return: a descriptor. */
int images_file(const struct images *images);
void images_close(struct images *images);

#endif
