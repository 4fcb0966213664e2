/* Boost.Interprocess: best fit in a red-black tree under one process-shared mutex, its default. */
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void backend_create(const char *name, size_t bytes);
void backend_attach(const char *name);
void backend_remove(const char *name);

void *shared_alloc(size_t size);
void shared_free(void *block);
uint64_t shared_word(void *block);
void *shared_block(uint64_t word);

#ifdef __cplusplus
}
#endif
