/*
 * doctor.h - what `shms doctor` looks at: each check is a function that looks at one thing, and says how it stands and what helps.
 *
 *   doctor.c           what heaps need, and the daemon
 *   doctor_machine.c   memory of the machine: pages, limits, control groups, nodes
 *   doctor_devices.c   what need not be there: drivers, a service manager
 */
#ifndef TOOLS_DOCTOR_H
#define TOOLS_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>

enum verdict {
    GOOD,
    LIMITED,    /* it works, at a cost */
    ABSENT,     /* not there, and only those miss it who use it */
    BAD,
};

struct finding {
    enum verdict verdict;
    char text[240];
};

struct finding finding(enum verdict verdict, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The first line of a small file, without its end. false: it cannot be read. */
bool doctor_read(const char *path, char *ret, size_t size);

struct check {
    const char *name;
    struct finding (*look)(void);
};

/* Ended by one without a name. */
extern const struct check doctor_machine[], doctor_devices[];

#endif
