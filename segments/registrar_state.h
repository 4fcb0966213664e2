/*
 * registrar_state.h - a registrar as the supplies that use it see it.
 */
#ifndef SEGMENTS_REGISTRAR_STATE_H
#define SEGMENTS_REGISTRAR_STATE_H

#include <stdatomic.h>

#include <segments/registrar.h>

#include "base/util.h"

struct seg_registrar {
    struct seg_registrar_ops ops;
    void *self;
    _Atomic(unsigned) users;        /* supplies */
};

/* Its pages stay where they are. */
static inline bool registrar_pins(const struct seg_registrar *registrar)
{
    return registrar->ops.flags & (SEG_REGISTRAR_LOCKS | SEG_REGISTRAR_PINS | SEG_REGISTRAR_HOLDS);
}

/* A device reads and writes them there: a page that fork() makes copy-on-write would be another one for the processor. */
static inline bool registrar_is_of_device(const struct seg_registrar *registrar)
{
    return registrar->ops.flags & (SEG_REGISTRAR_PINS | SEG_REGISTRAR_HOLDS);
}

#endif
