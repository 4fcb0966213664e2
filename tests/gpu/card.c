#include "card.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

struct ibv_device;

static struct ibv_device **(*get_device_list)(int *count);
static void (*free_device_list)(struct ibv_device **list);
static const char *(*get_device_name)(struct ibv_device *device);
static struct ibv_context *(*open_device)(struct ibv_device *device);
static int (*close_device)(struct ibv_context *context);
static struct ibv_pd *(*alloc_pd)(struct ibv_context *context);
static int (*dealloc_pd)(struct ibv_pd *pd);

static void *find(const char *name)
{
    const char *path = getenv("LIBALLOC_IBVERBS");
    void *library = dlopen(path && path[0] ? path : "libibverbs.so.1", RTLD_NOW);

    return library ? dlvsym(library, name, "IBVERBS_1.1") : NULL;
}

static int find_all(void)
{
    *(void **)&get_device_list = find("ibv_get_device_list");
    *(void **)&free_device_list = find("ibv_free_device_list");
    *(void **)&get_device_name = find("ibv_get_device_name");
    *(void **)&open_device = find("ibv_open_device");
    *(void **)&close_device = find("ibv_close_device");
    *(void **)&alloc_pd = find("ibv_alloc_pd");
    *(void **)&dealloc_pd = find("ibv_dealloc_pd");
    return get_device_list && free_device_list && get_device_name && open_device && close_device && alloc_pd && dealloc_pd ? 0 : -1;
}

int card_open(int number, struct card *ret)
{
    struct ibv_device **list;
    int count = 0;

    if (find_all() < 0)
        return -1;
    list = get_device_list(&count);
    ret->context = list && number < count ? open_device(list[number]) : NULL;
    ret->domain = ret->context ? alloc_pd(ret->context) : NULL;
    if (ret->domain)
        snprintf(ret->name, sizeof(ret->name), "%s", get_device_name(list[number]));
    else if (ret->context)
        close_device(ret->context);
    if (list)
        free_device_list(list);
    return ret->domain ? 0 : -1;
}

void card_close(const struct card *card)
{
    dealloc_pd(card->domain);
    close_device(card->context);
}
