/* count.h - the words of one file, in a bundle. */
#ifndef WORDCOUNT_COUNT_H
#define WORDCOUNT_COUNT_H

#include "job.h"

/*
 * Count the words (runs of ASCII letters, in lower case) of @file, and publish them as file->tallies: all of them by
 * one store. A file without words gets no list; its merged is ALL_MERGED at once. Return: 0 or a negative errno.
 */
int count_file(struct la_heap *heap, struct file *file);

#endif
