/*
 * error.h - what went wrong, in words.
 *
 * Control calls return 0 or a negative errno; allocation returns NULL. Both leave a sentence for the
 * calling thread that names the operation, the value refused and the remedy. The library itself never prints.
 *
 * Answers that a caller asks for again and again leave none, and la_last_error() what was there before: -EAGAIN of la_publish(), la_root_swap(),
 * la_queue_push(), la_queue_pop(); -ENOENT of la_ref_get(), -ESTALE of la_ref_read(); -EBUSY and -EOWNERDEAD of the mutex; -ENOENT and
 * -EOVERFLOW of la_heap_obituary(), -EINPROGRESS of la_heap_outcome(), and the end of a list (la_heap_root_at()).
 */
#ifndef LIBALLOC_ERROR_H
#define LIBALLOC_ERROR_H

#include <liballoc/visibility.h>

LA_BEGIN_DECLS

/**
 * la_last_error() - the calling thread's last failure, in one line
 *
 * Threads: each thread has its own text; it stays until that thread's next failure, or its next call whose NULL may be either (la_take()).
 *
 * Return: a sentence without newline, "" when nothing has failed yet. Never NULL; not to be freed.
 */
LA_API const char *la_last_error(void);

/**
 * la_last_error_code() - the negative errno that goes with la_last_error(), 0 when nothing has failed; stays as long
 */
LA_API int la_last_error_code(void);

/* What free() does with a pointer it must refuse (foreign, interior, freed twice). */
enum la_misuse_action {
    LA_MISUSE_ABORT = 0,    /* report to the handler or stderr, then abort(): the default of the preload library */
    LA_MISUSE_REPORT = 1,   /* report, then continue; the pointer is left alone */
    LA_MISUSE_IGNORE = 2,   /* continue silently; only counted */
};

/*
 * A misuse report. @text is one line without newline. The handler may be called from any thread and
 * must not allocate from liballoc.
 */
typedef void la_misuse_handler(void *user, const void *pointer, const char *text);

/**
 * la_misuse_set() - choose what happens on a wrong free
 * @action:  see enum la_misuse_action
 * @handler: receives the report; NULL: the report is kept as la_last_error() (and, under preload with
 *           LIBALLOC_MISUSE=report or abort, written to standard error)
 * @user:    handed to @handler
 *
 * Return: 0, or -EINVAL (@action unknown).
 */
LA_API int la_misuse_set(enum la_misuse_action action, la_misuse_handler *handler, void *user);

/** la_misuse_count() - how many wrong frees were refused since the process started */
LA_API unsigned long la_misuse_count(void);

LA_END_DECLS
#endif
