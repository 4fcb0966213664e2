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

/* A function and the struct that it fills share a name (la_heap_info, as stat in C): for g++ -Wshadow it hides the constructor. */
#ifdef __cplusplus
#define LA_BEGIN_DECLS extern "C" { _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wshadow\"")
#define LA_END_DECLS _Pragma("GCC diagnostic pop") }
#else
#define LA_BEGIN_DECLS
#define LA_END_DECLS
#endif

#endif
