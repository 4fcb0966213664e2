/* amount.h - sizes as people write them: 1G, 512M, 3.5 MiB. Powers of 1024 throughout. */
#ifndef TOOLS_AMOUNT_H
#define TOOLS_AMOUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "1G", "512M", "64MiB", "4096": bytes. false: it is none, or too large. */
bool amount_parse(const char *text, uint64_t *ret);

/* "3.5 MiB"; exact values without a fraction. */
enum { AMOUNT_SIZE = 32 };
const char *amount_print(uint64_t bytes, char out[AMOUNT_SIZE]);

#endif
