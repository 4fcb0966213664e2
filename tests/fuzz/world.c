#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <liballoc/error.h>
#include <liballoc/heap.h>

#include "input.h"
#include "shmserver/daemon/log.h"
#include "shmserver/daemon/memfile.h"
#include "shmserver/daemon/peer.h"
#include "shmserver/daemon/scrape.h"

struct world world;

/* Requests without a limit: what waits for the clock would not be the same in each run. A quota can still set one. */
const struct server_options world_options = {
    .access = { .by_group = true, .group = GID_ALLOWED },
    .limits = { .clients = 4, .heaps = 3, .bytes = (uint64_t)4 * HEAP_SIZE, .requests = 0, .committed = UINT64_MAX, .huge = UINT64_MAX },
    .over_committed = COMMITTED_KICK, .max_peers = 6, .max_segments = 4,
};

static const struct acl heap_acl = { .owner = UID_A, .group = GID_ALLOWED, .mode = 0640 };
static int lowest_free;     /* descriptor at the beginning of the input */
static char registry[32];   /* of addresses */

/* ---- users ---- */

/* Of this thread only, and for the kernel's word on a new socket only; libFuzzer has other threads, which stay as they are. */
static void become(uid_t uid, gid_t gid)
{
    REQUIRE(syscall(SYS_setresgid, -1, gid, -1) == 0 && syscall(SYS_setresuid, -1, uid, -1) == 0);
}

static void become_root(void)
{
    REQUIRE(syscall(SYS_setresuid, -1, 0, -1) == 0 && syscall(SYS_setresgid, -1, 0, -1) == 0);
    /* Changing users has switched it off, and LeakSanitizer needs it. */
    prctl(PR_SET_DUMPABLE, 1);
}

int world_connect(enum world_user user, int type, int *daemon_end)
{
    static const struct { uid_t uid; gid_t gid; } ids[USERS] = {
        [USER_ROOT] = { 0, 0 }, [USER_A] = { UID_A, GID_ALLOWED }, [USER_B] = { UID_B, GID_ALLOWED },
        [USER_STRANGER] = { UID_STRANGER, GID_STRANGER },
    };
    const bool other = geteuid() == 0 && user != USER_ROOT;
    int ends[2], r;

    if (other)
        become(ids[user].uid, ids[user].gid);
    r = socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends);
    if (other)
        become_root();
    REQUIRE(r == 0);
    *daemon_end = ends[1];
    return ends[0];
}

/* ---- descriptors ---- */

static int make_memfd(const char *label, mode_t mode, size_t size, int seals)
{
    int fd = memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    REQUIRE(fd >= 0 && fchmod(fd, mode) == 0 && ftruncate(fd, (off_t)size) == 0);
    REQUIRE(fcntl(fd, F_ADD_SEALS, seals) == 0);
    return fd;
}

static uint64_t id_of(int fd)
{
    struct la_heap_info info = { .struct_size = sizeof(info) };
    struct la_heap *heap;

    REQUIRE(la_heap_attach_fd(fd, 0, &heap) == 0 && la_heap_info(heap, &info) == 0 && la_heap_detach(heap) == 0);
    return info.id;
}

/* A heap that no daemon knows; its address is free again, so that a daemon can claim it. */
static void make_old_heap(void)
{
    const struct memfile_label label = { .name = "old", .owner = UID_A, .group = GID_ALLOWED };
    struct memfile file;

    REQUIRE(memfile_create(&label, HEAP_SIZE, 0, &file) == 0);
    world.fds[FD_OLD] = memfile_reopen(&file, false);
    world.old_size = file.size;
    world.old_address = file.address;
    world.old_id = id_of(memfile_reopen(&file, false));
    memfile_close(&file, false);
}

int world_copy_old(void)
{
    struct memfile file = { .fd = world.fds[FD_OLD] };

    return memfile_reopen(&file, false);
}

/* Those that do not depend on a daemon. */
static void make_descriptors(void)
{
    const int seals = F_SEAL_GROW | F_SEAL_SHRINK;
    int ends[2];

    world.fds[FD_NULL] = open("/dev/null", O_RDWR | O_CLOEXEC);
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    world.fds[FD_PIPE] = ends[0];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    world.fds[FD_SOCKET] = ends[0];
    world.fds[FD_FOLDER] = open("/", O_PATH | O_CLOEXEC);
    world.fds[FD_DAEMON_SOCKET] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    REQUIRE(bind(world.fds[FD_DAEMON_SOCKET], &(struct sockaddr){ .sa_family = AF_UNIX }, sizeof(sa_family_t)) == 0 &&
            listen(world.fds[FD_DAEMON_SOCKET], 1) == 0);
    world.fds[FD_MEMFD] = make_memfd("any", 0600, 4096, 0);
    world.fds[FD_SEALED] = make_memfd("any", 0600, HEAP_SIZE, seals);
    world.fds[FD_LABELLED] = make_memfd("liballoc:fake:1001:5001:200000000000", 0600, HEAP_SIZE, seals);
    world.fds[FD_WRONG_LABEL] = make_memfd("liballoc:../:99999999999:-1:zz", 0600, 0, seals);
    world.fds[FD_OLD_OPEN_MODE] = make_memfd("liballoc:open:1001:5001:200000000000", 0666, HEAP_SIZE, seals);
    make_old_heap();
}

/* ---- the daemon ---- */

int world_start(struct named_fds *inherited)
{
    int fd = fcntl(world.fds[FD_DAEMON_SOCKET], F_DUPFD_CLOEXEC, 3), r;
    sigset_t signals;

    REQUIRE(fd >= 0 && named_fds_add(inherited, "socket", fd) == 0);
    r = server_init(&world.server, &world_options, inherited);
    /* It takes them to be its own; here they are for libFuzzer. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
    return r;
}

static void start_afresh(void)
{
    struct named_fds inherited = { 0 };
    struct segment *segment = NULL;

    REQUIRE(world_start(&inherited) == 0);
    REQUIRE(registry_create(&world.server.registry, "a", HEAP_SIZE, 0, 1, UID_A, GID_ALLOWED, &segment) == 0);
    REQUIRE(registry_set_acl(segment, &heap_acl) == 0);
    world.heap_id = segment->id;
    world.fds[FD_HEAP] = memfile_reopen(&segment->file, false);
    world.fds[FD_HEAP_READ_ONLY] = memfile_reopen(&segment->file, true);
}

static void stop(void)
{
    close_fd(&world.fds[FD_HEAP]);
    close_fd(&world.fds[FD_HEAP_READ_ONLY]);
    server_deinit(&world.server, LOSE_ALL);
}

static bool is_changed(void)
{
    const struct registry *heaps = &world.server.registry;
    const struct segment *segment = registry_find_id(&world.server.registry, world.heap_id);

    return heaps->count != 1 || heaps->next_serial != 2 || !segment || segment->removed || segment->sealed || segment->unsettled ||
           memcmp(&segment->acl, &heap_acl, sizeof(heap_acl)) != 0 || state_next(&world.server.state, STATE_LIMITS, NULL);
}

/* What the descriptor of a heap allows to do with it for good. */
static bool old_is_sealed(void)
{
    return (fcntl(world.fds[FD_OLD], F_GET_SEALS) & (F_SEAL_WRITE | F_SEAL_SEAL)) != 0;
}

static int find_lowest_free(void)
{
    int fd = dup(world.fds[FD_NULL]), lowest = fd;

    REQUIRE(fd >= 0);
    close_fd(&fd);
    return lowest;
}

void world_note_descriptors(void)
{
    lowest_free = find_lowest_free();
}

void world_check_descriptors(void)
{
    REQUIRE(find_lowest_free() == lowest_free);
}

void world_reset(void)
{
    while (!list_is_empty(&world.server.scrapes))
        scrape_destroy(list_entry(world.server.scrapes.next, struct scrape, node));
    while (!list_is_empty(&world.server.peers))
        peer_destroy(list_entry(world.server.peers.next, struct peer, node));
    REQUIRE(world.server.peer_count == 0);
    REQUIRE(registry_is_valid(&world.server.registry));
    if (is_changed()) {
        stop();
        /* The lost heaps' claims: what is made next need not read past them. */
        REQUIRE(unlink(getenv("LIBALLOC_VSPACE_REGISTRY")) == 0);
        if (old_is_sealed()) {
            close_fd(&world.fds[FD_OLD]);
            make_old_heap();
        }
        start_afresh();
    }
    world_check_descriptors();
}

static void remove_registry(void)
{
    unlink(registry);
}

/* Of our own, unless `run` has chosen one. */
static void choose_registry(void)
{
    int fd;

    if (getenv("LIBALLOC_VSPACE_REGISTRY"))
        return;
    strcpy(registry, "/dev/shm/liballoc-fuzz-XXXXXX");
    fd = mkstemp(registry);
    REQUIRE(fd >= 0);
    close_fd(&fd);
    atexit(remove_registry);
    setenv("LIBALLOC_VSPACE_REGISTRY", registry, 1);
}

void world_prepare(void)
{
    choose_registry();
    unsetenv("NOTIFY_SOCKET");
    syscall(SYS_setgroups, 0, NULL);
    log_open(LOG_ERROR, false);
    make_descriptors();
}

void world_init(void)
{
    world_prepare();
    start_afresh();
}
