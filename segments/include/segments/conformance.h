/*
 * conformance.h - does a source or a registrar keep its contract? For who writes one; link with -lalloc-conformance.
 *
 *     struct seg_choice choice = { .ops = &my_ops, .text = "64" };
 *     struct seg_conformance run = { .struct_size = sizeof(run), .report = print };
 *
 *     return seg_conformance_source(&choice, &run) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
 *
 * Memory that is not there is found by the kernel's copy, not by a signal. And the other way round: a source and a registrar that break their
 * contract on purpose, for who builds on supplies and wants to see each failure once.
 */
#ifndef SEGMENTS_CONFORMANCE_H
#define SEGMENTS_CONFORMANCE_H

#include <segments/supply.h>

LA_BEGIN_DECLS

/* @rule: the one that is broken, in short: "acquire: at least min_size"; @finding: what was seen. */
typedef void seg_conformance_report(void *user, const char *rule, const char *finding);

struct seg_conformance {
    size_t struct_size;                 /* in: sizeof(struct seg_conformance) of the caller */
    seg_conformance_report *report;     /* in: NULL: only counted */
    void *user;                         /* in: for report */
    size_t size;                        /* in: bytes of a usual extent; 0: 1 MiB */
    unsigned checks, findings;          /* out */
};

/**
 * seg_conformance_source() - open a source and use it in every way that a supply may
 *
 * Takes up to 8 extents at a time. The calling process should do nothing else meanwhile: descriptors and mappings that are left over are counted.
 *
 * Return: findings, or a negative errno (it cannot be opened).
 */
LA_API int seg_conformance_source(const struct seg_choice *choice, struct seg_conformance *run);

/** seg_conformance_registrar() - the same for a registrar, on extents of @memory ("memfd", "anon" ...). Return: findings, or a negative errno. */
LA_API int seg_conformance_registrar(const struct seg_registrar_ops *ops, void *self, const char *memory, struct seg_conformance *run);

/* What a fault does. */
enum seg_fault {
    SEG_FAULT_NONE = 0,
    SEG_FAULT_FAIL,             /* the call fails with .error (0: ENOMEM), without a sentence in la_last_error() */
    SEG_FAULT_POSITIVE,         /* the call returns a positive number */
    SEG_FAULT_SLOW,             /* .wait is called, then all is well */
    SEG_FAULT_SHORT,            /* acquire: less than min_size */
    SEG_FAULT_LONG,             /* acquire: says two pages more than it was asked for and has */
    SEG_FAULT_UNMAPPED,         /* acquire: what it gives is not mapped */
    SEG_FAULT_MISALIGNED,       /* acquire: the base is 64 bytes behind a page */
    SEG_FAULT_NULL,             /* acquire: says all is well and gives nothing */
    SEG_FAULT_AGAIN,            /* acquire: what is out already */
    SEG_FAULT_INCAPABLE,        /* acquire: without what was required */
    SEG_FAULT_COUNT
};

/* A plan of faults, and what happened. One for one source or registrar. */
struct seg_faults {
    size_t struct_size;         /* sizeof(struct seg_faults) of the caller */
    enum seg_fault fault;
    unsigned at;                /* the n-th acquire or attach, from 1; 0: the calls of give_back_at only */
    unsigned times;             /* so many calls from there on; 0: one */
    unsigned give_back_at;      /* the n-th release or detach fails, with .error (0: EBUSY); 0: none */
    int error;                  /* positive errno */
    void (*wait)(void *user);   /* of SEG_FAULT_SLOW */
    void *user;
    unsigned taken, given_back, failed;         /* calls so far: acquire or attach; release or detach; those that were faulty */
    unsigned out;               /* extents or keys that are out, as a well-behaved source would count them */
    void *first, *inner;        /* the kit's own */
    size_t first_size;
};

/** seg_fault_source() - for struct seg_choice: .user is a struct seg_faults, .text names the source underneath ("anon") */
LA_API const struct seg_source_ops *seg_fault_source(void);

/** seg_fault_registrar() - counts keys that are out, and fails by plan; @faults must outlive it. Return: 0, -ENOMEM */
LA_API int seg_fault_registrar(struct seg_faults *faults, unsigned flags, struct seg_registrar **ret);

LA_END_DECLS
#endif
