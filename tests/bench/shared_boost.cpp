#include "shared_boost.h"

#include <new>

#include <boost/interprocess/managed_shared_memory.hpp>

namespace ipc = boost::interprocess;

static ipc::managed_shared_memory *segment;

/* The segment stays mapped until the process ends: no destructor runs at exit. */
void backend_create(const char *name, size_t bytes)
{
    segment = new ipc::managed_shared_memory(ipc::create_only, name, bytes);
}

void backend_attach(const char *name)
{
    segment = new ipc::managed_shared_memory(ipc::open_only, name);
}

void backend_remove(const char *name)
{
    ipc::shared_memory_object::remove(name);
}

void *shared_alloc(size_t size)
{
    return segment->allocate(size, std::nothrow);
}

void shared_free(void *block)
{
    segment->deallocate(block);
}

uint64_t shared_word(void *block)
{
    return (uint64_t)segment->get_handle_from_address(block);
}

void *shared_block(uint64_t word)
{
    return segment->get_address_from_handle((ipc::managed_shared_memory::handle_t)word);
}
