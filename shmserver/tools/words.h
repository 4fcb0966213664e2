/*
 * words.h - sentences of the library, for who types commands.
 *
 * The library writes to programmers, so its remedies are calls. The same is done by a command here: the sentence stays, the remedy is translated.
 */
#ifndef TOOLS_WORDS_H
#define TOOLS_WORDS_H

#include <stddef.h>

/* Fits every sentence of la_last_error(). */
enum { WORDS_SIZE = 512 };

/* Return: @out, with @sentence as it is said to users of shms; cut if it does not fit. */
const char *words_translate(const char *sentence, char out[WORDS_SIZE]);

#endif
