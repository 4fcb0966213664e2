/*
 * vspace.h - fixed addresses that collide with nobody.
 *
 * One manager of the address space. It reserves an arena (PROT_NONE, no memory) in a range that was
 * measured to be free of every kind of program, and maps shared segments inside it at addresses that are
 * registered once per user and machine, so that they are the same in every process. Nothing is reserved
 * before the first use.
 *
 *   arena "wide"   0x4100_0000_0000, 8 TiB: for all programs but those built with TSan, MSan or DFSan
 *   arena "narrow" 0x5500_0000_0000, 256 GiB: for those too; chosen by LIBALLOC_VSPACE=narrow
 */
#ifndef LIBALLOC_VSPACE_H
#define LIBALLOC_VSPACE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <liballoc/visibility.h>

LA_BEGIN_DECLS

/* Unit of the arena, in bytes. */
#define LA_VSPACE_GRANULE ((size_t)2 << 20)

/**
 * la_vspace_claim() - choose and register an address range that no other segment of this user has
 * @size:  bytes, rounded up to LA_VSPACE_GRANULE
 * @name:  who asks, for reports and for la_vspace_sweep(); at most 63 bytes
 * @ret:   the address
 *
 * The claim is kept in the user's registry file until la_vspace_unclaim(), across processes. Nothing is mapped.
 * Return: 0, -EINVAL, -ENOSPC (arena full), -EACCES or another errno of the registry file.
 */
LA_API int la_vspace_claim(size_t size, const char *name, uintptr_t *ret);

/** la_vspace_unclaim() - forget a claim; @address as la_vspace_claim() gave it. Return: 0, -ENOENT or an errno. */
LA_API int la_vspace_unclaim(uintptr_t address);

/**
 * la_mmap() - mmap() at a fixed address of the arena that cannot hit anybody else's mapping
 * @address, @size: inside the arena, multiples of the page size; the range must be free in this process
 * @prot, @flags, @fd, @offset: as for mmap(); MAP_FIXED is implied
 *
 * The arena is reserved in this process on first use.
 * Return: 0, -EINVAL (outside the arena, misaligned), -EEXIST (the range or the arena is taken; la_last_error() names
 * the mapping that sits there), -ENOMEM (RLIMIT_AS and such), or the errno of mmap().
 */
LA_API int la_mmap(uintptr_t address, size_t size, int prot, int flags, int fd, off_t offset);

/** la_munmap() - end a mapping made by la_mmap(): the range is reserved again, never left open. Return: 0, -EINVAL. */
LA_API int la_munmap(uintptr_t address, size_t size);

/** la_vspace_arena() - the arena this process uses (or would use). Return: 0. */
LA_API int la_vspace_arena(uintptr_t *base, size_t *size);

/**
 * la_vspace_verify() - look for mappings in our reservation that are not ours
 * @report: one line per intruder with range, permissions and file; may be NULL
 *
 * Return: number of intruders, or a negative errno.
 */
LA_API int la_vspace_verify(void (*report)(void *user, const char *line), void *user);

LA_END_DECLS
#endif
