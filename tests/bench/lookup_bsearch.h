/* lookup_bsearch.h - a binary search over a sorted table, as registration caches have. */
struct lookup_entry {
    const char *base;
    size_t size;
    uint64_t key;
};

static struct lookup_entry *lookup_table;
static size_t lookup_count;
static char *lookup_base;
static size_t lookup_size;

static inline void lookup_begin(char *base, size_t size, unsigned long most)
{
    lookup_base = base;
    lookup_size = size;
    lookup_table = calloc(most, sizeof(*lookup_table));
    if (!lookup_table)
        abort();
}

static inline void lookup_add(unsigned long i)
{
    char *base = lookup_base + i * lookup_size;

    lookup_table[lookup_count++] = (struct lookup_entry){ base, lookup_size, (uintptr_t)base >> 21 };
}

static inline uint64_t lookup_key(const void *address)
{
    size_t low = 0, high = lookup_count;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if ((const char *)address < lookup_table[middle].base)
            high = middle;
        else if ((size_t)((const char *)address - lookup_table[middle].base) >= lookup_table[middle].size)
            low = middle + 1;
        else
            return lookup_table[middle].key;
    }
    abort();
}
