/*
 * huge_pages.h - the machine's pools of huge pages, and files that are made of them (hugetlbfs, memfd_create() with MFD_HUGETLB).
 */
#ifndef OS_HUGE_PAGES_H
#define OS_HUGE_PAGES_H

#include "base/util.h"

/* Bytes of a page of the file: on hugetlbfs its pool's, else the machine's. The kernel says it, whatever is written in the file. */
size_t os_file_page(int fd);

/* The flag bits by which mmap() and memfd_create() are told the size of a huge page. */
unsigned os_huge_flags(size_t page);

bool os_pool_exists(size_t page);
/* One of the pool's files: "nr_hugepages", "free_hugepages", ...; 0: there is no such pool. */
size_t os_pool_number(size_t page, const char *file);
/* Pages that nobody has, and nobody was promised. */
size_t os_pool_free(size_t page);

/* What to say when @bytes could not be had: what is needed, what there is, and the remedy. "1 page of 2 MiB needed, 0 of 4 free: sysctl ..." */
enum { POOL_TEXT_SIZE = 160 };
const char *os_pool_explain(size_t page, uint64_t bytes, char text[POOL_TEXT_SIZE]);

/* A folder where hugetlbfs is mounted. */
struct huge_mount {
    char path[80];
    size_t page;
};

/* The @index-th one, in the order of /proc/self/mounts. false: there are no more. */
bool os_huge_mount(unsigned index, struct huge_mount *ret);

#endif
