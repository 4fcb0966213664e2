/*
 * memfile.h - the file of a heap: a memfd of its full size, formatted, then sealed.
 *
 * Sealed against growing and shrinking before anybody else gets it: no client can pull pages away under
 * another one. Against more seals it is sealed with memfile_seal() only: until then a writer could add some, which harms this heap as
 * anything he writes into it could. Never executable, and closed for other users than the daemon's by its mode: they have only what they are handed.
 */
#ifndef DAEMON_MEMFILE_H
#define DAEMON_MEMFILE_H

#include <sys/types.h>

#include <liballoc/heap.h>

#include "base/util.h"

struct memfile {
    int fd;
    uint64_t size;              /* rounded up */
    uint64_t page_size;
    uintptr_t address;          /* claimed */
};

/* What the label of a memory file says: written when it is made, and by nobody afterwards. */
struct memfile_label {
    char name[LA_HEAP_NAME_MAX + 1];
    uid_t owner;
    gid_t group;
};

/* Not of the machine's small pages. */
bool memfile_is_huge(const struct memfile *file);

/* What a heap of @size bytes takes: whole granules, and whole pages. @page_size: 0: small ones. Return: 0, -EINVAL (no huge page has that size). */
int memfile_round(uint64_t size, uint64_t page_size, uint64_t *ret);

/* A new heap of @size bytes, as memfile_round() says. Return: 0, -EINVAL (name, size, pages), -ENOSPC, ... with the reason in la_last_error(). */
int memfile_create(const struct memfile_label *label, uint64_t size, uint64_t page_size, struct memfile *ret);

/*
 * Take over the file of a heap that an earlier daemon has made; its address and size are known from the daemon's own books. Takes @fd, also on
 * failure. Return: 0, -EINVAL (it is not such a file), -EEXIST (somebody else has the address).
 */
int memfile_adopt(int fd, uint64_t size, uintptr_t address, struct memfile *ret);

/*
 * Look at a descriptor that somebody has sent: is it the file of a heap that a daemon of our user has made? The kernel says so: the file is our
 * user's, closed to others, has no name, and is sealed as ours are; a process of another user cannot make such a file. What the label says can then be
 * believed. What is in the file cannot: he may have written into it.
 * Return: 0, with an own descriptor of it in @ret (for reading only if the file is sealed), -EPERM (it is no such file), ...
 */
int memfile_examine(int fd, struct memfile_label *label, struct memfile *ret);

/* Is @fd this file? */
bool memfile_is(const struct memfile *file, int fd);

bool memfile_is_sealed(const struct memfile *file);

/*
 * Nobody can write any more, whatever descriptors he has: the kernel sees to that. Return: 0, -EBUSY (it is mapped for writing somewhere), ...
 */
int memfile_seal(const struct memfile *file);

/* @keep_address: somebody may still have it mapped, so no other heap may get it. */
void memfile_close(struct memfile *file, bool keep_address);

/*
 * A descriptor with an open file description of its own: what a client gets, for its death certificate. Or a negative errno.
 * @read_only: it cannot be mapped for writing, and the file's mode keeps other users from opening it anew.
 */
int memfile_reopen(const struct memfile *file, bool read_only);

#endif
