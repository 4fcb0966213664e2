/* visibility.h - marks what the shared libraries export; everything else stays hidden. */
#ifndef LIBALLOC_VISIBILITY_H
#define LIBALLOC_VISIBILITY_H

#if defined(__GNUC__)
#define LA_API __attribute__((visibility("default")))
#define LA_MALLOC_LIKE __attribute__((malloc, warn_unused_result))
/*
 * The same for memory that others may see: heirs, readers, devices. Not "malloc": with that the compiler leaves out what is written to a block whose
 * pointer goes nowhere.
 */
#define LA_GIVES_BLOCK __attribute__((warn_unused_result))
#else
#define LA_API
#define LA_MALLOC_LIKE
#define LA_GIVES_BLOCK
#endif

#ifdef __cplusplus
#define LA_BEGIN_DECLS extern "C" {
#define LA_END_DECLS }
#else
#define LA_BEGIN_DECLS
#define LA_END_DECLS
#endif

#endif
