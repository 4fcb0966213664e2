/*
 * daemon-hostile SHMSERVER: what a good client notices of hostile ones.
 *
 * HOSTILE processes do everything in turn that no client of ours does: wrong lengths, no descriptors or too many, half messages, connections by the
 * hundred that are closed early or never speak, huge names, the same request over and over, requests whose answers nobody reads. Every few milliseconds of it
 * alternate with as many without (they are stopped), so that both are measured in the same minutes. The good client asks one thing after
 * another, with a pause; as root the others are another user, as which they have limits of their own.
 */
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "daemon_process.h"
#include "shmserver/protocol/wire.h"

enum { HOSTILE = 2, SLICE_MS = 100, CROWD = 300, NOBODY = 65534 };

static struct times quiet, loaded;
static _Atomic(unsigned long) *attacks;     /* connections made by hostile processes */

/* ---- hostile clients ---- */

static int join(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    strcpy(address.sun_path, path);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        close(fd);
        return -1;
    }
    atomic_fetch_add(attacks, 1);
    return fd;
}

static void greet(int fd)
{
    struct wire_message m;

    wire_begin(&m, WIRE_HELLO, 0, 0);
    wire_put_u64(&m, TLV_VERSION_MIN, 0, WIRE_VERSION_MAX);
    wire_put_u64(&m, TLV_VERSION_MAX, 0, WIRE_VERSION_MAX);
    send(fd, m.bytes, m.header.length, MSG_NOSIGNAL);
}

static void begin(struct wire_message *m, enum wire_type type)
{
    wire_begin(m, type, 0, 1);
    m->header.version = WIRE_VERSION_MAX;
}

static void send_descriptors(int fd, const struct wire_message *m, int count)
{
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(16 * sizeof(int))];
    } control = { .aligned = { .cmsg_len = CMSG_LEN((size_t)count * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
    struct iovec io = { (void *)m->bytes, m->header.length };
    struct msghdr message = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control.bytes,
                              .msg_controllen = CMSG_SPACE((size_t)count * sizeof(int)) };

    for (int i = 0; i < count; i++)
        ((int *)CMSG_DATA(&control.aligned))[i] = STDIN_FILENO;
    sendmsg(fd, &message, MSG_NOSIGNAL);
}

enum attack { WRONG_LENGTH, NO_DESCRIPTOR, MANY_DESCRIPTORS, HALF_MESSAGE, NO_MESSAGE, HUGE_NAME, REPLAY, NOT_READING, ATTACKS };

static void attack_with(int fd, enum attack attack)
{
    struct wire_message m;
    char name[3000];

    begin(&m, WIRE_INFO);
    wire_put_text(&m, TLV_NAME, "good");
    switch (attack) {
    case WRONG_LENGTH:
        m.header.length += 8;
        send(fd, m.bytes, 40, MSG_NOSIGNAL);
        break;
    case NO_DESCRIPTOR:
        begin(&m, WIRE_RESUME);
        send(fd, m.bytes, m.header.length, MSG_NOSIGNAL);
        break;
    case MANY_DESCRIPTORS:
        send_descriptors(fd, &m, 16);
        break;
    case HALF_MESSAGE:
        send(fd, m.bytes, m.header.length / 2, MSG_NOSIGNAL);
        break;
    case HUGE_NAME:
        memset(name, 'n', sizeof(name));
        begin(&m, WIRE_CREATE);
        wire_put(&m, TLV_NAME, 0, name, sizeof(name));
        send(fd, m.bytes, m.header.length, MSG_NOSIGNAL);
        break;
    case REPLAY:
    case NOT_READING:
        begin(&m, attack == REPLAY ? WIRE_CREATE : WIRE_PROCESSES);
        wire_put_text(&m, TLV_NAME, "replayed");
        wire_put_u64(&m, TLV_SIZE, 0, LA_HEAP_MIN_SIZE);
        wire_put_u64(&m, TLV_KEY, 0, 4711);
        for (int i = 0; i < 20; i++) {
            send(fd, m.bytes, m.header.length, MSG_NOSIGNAL);
            if (attack == REPLAY)
                recv(fd, name, sizeof(name), 0);
        }
        break;
    default:
        break;
    }
}

static void attack_for_ever(const char *path)
{
    static int crowd[CROWD];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        for (int i = 0; i < 4 * ATTACKS; i++) {
            int fd = join(path);

            if (fd < 0)
                continue;
            greet(fd);
            attack_with(fd, (enum attack)(i % ATTACKS));
            close(fd);
        }
        /* As many as the daemon takes, and more, half of which never speak. */
        for (int i = 0; i < CROWD; i++) {
            crowd[i] = join(path);
            if (crowd[i] >= 0 && i % 2)
                greet(crowd[i]);
        }
        for (int i = 0; i < CROWD; i++)
            if (crowd[i] >= 0) {
                attack_with(crowd[i], (enum attack)(i % ATTACKS));
                close(crowd[i]);
            }
    }
}

/* ---- the good one ---- */

/* Less often than it may: more would have to wait. */
static void ask_for_a_slice(struct shms_client *client, struct times *times)
{
    const struct timespec pause = { .tv_nsec = 1000000 };

    for (uint64_t begin, end = daemon_clock() + (uint64_t)SLICE_MS * 1000000; (begin = daemon_clock()) < end;) {
        struct shms_heap info = { .struct_size = sizeof(info) };

        daemon_check(shms_heap_info(client, "good", &info), "the good client");
        times_add(times, daemon_clock() - begin);
        nanosleep(&pause, NULL);
    }
}

/*
 * Of daemon and good client, where it is allowed: what is measured is how long the daemon makes others wait, not how many processes share the processors
 * (the hostile ones alone are more than two).
 */
static void put_first(pid_t pid)
{
    const struct sched_param first = { .sched_priority = 1 };

    if (sched_setscheduler(pid, SCHED_RR, &first) < 0)
        fprintf(stderr, "daemon-hostile: no real-time priority (errno %d): other programs are measured too\n", errno);
}

static void become_nobody(void)
{
    if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0))
        daemon_check(-1, "setuid");
}

static void measure(const struct daemon_process *d)
{
    struct shms_client *client = daemon_connect();
    uint64_t end = daemon_clock() + 5 * daemon_wanted_ns();
    pid_t pids[HOSTILE];

    put_first(d->pid);
    daemon_check(shms_heap_create(client, "good", LA_HEAP_MIN_SIZE), "create");
    attacks = mmap(NULL, sizeof(*attacks), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    daemon_check(attacks == MAP_FAILED ? -1 : 0, "mmap");
    for (int i = 0; i < HOSTILE; i++) {
        pids[i] = fork();
        daemon_check(pids[i], "fork");
        if (pids[i] == 0) {
            become_nobody();
            attack_for_ever(d->socket);
        }
    }
    put_first(0);
    do {
        for (int i = 0; i < HOSTILE; i++) {
            kill(pids[i], SIGSTOP);
            waitpid(pids[i], NULL, WUNTRACED);
        }
        ask_for_a_slice(client, &quiet);
        for (int i = 0; i < HOSTILE; i++)
            kill(pids[i], SIGCONT);
        ask_for_a_slice(client, &loaded);
    } while (daemon_clock() < end);
    for (int i = 0; i < HOSTILE; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
    shms_disconnect(client);
}

int main(int argc, char **argv)
{
    static const char *const options[DAEMON_OPTIONS + 1] = { "--max-clients=256", "--allow-group=65534" };
    struct daemon_process d;

    if (argc != 2) {
        fprintf(stderr, "usage: daemon-hostile SHMSERVER\n");
        return 2;
    }
    daemon_begin(&d, argv[1], options);
    measure(&d);
    bench_print((double)*attacks / 2.5e-9 / (double)daemon_wanted_ns(), "hostile connections per second");
    bench_print(times_at(&quiet, 0.5), "good client alone, median");
    bench_print(times_at(&loaded, 0.5), "good client beside hostile ones, median");
    bench_print(times_at(&quiet, 0.99), "good client alone, 99 %%");
    bench_print(times_at(&loaded, 0.99), "good client beside hostile ones, 99 %%");
    bench_print(times_at(&loaded, 0.99) / times_at(&quiet, 0.99), "good client beside hostile ones, times the 99 %% alone");
    daemon_finish(&d);
    return 0;
}
