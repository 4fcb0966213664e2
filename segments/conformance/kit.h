/*
 * kit.h - what the checks of sources and of registrars share: findings, and traces of a process that should not grow.
 */
#ifndef CONFORMANCE_KIT_H
#define CONFORMANCE_KIT_H

#include <stdbool.h>

#include <segments/conformance.h>

struct kit {
    struct seg_conformance *run;
    unsigned checks, findings;
    size_t size;                /* of a usual extent */
    size_t page;                /* of the machine */
};

int kit_begin(struct kit *kit, struct seg_conformance *run);
int kit_end(struct kit *kit);

/* Count a check; report it unless @kept. Returns @kept. */
bool kit_check(struct kit *kit, bool kept, const char *rule, const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Not the processor's to touch: nothing does, and what is said of its content is taken for true. */
bool kit_is_device_only(const struct seg_extent *extent);

/* Can all of it be written and read? By a copy of the kernel: no signal. */
bool kit_touch(const struct seg_extent *extent);

/* A mark in each page, and whether it is still there. */
void kit_mark(const struct kit *kit, const struct seg_extent *extent, unsigned mark);
bool kit_is_marked(const struct kit *kit, const struct seg_extent *extent, unsigned mark);

/* What a process has: it should be the same after as before. */
struct kit_trace {
    size_t descriptors, mapped_kib, locked_kib, pinned_kib;
};
struct kit_trace kit_look(void);
void kit_compare(struct kit *kit, const struct kit_trace *before, const char *rule, size_t slack_kib);

#endif
