#include "embedded.h"

#include <dirent.h>
#include <errno.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <liballoc/error.h>

#include "shms.h"

enum { MAX_FOLDERS = 8 };

/* Where they are, as la_heap_attach() looks for them: in /dev/shm, and wherever hugetlbfs is mounted. */
struct folders {
    char path[MAX_FOLDERS][80];
    unsigned count;
};

static void add_folder(struct folders *folders, const char *path)
{
    if (folders->count < MAX_FOLDERS && strlen(path) < sizeof(folders->path[0]))
        strcpy(folders->path[folders->count++], path);
}

static struct folders find_folders(void)
{
    struct folders ret = { .count = 0 };
    FILE *mounts = setmntent("/proc/self/mounts", "r");
    const struct mntent *mount;

    add_folder(&ret, "/dev/shm");
    while (mounts && (mount = getmntent(mounts)))
        if (strcmp(mount->mnt_type, "hugetlbfs") == 0)
            add_folder(&ret, mount->mnt_dir);
    if (mounts)
        endmntent(mounts);
    return ret;
}

static size_t make_prefix(char *prefix, size_t size)
{
    return (size_t)snprintf(prefix, size, "liballoc-%u-", (unsigned)geteuid());
}

int embedded_create(const char *name, size_t size, unsigned flags)
{
    struct la_heap *heap;
    int r = la_heap_create(name, size, flags, &heap);

    return r < 0 ? r : la_heap_detach(heap);
}

/* The processes of the table, this one excepted. */
static int processes_of(struct la_heap *heap, struct la_heap_process ret[LA_HEAP_MAX_PROCESSES])
{
    int n = la_heap_processes(heap, ret, LA_HEAP_MAX_PROCESSES);

    if (n > LA_HEAP_MAX_PROCESSES)
        n = LA_HEAP_MAX_PROCESSES;
    for (int i = 0; i < n; i++)
        if (ret[i].pid == getpid() && strcmp(ret[i].command, program_invocation_short_name) == 0) {
            memmove(&ret[i], &ret[i + 1], (size_t)(n - i - 1) * sizeof(*ret));
            return n - 1;
        }
    return n;
}

/* When its file was made; 0: it is gone. */
static int64_t time_of(const char *name)
{
    struct folders folders = find_folders();
    char prefix[32], path[192];
    struct stat st;

    make_prefix(prefix, sizeof(prefix));
    for (unsigned i = 0; i < folders.count; i++) {
        snprintf(path, sizeof(path), "%s/%s%s", folders.path[i], prefix, name);
        if (stat(path, &st) == 0)
            return st.st_ctime;
    }
    return 0;
}

static int describe(struct la_heap *heap, const char *name, struct shms_heap *ret)
{
    struct la_heap_process processes[LA_HEAP_MAX_PROCESSES];
    struct la_heap_info info = { .struct_size = sizeof(info) };
    int r = la_heap_info(heap, &info), n;

    if (r < 0)
        return r;
    n = processes_of(heap, processes);
    if (n < 0)
        return n;
    *ret = (struct shms_heap){ .struct_size = sizeof(*ret), .id = info.id, .address = info.address, .size = info.size,
        .committed = info.committed, .recovered_processes = info.recovered_processes, .recovered_blocks = info.recovered_blocks,
        .recovered_bytes = info.recovered_bytes, .macro_blocks = info.macro_blocks, .macro_blocks_used = info.macro_blocks_used,
        .lanes = info.lanes, .owner = geteuid(), .group = getegid(), .mode = 0600, .quarantined = info.quarantined,
        .page_size = info.page_size };
    ret->created = time_of(name);
    snprintf(ret->name, sizeof(ret->name), "%s", name);
    for (int i = 0; i < n; i++)
        ret->processes += processes[i].alive;
    return 0;
}

int embedded_info(const char *name, struct shms_heap *ret)
{
    struct la_heap *heap;
    int r = la_heap_attach(name, LA_HEAP_NO_RECOVER, &heap);

    if (r < 0)
        return r;
    r = describe(heap, name, ret);
    la_heap_detach(heap);
    return r;
}

/* Names in a folder, sorted. Return: their number or a negative errno; the list is for the caller to free. */
static int find_names(const char *folder, struct dirent ***ret)
{
    int n = scandir(folder, ret, NULL, alphasort);

    return n < 0 ? -errno : n;
}

static const char *name_of(const struct dirent *entry)
{
    char prefix[32];
    size_t length = make_prefix(prefix, sizeof(prefix));

    return strncmp(entry->d_name, prefix, length) == 0 ? entry->d_name + length : NULL;
}

/* Call @visit for every name in a folder; one that cannot be looked into does not hide the others. */
static int for_each_in(const char *folder, int (*visit)(void *user, const char *name), void *user)
{
    struct dirent **entries;
    int n = find_names(folder, &entries), count = 0;

    if (n < 0)
        return n;
    for (int i = 0; i < n; i++) {
        const char *name = name_of(entries[i]);
        int r = name ? visit(user, name) : 0;

        if (r >= 0)
            count += r;
        else
            fprintf(stderr, "shms: %s/%s is left out: %s\n", folder, entries[i]->d_name, shms_last_error());
        free(entries[i]);
    }
    free(entries);
    return count;
}

static int for_each_name(int (*visit)(void *user, const char *name), void *user)
{
    struct folders folders = find_folders();
    int count = for_each_in(folders.path[0], visit, user);

    /* A hugetlbfs that this user may not look into has nothing of his. */
    for (unsigned i = 1; i < folders.count && count >= 0; i++) {
        int n = for_each_in(folders.path[i], visit, user);

        count += n > 0 ? n : 0;
    }
    return count;
}

struct heap_visit {
    void (*each)(void *user, const struct shms_heap *heap);
    void *user;
};

static int visit_heap(void *user, const char *name)
{
    const struct heap_visit *visit = user;
    struct shms_heap heap;
    int r = embedded_info(name, &heap);

    if (r < 0)
        return r;
    visit->each(visit->user, &heap);
    return 1;
}

int embedded_list(void (*each)(void *user, const struct shms_heap *heap), void *user)
{
    struct heap_visit visit = { each, user };

    return for_each_name(visit_heap, &visit);
}

struct process_visit {
    void (*each)(void *user, const struct shms_process *process);
    void *user;
};

static int visit_processes(void *user, const char *name)
{
    struct la_heap_process processes[LA_HEAP_MAX_PROCESSES];
    const struct process_visit *visit = user;
    struct la_heap *heap;
    int n = la_heap_attach(name, LA_HEAP_NO_RECOVER, &heap);

    if (n < 0)
        return n;
    n = processes_of(heap, processes);
    for (int i = 0; i < n; i++) {
        struct shms_process process = { .struct_size = sizeof(process), .pid = processes[i].pid, .uid = geteuid(),
            .lanes = processes[i].lanes, .state = processes[i].alive ? SHMS_ATTACHED : SHMS_DEAD };

        memcpy(process.command, processes[i].command, sizeof(process.command));
        snprintf(process.heap, sizeof(process.heap), "%s", name);
        visit->each(visit->user, &process);
    }
    la_heap_detach(heap);
    return n;
}

int embedded_processes(const char *name, void (*each)(void *user, const struct shms_process *process), void *user)
{
    struct process_visit visit = { each, user };

    return name ? visit_processes(&visit, name) : for_each_name(visit_processes, &visit);
}

static int recover_heap(void *user, const char *name)
{
    struct la_heap *heap;
    int n = la_heap_attach(name, LA_HEAP_NO_RECOVER, &heap);

    (void)user;
    if (n < 0)
        return n;
    n = la_heap_recover(heap, NULL, NULL);
    la_heap_detach(heap);
    return n;
}

int embedded_gc(const char *name, uint64_t *recovered)
{
    int n = name ? recover_heap(NULL, name) : for_each_name(recover_heap, NULL);

    *recovered = n < 0 ? 0 : (uint64_t)n;
    return n < 0 ? n : 0;
}
