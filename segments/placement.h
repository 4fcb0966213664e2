/*
 * placement.h - where a segment is mapped, and with which pages. For backends.
 */
#ifndef SEGMENTS_PLACEMENT_H
#define SEGMENTS_PLACEMENT_H

#include "segments/backend.h"

/*
 * Map s->size bytes of s->fd (-1: anonymous, by @flags) for reading and writing; sets s->base, and with it
 * SEG_FIXED_ADDRESS where that is asked for.
 * @address: 0: a fixed address is chosen and claimed as @claim_name; else: where it must be
 *
 * Return: 0, -ENOTSUP (fixed address required and not to be had), or the errno of mmap().
 */
int seg_map(struct seg_segment *s, const struct seg_request *request, int flags, uintptr_t address, const char *claim_name);

/* End that mapping, and the claim if it is ours. */
void seg_unmap(struct seg_segment *s);

/* "/proc/PID": a claim that lasts as long as this process. @name: LA_VSPACE_NAME_MAX + 1 bytes. */
void seg_claim_name_of_process(char *name);

#define SEG_HUGE_PAGE ((size_t)2 << 20)

/* Size of the huge pages that @request is about. */
size_t seg_huge_page(const struct seg_request *request);
/* Bytes of the pool of such pages that nobody has or was promised, on the nodes that @request is bound to; 0: there is no such pool. */
size_t seg_huge_free(const struct seg_request *request);

/*
 * Can @size bytes of huge pages be had from the pool now? Notes the miss if not. Whoever gets true must still be ready to fail.
 * Return: 1, 0 (missed, go on without), -ENOTSUP.
 */
int seg_huge_available(struct seg_segment *s, const struct seg_request *request, size_t size);

/* Ask for transparent huge pages if wanted, or in place of missed ones. Return: 0, -ENOTSUP. */
int seg_advise_thp(struct seg_segment *s, const struct seg_request *request, bool shared);

#endif
