#include "core/size_class.h"

#define OFFSET(c) ((uint16_t)((c) * sizeof(struct la_bin)))
/* Class @c serves the sizes up to @size, down to the one before. */
#define UP_TO(size, step, c) [(size) - (step) + 1 ... (size)] = OFFSET(c)
#define EIGHT(size, step, c)                                                                                            \
    UP_TO(size, step, c), UP_TO((size) + (step), step, (c) + 1), UP_TO((size) + 2 * (step), step, (c) + 2),              \
        UP_TO((size) + 3 * (step), step, (c) + 3), UP_TO((size) + 4 * (step), step, (c) + 4),                            \
        UP_TO((size) + 5 * (step), step, (c) + 5), UP_TO((size) + 6 * (step), step, (c) + 6),                            \
        UP_TO((size) + 7 * (step), step, (c) + 7)

const uint16_t la_bin_offset[TABLE_MAX + 1] = {
    [0] = OFFSET(0), UP_TO(8, 8, 0), UP_TO(16, 8, 1),
    UP_TO(32, 16, 2), UP_TO(48, 16, 3), UP_TO(64, 16, 4), UP_TO(80, 16, 5), UP_TO(96, 16, 6), UP_TO(112, 16, 7), UP_TO(128, 16, 8),
    EIGHT(144, 16, 9),      /* to 256 */
    EIGHT(288, 32, 17),     /* to 512 */
    EIGHT(576, 64, 25),     /* to 1024 */
};

unsigned class_page_slices(unsigned c)
{
    enum { MIN_BLOCKS = 8 };
    size_t size = class_size(c);
    size_t best_waste = SIZE_MAX;
    unsigned best = 1;

    for (unsigned n = 1; n <= 8; n++) {
        size_t total = n * SLICE_SIZE;
        size_t waste = total % size;

        if (total / size < MIN_BLOCKS)
            continue;
        if (waste <= total / 32)
            return n;
        if (waste * best < best_waste * n) {    /* relative to the page */
            best_waste = waste;
            best = n;
        }
    }
    return best;
}
