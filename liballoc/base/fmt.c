/*
 * fmt.c - printf for code that runs inside malloc: no allocation, no locale, no stdio.
 */
#include "base/fmt.h"

#include <string.h>

struct sink {
    char *out;
    size_t size;
    size_t length;  /* of the whole text, also what did not fit */
};

struct spec {
    bool left, zero, sharp;
    unsigned width;
    int precision;  /* -1: none */
    unsigned longs; /* 0 int, 1 long or size_t, 2 long long */
};

static void put(struct sink *s, char c)
{
    if (s->length + 1 < s->size)
        s->out[s->length] = c;
    s->length++;
}

static void put_padded(struct sink *s, const struct spec *spec, const char *text, size_t length, const char *prefix)
{
    size_t total = length + strlen(prefix);
    size_t fill = spec->width > total ? spec->width - total : 0;

    if (!spec->left && !spec->zero)
        for (; fill > 0; fill--)
            put(s, ' ');
    while (*prefix)
        put(s, *prefix++);
    if (!spec->left)
        for (; fill > 0; fill--)
            put(s, '0');
    for (size_t i = 0; i < length; i++)
        put(s, text[i]);
    for (; fill > 0; fill--)
        put(s, ' ');
}

static void put_number(struct sink *s, const struct spec *spec, unsigned long long n, unsigned base, const char *prefix)
{
    char digits[24];
    size_t at = sizeof(digits);

    do {
        digits[--at] = "0123456789abcdef"[n % base];
        n /= base;
    } while (n > 0);
    put_padded(s, spec, digits + at, sizeof(digits) - at, prefix);
}

static void put_string(struct sink *s, const struct spec *spec, const char *text)
{
    struct spec plain = *spec;

    if (!text)
        text = "(null)";
    plain.zero = false;
    put_padded(s, &plain, text, spec->precision >= 0 ? strnlen(text, (size_t)spec->precision) : strlen(text), "");
}

static unsigned long long take_unsigned(const struct spec *spec, va_list *args)
{
    return spec->longs == 2   ? va_arg(*args, unsigned long long)
           : spec->longs == 1 ? va_arg(*args, unsigned long)
                              : va_arg(*args, unsigned);
}

static long long take_signed(const struct spec *spec, va_list *args)
{
    return spec->longs == 2 ? va_arg(*args, long long) : spec->longs == 1 ? va_arg(*args, long) : va_arg(*args, int);
}

/* Reads flags, width, precision and length after a '%'; returns the conversion's place. */
static const char *parse_spec(const char *f, struct spec *spec, va_list *args)
{
    *spec = (struct spec){ .precision = -1 };
    for (;; f++) {
        if (*f == '-')
            spec->left = true;
        else if (*f == '0')
            spec->zero = true;
        else if (*f == '#')
            spec->sharp = true;
        else
            break;
    }
    for (; *f >= '0' && *f <= '9'; f++)
        spec->width = spec->width * 10 + (unsigned)(*f - '0');
    if (*f == '.') {
        f++;
        spec->precision = 0;
        if (*f == '*') {
            spec->precision = va_arg(*args, int);
            f++;
        }
        for (; *f >= '0' && *f <= '9'; f++)
            spec->precision = spec->precision * 10 + (*f - '0');
    }
    for (;; f++) {
        if (*f == 'l')
            spec->longs++;
        else if (*f == 'z' || *f == 't' || *f == 'j')
            spec->longs = 1;
        else
            return f;
    }
}

static void convert(struct sink *s, char conversion, const struct spec *spec, va_list *args)
{
    switch (conversion) {
    case 'd':
    case 'i': {
        long long n = take_signed(spec, args);
        put_number(s, spec, n < 0 ? 0 - (unsigned long long)n : (unsigned long long)n, 10, n < 0 ? "-" : "");
        break;
    }
    case 'u':
        put_number(s, spec, take_unsigned(spec, args), 10, "");
        break;
    case 'x':
        put_number(s, spec, take_unsigned(spec, args), 16, spec->sharp ? "0x" : "");
        break;
    case 'o':
        put_number(s, spec, take_unsigned(spec, args), 8, "");
        break;
    case 'p':
        put_number(s, spec, (uintptr_t)va_arg(*args, void *), 16, "0x");
        break;
    case 'c':
        put(s, (char)va_arg(*args, int));
        break;
    case 's':
        put_string(s, spec, va_arg(*args, const char *));
        break;
    default:
        put(s, conversion);
        break;
    }
}

size_t la_vformat(char *out, size_t size, const char *format, va_list original)
{
    struct sink sink = { .out = out, .size = size };
    va_list args;

    va_copy(args, original);
    for (const char *f = format; *f; f++) {
        struct spec spec;

        if (*f != '%') {
            put(&sink, *f);
            continue;
        }
        f = parse_spec(f + 1, &spec, &args);
        if (!*f)
            break;
        convert(&sink, *f, &spec, &args);
    }
    va_end(args);
    if (size > 0)
        out[MIN(sink.length, size - 1)] = '\0';
    return sink.length;
}

size_t la_format(char *out, size_t size, const char *format, ...)
{
    va_list args;
    size_t length;

    va_start(args, format);
    length = la_vformat(out, size, format, args);
    va_end(args);
    return length;
}
