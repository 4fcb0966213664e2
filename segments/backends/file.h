/*
 * file.h - what memfd and POSIX shm segments have in common: memory of a file in tmpfs or hugetlbfs.
 */
#ifndef BACKENDS_FILE_H
#define BACKENDS_FILE_H

#include "segments/backend.h"

/* acquire(): allocate the file's blocks, so that a full file system is -ENOSPC and not SIGBUS. */
int seg_file_acquire(struct seg_segment *s, struct la_range range);
/* release(): punch a hole. Seals against shrinking allow it. */
void seg_file_release(struct seg_segment *s, struct la_range range);
int seg_file_advise(struct seg_segment *s, struct la_range range, enum seg_advice advice);
void seg_file_info(struct seg_segment *s, struct seg_info *ret);
void seg_file_close(struct seg_segment *s);

/*
 * Take the size of an existing file into s->size. Return: 0, -EINVAL (no regular file, empty), -ENOSPC (shorter than asked for),
 * -EACCES (another user's).
 */
int seg_file_adopt(struct seg_segment *s, const struct seg_request *request);

#endif
