/*
 * certificate.h - proof that a process is alive, kept by the kernel (R12).
 *
 * A process that attaches to a file locks one byte of it, its slot, by an open-file-description lock (F_OFD_SETLK).
 * The kernel drops the lock when the last descriptor *and* the last mapping of that open file description are gone,
 * however the process ended, in every PID namespace; so whoever can take the byte knows that its last holder is dead,
 * and that none of its stores are still to come.
 *
 * Rules that make it work:
 * - the description belongs to this process alone: opened by it or for it (certificate_reopen()). On a shared one the
 *   lock says nothing: all its holders have all its locks.
 * - the process maps the file through that description. Then the lock stays as long as a store is possible, also when
 *   the descriptor has been closed.
 * - fork children inherit descriptor and mapping, and keep the lock alive. A child that is not to count closes the
 *   descriptor and has no mapping (MADV_DONTFORK); exec drops both (O_CLOEXEC).
 * - F_SETLK locks are no substitute: closing any descriptor of the file in the process drops them.
 *
 * The bytes lie far above any file's end (a lock needs no content there), so they never meet a user's own locks.
 */
#ifndef OS_CERTIFICATE_H
#define OS_CERTIFICATE_H

#include "base/util.h"

/* Slot s is byte CERTIFICATE_BASE + s. */
#define CERTIFICATE_BASE ((int64_t)1 << 62)

/*
 * Take @slot for the description of @fd (open for writing). Holding it twice is no error.
 * Return: 0; -EAGAIN (another description holds it; leaves no la_last_error(): callers try the next slot); or an errno.
 */
int certificate_hold(int fd, uint32_t slot);

/*
 * Hold @slot together with others that do the same (@fd may be open for reading only); nobody has it for himself meanwhile, and
 * certificate_is_held() says so to all who do not share it. Return: 0; -EAGAIN (one holds it for himself); or an errno.
 */
int certificate_share(int fd, uint32_t slot);

/* Give @slot back, for all who share the description. Return: 0, also when it was not held, or a negative errno. */
int certificate_release(int fd, uint32_t slot);

/*
 * Does *another* description hold @slot? Asked through the holder's own description the answer is no: compare with
 * your own slot first. Return: 1, 0, or a negative errno.
 */
int certificate_is_held(int fd, uint32_t slot);

/*
 * A fresh open file description of the same file, read and write, close-on-exec, for another process or for a
 * certificate of one's own. Works for files without a name (memfd). Needs /proc.
 * Return: a descriptor, or a negative errno.
 */
int certificate_reopen(int fd);

#endif
