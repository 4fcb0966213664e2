#include "shmserver/daemon/holes.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#include "base/util.h"
#include "shmserver/daemon/view.h"

/* Read by the handler; changed while no heap is touched. */
static struct watched {
    uintptr_t address;          /* 0: none */
    size_t size, page_size;
    volatile bool found;
} watched[VIEW_MAX + 1];

static struct watched *find(uintptr_t address)
{
    for (size_t i = 0; i < ARRAY_SIZE(watched); i++)
        if (watched[i].address && address - watched[i].address < watched[i].size)
            return &watched[i];
    return NULL;
}

/* Two system calls, both safe here: the fault came from our own load or store, outside of any of libc's locks that mmap() would need. */
static void on_sigbus(int signal_number, siginfo_t *info, void *context)
{
    struct watched *w = find((uintptr_t)info->si_addr);
    int saved = errno;
    void *page;

    (void)context;
    page = w ? (void *)align_down((uintptr_t)info->si_addr, w->page_size) : NULL;
    if (w && mmap(page, w->page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == page)
        w->found = true;
    else
        signal(signal_number, SIG_DFL);     /* and there it is again */
    errno = saved;
}

void holes_install(void)
{
    struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };

    sigaction(SIGBUS, &action, NULL);
}

bool holes_watch(uintptr_t address, size_t size, size_t page_size)
{
    for (size_t i = 0; i < ARRAY_SIZE(watched); i++)
        if (!watched[i].address) {
            watched[i] = (struct watched){ .address = address, .size = size, .page_size = page_size };
            return true;
        }
    return false;
}

bool holes_found(uintptr_t address)
{
    const struct watched *w = find(address);

    return w && w->found;
}

void holes_forget(uintptr_t address)
{
    struct watched *w = find(address);

    if (w)
        *w = (struct watched){ 0 };
}
