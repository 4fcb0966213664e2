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
 *
 * The word decides where this process claims; la_mmap() works in both. docs/vspace.md tells why these addresses, and what is
 * protected and what is not.
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
/* Bytes of a claim's name. */
#define LA_VSPACE_NAME_MAX 127

/**
 * la_vspace_claim() - choose and register an address range that no other segment of this user has
 * @size:  bytes, rounded up to LA_VSPACE_GRANULE
 * @name:  who asks, for reports: 1 to LA_VSPACE_NAME_MAX bytes. A claim named "/PATH" or "/PATH#INODE" is dropped when
 *         the arena is full and that file is gone for a minute; others stay until la_vspace_unclaim()
 * @ret:   the address, a multiple of LA_VSPACE_GRANULE; set on success, untouched on failure
 *
 * The claim is kept in the user's registry file across processes; nothing is mapped. The file is
 * $LIBALLOC_VSPACE_REGISTRY, else /dev/shm/liballoc-vspace-UID (without /dev/shm: $XDG_RUNTIME_DIR/liballoc-vspace).
 * Return: 0, -EINVAL (size 0, name, LIBALLOC_VSPACE), -ENOSPC (arena or registry full), -EACCES (the file is not
 * this user's alone), -EPROTO (it is something else), -EBUSY (a stopped process has locked it), or another errno.
 */
LA_API int la_vspace_claim(size_t size, const char *name, uintptr_t *ret);

/**
 * la_vspace_claim_aligned() - la_vspace_claim() at a multiple of @alignment
 * @alignment: a power of two, at most 1 GiB: what huge pages need; up to LA_VSPACE_GRANULE it changes nothing
 *
 * Return: as la_vspace_claim(); -EINVAL for an @alignment that is none.
 */
LA_API int la_vspace_claim_aligned(size_t size, size_t alignment, const char *name, uintptr_t *ret);

/**
 * la_vspace_claim_at() - register a range that is known already: of a segment that has outlived who claimed it
 * @address, @size: multiples of LA_VSPACE_GRANULE, inside one arena
 * @name:  as for la_vspace_claim(). A claim of exactly this range is taken over: it gets this name
 *
 * Return: 0, -EEXIST (another claim touches the range), -EINVAL, or an errno of the registry as for la_vspace_claim().
 */
LA_API int la_vspace_claim_at(uintptr_t address, size_t size, const char *name);

/** la_vspace_unclaim() - forget a claim; @address as la_vspace_claim() gave it. Return: 0, -ENOENT or an errno. */
LA_API int la_vspace_unclaim(uintptr_t address);

/**
 * la_mmap() - mmap() at a fixed address of the arena that cannot hit anybody else's mapping
 * @address, @size: inside one arena, multiples of the page size; the range must be free in this process
 * @prot, @flags, @fd, @offset: as for mmap(); MAP_FIXED is implied
 *
 * The arena is reserved in this process on first use.
 * Return: 0, -EINVAL (outside the arena, misaligned), -EEXIST (the range or the arena is taken; la_last_error() names
 * the mapping that sits there), -ENOMEM (RLIMIT_AS and such), or the errno of mmap().
 */
LA_API int la_mmap(uintptr_t address, size_t size, int prot, int flags, int fd, off_t offset);

/**
 * la_munmap() - end a mapping made by la_mmap(): the range is reserved again, never left open
 * @address, @size: exactly as given to la_mmap()
 *
 * Return: 0, -EINVAL (no such mapping), -ENOMEM (the mapping stays).
 */
LA_API int la_munmap(uintptr_t address, size_t size);

/** la_vspace_arena() - the arena that this process claims from. Return: 0, -EINVAL (LIBALLOC_VSPACE has another word). */
LA_API int la_vspace_arena(uintptr_t *base, size_t *size);

/**
 * la_vspace_verify() - look for mappings in our reservation that are not ours, and for holes in it
 * @report: one line per finding with range, permissions and file; may be NULL; may allocate and call la_*
 *
 * Return: number of findings, or a negative errno (no /proc).
 */
LA_API int la_vspace_verify(void (*report)(void *user, const char *line), void *user);

LA_END_DECLS
#endif
