/* headroom.h - how much memory this process may still take before somebody is killed for it. */
#ifndef SEGMENTS_HEADROOM_H
#define SEGMENTS_HEADROOM_H

#include <stddef.h>

/*
 * Bytes: what the machine has available, and what this process's control group leaves; SIZE_MAX when neither is known.
 * A snapshot, for refusing what is hopeless; not a promise.
 */
size_t seg_headroom(void);

#endif
