/*
 * daemon WHAT SHMSERVER [MIB]: what shmserver and its client library cost, by the wall clock, reclaim by the CPU's. None of it is in the path of an
 * allocation.
 *
 *   requests   one request at a time from one client, beside what the socket alone takes; from one of 1,000 clients; from all 1,000 at once
 *   attach     to a heap that is there: shms_heap_open(); after shms_connect(), to a daemon that sleeps; with the daemon on the client's processor;
 *              and what of it is the library's without the daemon, la_heap_attach_fd()
 *   growth     pairs of an attached client, alone, and while another one makes the heap grow
 *   reclaim    la_heap_recover() after a client of a heap with 1 GiB (MIB) in use was killed
 */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "daemon_process.h"
#include "shmserver/protocol/fdpass.h"
#include "shmserver/protocol/wire.h"

enum { MANY = 1000 };
static size_t in_use = (size_t)1 << 30;

static struct times times;

static void times_begin(void)
{
    times.count = 0;
}

/* ---- requests ---- */

static void ask(struct shms_client *client)
{
    struct shms_heap info = { .struct_size = sizeof(info) };

    daemon_check(shms_heap_info(client, "bench", &info), "info");
}

static void ask_for_a_while(struct shms_client *client)
{
    uint64_t end = daemon_clock() + daemon_wanted_ns(), begin, now;

    times_begin();
    for (now = daemon_clock(); now < end;) {
        begin = now;
        ask(client);
        now = daemon_clock();
        times_add(&times, now - begin);
    }
}

/* All are on their way at once, each client's next when it has its answer: by messages, as the library waits for one. */
static int connect_raw(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct fdpass_set set;
    struct wire_message m;

    strcpy(address.sun_path, path);
    daemon_check(fd, "socket");
    daemon_check(connect(fd, (struct sockaddr *)&address, sizeof(address)), "connect");
    wire_begin(&m, WIRE_HELLO, 0, 0);
    wire_put_u64(&m, TLV_VERSION_MIN, 0, WIRE_VERSION_MAX);
    wire_put_u64(&m, TLV_VERSION_MAX, 0, WIRE_VERSION_MAX);
    if (fdpass_send(fd, &m, -1) < 0 || fdpass_receive(fd, &m, &set) != 1 || m.header.status != 0)
        daemon_check(-1, "hello");
    return fd;
}

static void ask_raw(int fd)
{
    struct wire_message m;

    wire_begin(&m, WIRE_INFO, 0, daemon_clock());
    m.header.version = WIRE_VERSION_MAX;
    wire_put_text(&m, TLV_NAME, "bench");
    if (fdpass_send(fd, &m, -1) < 0)
        daemon_check(-1, "request");
}

/* Return: when it was asked. */
static uint64_t receive_raw(int fd)
{
    struct fdpass_set set;
    struct wire_message m;

    if (fdpass_receive(fd, &m, &set) != 1 || m.header.status != 0)
        daemon_check(-1, "answer");
    return m.header.sequence;
}

static double ask_all(int fds[MANY])
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    uint64_t begin = daemon_clock(), end = begin + daemon_wanted_ns(), now = begin;
    unsigned long answers = 0;

    for (int i = 0; i < MANY; i++) {
        struct epoll_event event = { .events = EPOLLIN, .data.fd = fds[i] };

        daemon_check(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event), "epoll_ctl");
        ask_raw(fds[i]);
    }
    times_begin();
    while (now < end) {
        struct epoll_event ready[64];
        int n = epoll_wait(epoll, ready, 64, -1);

        now = daemon_clock();
        for (int i = 0; i < n; i++) {
            times_add(&times, now - receive_raw(ready[i].data.fd));
            ask_raw(ready[i].data.fd);
            answers++;
        }
    }
    close(epoll);
    for (int i = 0; i < MANY; i++)
        receive_raw(fds[i]);
    return (double)answers / (double)(now - begin) * 1e9;
}

static void print_times(const char *what)
{
    bench_print(times_at(&times, 0.5), "%s, median", what);
    bench_print(times_at(&times, 0.99), "%s, 99 %%", what);
}

/* Of the daemon, which has our limit, it takes two descriptors each. */
static bool many_can_connect(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur >= 2 * MANY + 100)
        return true;
    fprintf(stderr, "daemon: 1,000 clients are left out, they need %d descriptors (ulimit -Hn)\n", 2 * MANY + 100);
    return false;
}

/* A byte there and back to a process that does nothing else: what two wake-ups take here. */
static void echo_for_a_while(void)
{
    uint64_t begin, end = daemon_clock() + daemon_wanted_ns();
    int pair[2];
    char byte = 0;
    pid_t pid;

    daemon_check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), "socketpair");
    pid = fork();
    daemon_check(pid, "fork");
    if (pid == 0) {
        close(pair[0]);
        while (read(pair[1], &byte, 1) == 1 && write(pair[1], &byte, 1) == 1)
            ;
        _exit(0);
    }
    close(pair[1]);
    times_begin();
    while ((begin = daemon_clock()) < end) {
        if (write(pair[0], &byte, 1) != 1 || read(pair[0], &byte, 1) != 1)
            daemon_check(-1, "echo");
        times_add(&times, daemon_clock() - begin);
    }
    close(pair[0]);
    waitpid(pid, NULL, 0);
}

static void requests(const struct daemon_process *d)
{
    struct shms_client *client = daemon_connect();
    static int fds[MANY];

    echo_for_a_while();
    print_times("a byte there and back by a socket, no daemon");
    daemon_check(shms_heap_create(client, "bench", LA_HEAP_MIN_SIZE), "create");
    ask_for_a_while(client);
    print_times("request of one client");
    bench_print((double)times.count / (double)daemon_wanted_ns() * 1e9, "requests per second, one client");
    if (many_can_connect()) {
        for (int i = 0; i < MANY; i++)
            fds[i] = connect_raw(d->socket);
        ask_for_a_while(client);
        print_times("request beside 1,000 idle clients");
        bench_print(ask_all(fds), "requests per second, 1,000 clients at once");
        print_times("request of 1,000 clients at once");
    }
    shms_disconnect(client);
}

/* ---- attaching ---- */

/* What is left of it when the daemon's part is done. */
static void attach_only(int fd)
{
    uint64_t begin, end = daemon_clock() + daemon_wanted_ns();
    char path[32];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    times_begin();
    while ((begin = daemon_clock()) < end) {
        int own = open(path, O_RDWR | O_CLOEXEC);
        struct la_heap *heap;

        daemon_check(own, path);
        begin = daemon_clock();
        daemon_check(la_heap_attach_fd(own, 0, &heap), "la_heap_attach_fd");
        times_add(&times, daemon_clock() - begin);
        daemon_check(la_heap_detach(heap), "la_heap_detach");
    }
}

static void attach_by_name(struct shms_client *client, struct times *closing)
{
    uint64_t begin, now, end = daemon_clock() + daemon_wanted_ns();

    times_begin();
    for (now = daemon_clock(); now < end;) {
        struct la_heap *heap;

        begin = now;
        heap = daemon_open(client, "bench", 0);
        times_add(&times, daemon_clock() - begin);
        begin = daemon_clock();
        daemon_check(shms_heap_close(client, heap), "close");
        now = daemon_clock();
        times_add(closing, now - begin);
    }
}

/* What a program pays that starts: the daemon sleeps, and so does its processor. */
static void connect_and_attach(void)
{
    const struct timespec pause = { .tv_nsec = 1000000 };
    uint64_t begin, end = daemon_clock() + daemon_wanted_ns();

    times_begin();
    while (daemon_clock() < end) {
        struct shms_client *client;
        struct la_heap *heap;

        nanosleep(&pause, NULL);
        begin = daemon_clock();
        client = daemon_connect();
        heap = daemon_open(client, "bench", 0);
        times_add(&times, daemon_clock() - begin);
        daemon_check(shms_heap_close(client, heap), "close");
        shms_disconnect(client);
    }
}

/* This process and the daemon run on one processor, which goes from one to the other without a sleep in between. */
static void share_processor(pid_t daemon, cpu_set_t *before)
{
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    daemon_check(sched_getaffinity(0, sizeof(*before), before), "affinity");
    daemon_check(sched_setaffinity(0, sizeof(one), &one) | sched_setaffinity(daemon, sizeof(one), &one), "affinity");
}

static void leave_processor(pid_t daemon, const cpu_set_t *before)
{
    daemon_check(sched_setaffinity(0, sizeof(*before), before) | sched_setaffinity(daemon, sizeof(*before), before), "affinity");
}

static void attach(const struct daemon_process *d)
{
    struct shms_client *client = daemon_connect();
    struct la_heap_info info = { .struct_size = sizeof(info) };
    struct times *closing = calloc(1, sizeof(*closing));
    struct la_heap *heap;
    cpu_set_t before;
    int fd;

    daemon_check(closing ? 0 : -1, "memory");
    heap = daemon_open(client, "bench", (size_t)64 << 20);
    daemon_check(la_heap_info(heap, &info), "info");
    fd = la_heap_descriptor(info.id);
    daemon_check(fd, "descriptor");
    daemon_check(shms_heap_close(client, heap), "close");
    attach_by_name(client, closing);
    print_times("attach to a heap by name");
    bench_print(times_at(closing, 0.5), "detach from it, median");
    connect_and_attach();
    print_times("connect to a sleeping daemon and attach by name");
    share_processor(d->pid, &before);
    attach_by_name(client, closing);
    print_times("attach by name on the daemon's processor");
    leave_processor(d->pid, &before);
    attach_only(fd);
    print_times("attach by a descriptor, without the daemon");
    close(fd);
    free(closing);
    shms_disconnect(client);
}

/* ---- growth ---- */

static double pairs_for_a_while(struct la_heap *heap, struct rusage *used)
{
    uint64_t end = daemon_clock() + daemon_wanted_ns(), begin;
    struct rusage before;

    getrusage(RUSAGE_SELF, &before);
    times_begin();
    while ((begin = daemon_clock()) < end) {
        for (int i = 0; i < 1000; i++) {
            void *block = la_heap_alloc(heap, 64);

            bench_touch(block);
            la_free(block);
        }
        times_add(&times, daemon_clock() - begin);
    }
    getrusage(RUSAGE_SELF, used);
    used->ru_minflt -= before.ru_minflt;
    used->ru_majflt -= before.ru_majflt;
    return times_at(&times, 0.5) / 1000;
}

/* Grows to 1 GiB, gives all back, and again: macro blocks are committed once, taken each time. */
static void grow_for_ever(void)
{
    struct la_heap *heap = daemon_open(daemon_connect(), "bench", 0);
    static void *blocks[900];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++)
            blocks[i] = la_heap_alloc(heap, 1 << 20);
        for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++)
            la_free(blocks[i]);
    }
}

static void growth(const struct daemon_process *d)
{
    struct shms_client *client = daemon_connect();
    struct la_heap *heap = daemon_open(client, "bench", (size_t)1 << 30);
    struct rusage used;
    pid_t pid;

    double alone;

    (void)d;
    bench_pin(0);
    pairs_for_a_while(heap, &used);
    alone = pairs_for_a_while(heap, &used);
    bench_print(alone, "pair of an attached client, the heap does not grow");
    pid = fork();
    daemon_check(pid, "fork");
    if (pid == 0) {
        bench_pin(1);
        grow_for_ever();
    }
    bench_print(pairs_for_a_while(heap, &used), "pair of an attached client, another one makes it grow");
    bench_print((double)used.ru_minflt + (double)used.ru_majflt, "page faults of the attached client meanwhile");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    shms_disconnect(client);
}

/* ---- reclaim ---- */

/* Fills the heap, block by block of one size, with @live bytes that stay, and holds @held blocks besides. */
struct dead_client {
    size_t live, block;
    unsigned held;
};

static void live(const struct dead_client *c, int ready)
{
    struct shms_client *client = daemon_connect();
    struct la_heap *heap = daemon_open(client, "bench", 0);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (size_t size = 0; size < c->live; size += c->block)
        if (!la_heap_alloc(heap, c->block))
            _exit(3);
    for (unsigned i = 0; i < c->held; i++)
        if (!la_heap_hold(heap, 64))
            _exit(4);
    /* So the daemon has done with the one before, and no longer has the description that it sent us, which carries our certificate. */
    ask(client);
    if (write(ready, "!", 1) != 1)
        _exit(5);
    for (;;)
        pause();
}

/* The daemon is stopped meanwhile, so that it is not the one that recovers. After waitpid() the certificate is free, or soon. */
static double reclaim_one(const struct daemon_process *d, struct la_heap *heap, const struct dead_client *c)
{
    uint64_t begin, end;
    int ready[2], n;
    char byte;
    pid_t pid;

    daemon_check(pipe(ready), "pipe");
    pid = fork();
    daemon_check(pid, "fork");
    if (pid == 0)
        live(c, ready[1]);
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1)
        daemon_check(-1, "the client that is to die");
    close(ready[0]);
    kill(d->pid, SIGSTOP);
    waitpid(d->pid, NULL, WUNTRACED);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    /* Whoever looks into /proc at the wrong moment keeps it from going for a while. */
    do {
        begin = bench_cpu_clock();
        n = la_heap_recover(heap, NULL, NULL);
        end = bench_cpu_clock();
    } while (n == 0);
    kill(d->pid, SIGCONT);
    daemon_check(n, "recover");
    return (double)(end - begin);
}

static void reclaim(const struct daemon_process *d)
{
    const struct { struct dead_client client; const char *what; } cases[] = {
        { { 0, 64, 1000 }, "in an empty heap" },
        { { in_use, 1 << 16, 1000 }, "beside 1 GiB in blocks of 64 KiB" },
        { { in_use, 1 << 10, 1000 }, "beside 1 GiB in blocks of 1 KiB" },
        { { in_use, 64, 1000 }, "beside 1 GiB in blocks of 64 B" },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct shms_client *client = daemon_connect();
        struct la_heap *heap = daemon_open(client, "bench", 2 * in_use);

        bench_print(reclaim_one(d, heap, &cases[i].client), "reclaim of 1,000 blocks of the dead, %s", cases[i].what);
        bench_print(reclaim_one(d, heap, &cases[0].client), "the next one, %s", cases[i].what);
        daemon_check(shms_heap_close(client, heap), "close");
        daemon_check(shms_heap_remove(client, "bench"), "remove");
        shms_disconnect(client);
    }
}

int main(int argc, char **argv)
{
    static const struct { const char *name; void (*run)(const struct daemon_process *d); } questions[] = {
        { "requests", requests }, { "attach", attach }, { "growth", growth }, { "reclaim", reclaim },
    };
    /* They are not what is measured. */
    static const char *const no_limits[DAEMON_OPTIONS + 1] = { "--max-clients=4000", "--max-clients-total=4000", "--max-requests=1048576" };
    struct daemon_process d;

    for (size_t i = 0; argc >= 3 && i < sizeof(questions) / sizeof(questions[0]); i++)
        if (strcmp(argv[1], questions[i].name) == 0) {
            in_use = bench_argument(argc, argv, 3, 1024) << 20;
            daemon_begin(&d, argv[2], no_limits);
            questions[i].run(&d);
            daemon_finish(&d);
            return 0;
        }
    fprintf(stderr, "usage: daemon requests|attach|growth|reclaim SHMSERVER [MIB]\n");
    return 2;
}
