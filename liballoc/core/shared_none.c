#include "core/shared.h"
struct la_chain *shared_lane_chain(struct la_chain *chain) { (void)chain; return NULL; }
void *shared_alloc(struct la_chain *lane, size_t size, size_t alignment) { (void)lane; (void)size; (void)alignment; return NULL; }
bool shared_free(void *block) { (void)block; return false; }
size_t shared_usable_size(const void *block) { (void)block; return 0; }
bool shared_owner(const void *address, struct la_owner *ret) { (void)address; (void)ret; return false; }
