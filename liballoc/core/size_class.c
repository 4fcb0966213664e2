#include "core/size_class.h"

#define OFFSET(c) ((uint16_t)((c) * sizeof(struct la_bin)))
#define TWO(i, c) [i] = OFFSET(c), [(i) + 1] = OFFSET(c)
#define FOUR(i, c) TWO(i, c), TWO((i) + 2, c)
#define EIGHT(i, c) FOUR(i, c), FOUR((i) + 4, c)

const uint16_t la_bin_offset[TABLE_MAX / 8 + 1] = {
    TWO(0, 0), [2] = OFFSET(1),
    TWO(3, 2), TWO(5, 3), TWO(7, 4), TWO(9, 5), TWO(11, 6), TWO(13, 7), TWO(15, 8),                 /* to 128 by 16 */
    TWO(17, 9), TWO(19, 10), TWO(21, 11), TWO(23, 12), TWO(25, 13), TWO(27, 14), TWO(29, 15), TWO(31, 16),  /* 256 */
    FOUR(33, 17), FOUR(37, 18), FOUR(41, 19), FOUR(45, 20), FOUR(49, 21), FOUR(53, 22), FOUR(57, 23), FOUR(61, 24),
    EIGHT(65, 25), EIGHT(73, 26), EIGHT(81, 27), EIGHT(89, 28), EIGHT(97, 29), EIGHT(105, 30), EIGHT(113, 31),
    EIGHT(121, 32),
};

unsigned class_page_slices(unsigned c)
{
    size_t size = class_size(c);
    size_t best_waste = SIZE_MAX;
    unsigned best = 1;

    for (unsigned n = 1; n <= 8; n++) {
        size_t total = n * SLICE_SIZE;
        size_t waste = total % size;

        if (total / size < 4)
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
