/* merge.h - from the words of one file to the table of all. */
#ifndef WORDCOUNT_MERGE_H
#define WORDCOUNT_MERGE_H

#include "job.h"

/*
 * Add the tallies of @file from number file->merged on to the table, and set it to ALL_MERGED. Each tally has its
 * effect exactly once, whoever was killed in between. Return: 0 or a negative errno.
 */
int merge_file(struct la_heap *heap, struct job *job, struct file *file);

#endif
