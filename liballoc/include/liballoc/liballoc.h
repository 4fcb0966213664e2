/* liballoc.h - everything of the engine's public face. */
#ifndef LIBALLOC_H
#define LIBALLOC_H

#define LA_VERSION_MAJOR 0
#define LA_VERSION_MINOR 1
#define LA_VERSION_PATCH 0

#include <liballoc/chain.h>
#include <liballoc/default.h>
#include <liballoc/error.h>
#include <liballoc/group.h>
#include <liballoc/heap.h>
#include <liballoc/limbo.h>
#include <liballoc/queue.h>
#include <liballoc/source.h>
#include <liballoc/stats.h>
#include <liballoc/vspace.h>

LA_BEGIN_DECLS

/** la_library_version() - "MAJOR.MINOR.PATCH" of the library that is loaded */
LA_API const char *la_library_version(void);

LA_END_DECLS
#endif
