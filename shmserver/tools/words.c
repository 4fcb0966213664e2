#include "words.h"

#include <stdio.h>
#include <string.h>

static const struct pair {
    const char *call, *command;
} pairs[] = {
    { "la_heap_create()", "`shms --embedded create`" },
    { "la_heap_remove()", "`shms --embedded rm`" },
    { "la_heap_open()", "`shms --embedded`" },
    { "la_heap_fsck()", "`shms fsck`" },
    { "attach to it with LA_HEAP_READ_ONLY", "check it without --quarantine" },
};

/* The pair whose call stands at the beginning of @text, or NULL. */
static const struct pair *find_pair(const char *text)
{
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        if (strncmp(text, pairs[i].call, strlen(pairs[i].call)) == 0)
            return &pairs[i];
    return NULL;
}

const char *words_translate(const char *sentence, char out[WORDS_SIZE])
{
    size_t length = 0;

    while (*sentence && length < WORDS_SIZE - 1) {
        const struct pair *pair = find_pair(sentence);

        if (pair) {
            length += (size_t)snprintf(out + length, WORDS_SIZE - length, "%s", pair->command);
            sentence += strlen(pair->call);
        } else {
            out[length++] = *sentence++;
        }
    }
    out[length < WORDS_SIZE ? length : WORDS_SIZE - 1] = '\0';
    return out;
}
