/* heap_access.h - the one heap of a wordcount process: kept by a shmserver (--socket), or embedded. */
#ifndef WORDCOUNT_HEAP_ACCESS_H
#define WORDCOUNT_HEAP_ACCESS_H

#include <liballoc/heap.h>

#include "roles.h"

/* @create_size: 0: the heap must exist, else it must be new. Return: 0 or a negative errno. */
int heap_open(const struct options *options, size_t create_size, struct la_heap **ret);
/* Leave the heap; what this process holds is freed. */
void heap_close(struct la_heap *heap);
int heap_remove(const struct options *options);

#endif
