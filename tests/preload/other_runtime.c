/*
 * A C++ runtime under another name than the known ones, as far as operator new goes: other_runtime_test.c is linked with it.
 */
#include <stddef.h>

__attribute__((visibility("default"))) char other_runtime_block[16];

__attribute__((visibility("default"))) void *other_runtime_new(size_t size) __asm__("_Znwm");

void *other_runtime_new(size_t size)
{
    (void)size;
    return other_runtime_block;
}
