/* heap_access.h - the one heap of a wordcount process: kept by a shmserver (--socket), or embedded. */
#ifndef WORDCOUNT_HEAP_ACCESS_H
#define WORDCOUNT_HEAP_ACCESS_H

#include <liballoc/heap.h>

#include "job.h"
#include "roles.h"

/* @create_size: 0: the heap must exist, else it must be new. Return: 0 or a negative errno. */
int heap_open(const struct options *options, size_t create_size, struct la_heap **ret);
/* The heap and the job in it, which another process made. Return: EXIT_SUCCESS, or the exit status after a complaint. */
int job_open(const struct options *options, struct la_heap **ret_heap, struct job **ret);
/* Leave the heap; what this process holds is freed. */
void heap_close(struct la_heap *heap);
int heap_remove(const struct options *options);

#endif
