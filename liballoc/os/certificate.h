/*
 * certificate.h - death certificates: who still lives, by locks that the kernel drops at death (R12).
 *
 * A certificate is an open-file-description lock on one byte of a file that all parties have open, far behind its content. It belongs to
 * the open file description, so the holder needs one of its own (certificate_reopen()) and maps the file through it: the kernel drops the
 * lock when the last descriptor and mapping of that description are gone, inherited ones included, in every PID namespace, also when the
 * process was killed. (Classic POSIX locks go when any descriptor of the file is closed; pidfds say nothing of mappings; PIDs are reused.)
 */
#ifndef OS_CERTIFICATE_H
#define OS_CERTIFICATE_H

#include "base/util.h"

/* Take the byte of @slot for the description of @fd. Return: 0, -EAGAIN (another description has it), or an errno. */
int certificate_hold(int fd, uint32_t slot);

/* Give it back. Return: 0 or an errno. */
int certificate_release(int fd, uint32_t slot);

/*
 * Does another description than that of @fd hold @slot? 1, 0, or a negative errno. One's own lock is not seen: compare the slot.
 */
int certificate_is_held(int fd, uint32_t slot);

/* A fresh open file description of the same file, read and write. Return: a descriptor, or a negative errno. */
int certificate_reopen(int fd);

#endif
