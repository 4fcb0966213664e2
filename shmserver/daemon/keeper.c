#include "shmserver/daemon/keeper.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "shmserver/daemon/listener.h"
#include "shmserver/daemon/log.h"
#include "shmserver/daemon/loop.h"
#include "shmserver/daemon/named_fds.h"
#include "shmserver/daemon/notify.h"
#include "shmserver/protocol/socket_path.h"

/* A daemon that has lived for a while is started again at once, one that dies over and over after longer and longer pauses. */
enum { FIRST_PAUSE_MS = 50, LAST_PAUSE_MS = 10000, STEADY_MS = 10000 };
enum { MESSAGE_MAX = 4096, MESSAGE_FDS = 16 };

struct keeper {
    const struct keeper_options *options;
    struct listener notify;     /* the daemon's NOTIFY_SOCKET */
    int signals;
    struct named_fds kept;
    pid_t daemon;               /* 0: none runs */
    uint64_t started_ms;        /* when it was */
    unsigned pause_ms;          /* before the next start */
    bool was_ready;             /* some daemon of ours was; so a failure is no wrong option */
    bool ending;                /* by a signal */
    int status;                 /* exit status, once the daemon has ended for good; -1: go on */
    int report;
};

/* ---- what the daemon says ---- */

static bool is_kept(const struct keeper *keeper, const char *name, int fd)
{
    struct stat ours, other;

    for (size_t i = 0; i < keeper->kept.count; i++)
        if (strcmp(keeper->kept.list[i].name, name) == 0 && fstat(keeper->kept.list[i].fd, &ours) == 0 && fstat(fd, &other) == 0 &&
            ours.st_dev == other.st_dev && ours.st_ino == other.st_ino)
            return true;
    return false;
}

static void keep(struct keeper *keeper, const char *name, int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!is_kept(keeper, name, fds[i]) && named_fds_add(&keeper->kept, name, steal_fd(&fds[i])) < 0)
            log_write(LOG_ERROR, "the keeper cannot keep %s: out of memory", name);
}

static void report_start(struct keeper *keeper, unsigned char status)
{
    if (keeper->report >= 0 && write(keeper->report, &status, 1) != 1)
        log_write(LOG_DEBUG, "nobody waits for our start any more");
    close_fd(&keeper->report);
}

static void became_ready(struct keeper *keeper)
{
    keeper->was_ready = true;
    report_start(keeper, EXIT_SUCCESS);
}

/* The value of KEY=... in lines; NULL: it is not there. Cut at @size. */
static const char *value_of(const char *text, const char *key, char *ret, size_t size)
{
    size_t length = strlen(key);

    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n')
        if (strncmp(line, key, length) == 0 && line[length] == '=') {
            snprintf(ret, size, "%.*s", (int)strcspn(line + length + 1, "\n"), line + length + 1);
            return ret;
        }
    return NULL;
}

static void obey(struct keeper *keeper, const char *text, int *fds, size_t count)
{
    char name[NAMED_FD_NAME_MAX + 1] = "stored", word[8];

    value_of(text, "FDNAME", name, sizeof(name));
    if (value_of(text, "FDSTORE", word, sizeof(word))) {
        keep(keeper, name, fds, count);
        return;
    }
    if (value_of(text, "FDSTOREREMOVE", word, sizeof(word))) {
        named_fds_drop(&keeper->kept, name);
        return;
    }
    if (value_of(text, "READY", word, sizeof(word)))
        became_ready(keeper);
    /* Who has started us may want to know as well. */
    notify_send(text);
}

/* One message, if it is the daemon's: the socket is our user's, but he may have other processes. false: there is none */
static bool read_message(struct keeper *keeper)
{
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(MESSAGE_FDS * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
    } control;
    char text[MESSAGE_MAX + 1];
    struct iovec io = { text, MESSAGE_MAX };
    struct msghdr message = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes) };
    int fds[MESSAGE_FDS];
    size_t count = 0;
    pid_t sender = 0;
    ssize_t n = recvmsg(keeper->notify.fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (n < 0)
        return false;
    text[n] = '\0';
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET)
            continue;
        if (c->cmsg_type == SCM_CREDENTIALS) {
            sender = ((const struct ucred *)(const void *)CMSG_DATA(c))->pid;
        } else if (c->cmsg_type == SCM_RIGHTS) {
            count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            memcpy(fds, CMSG_DATA(c), count * sizeof(int));
        }
    }
    if (keeper->daemon && sender == keeper->daemon)
        obey(keeper, text, fds, count);
    for (size_t i = 0; i < count; i++)
        close_fd(&fds[i]);
    return true;
}

/* ---- the daemon ---- */

static size_t length_of(char **argv)
{
    size_t n = 0;

    while (argv[n])
        n++;
    return n;
}

/* In the child. Signals stay blocked: the daemon sees them when it can. */
static void become_daemon(const struct keeper *keeper, pid_t parent)
{
    size_t n = length_of(keeper->options->argv);
    char **argv = calloc(n + 2, sizeof(*argv)), kept_by[32];

    /* When the keeper is killed; it may have been before this line. */
    prctl(PR_SET_PDEATHSIG, SIGHUP);
    snprintf(kept_by, sizeof(kept_by), "--%s=%d", KEPT_BY, parent);
    if (!argv || setenv("NOTIFY_SOCKET", keeper->notify.path, 1) < 0 || named_fds_pass(&keeper->kept) < 0)
        _exit(EXIT_FAILURE);
    argv[0] = keeper->options->argv[0];
    argv[1] = kept_by;
    memcpy(&argv[2], &keeper->options->argv[1], (n - 1) * sizeof(*argv));
    execv(keeper->options->program, argv);
    log_write(LOG_ERROR, "cannot start %s (errno %d)", keeper->options->program, errno);
    _exit(EXIT_FAILURE);
}

static void choose_pause(struct keeper *keeper)
{
    if (now_ms() - keeper->started_ms >= STEADY_MS)
        keeper->pause_ms = 0;
    else
        keeper->pause_ms = MIN(MAX(2 * keeper->pause_ms, FIRST_PAUSE_MS), LAST_PAUSE_MS);
}

static void start_daemon(struct keeper *keeper)
{
    pid_t parent = getpid(), pid = fork();

    if (pid == 0)
        become_daemon(keeper, parent);
    keeper->daemon = MAX(pid, 0);
    keeper->started_ms = now_ms();
    if (pid < 0) {
        choose_pause(keeper);
        log_write(LOG_ERROR, "the keeper cannot start a daemon (errno %d), and tries again in %u ms", errno, keeper->pause_ms);
    }
}

static void daemon_has_ended(struct keeper *keeper, int status)
{
    keeper->daemon = 0;
    if (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || !keeper->was_ready)) {
        keeper->status = WEXITSTATUS(status);
        return;
    }
    if (keeper->ending || !keeper->was_ready) {
        keeper->status = EXIT_FAILURE;
        return;
    }
    choose_pause(keeper);
    if (WIFSIGNALED(status))
        log_write(LOG_ERROR, "the daemon was ended by signal %d: another one starts in %u ms, with all heaps", WTERMSIG(status), keeper->pause_ms);
    else
        log_write(LOG_ERROR, "the daemon failed with status %d: another one starts in %u ms, with all heaps", WEXITSTATUS(status),
                  keeper->pause_ms);
}

/* What it has said before it died is in the socket, and counts. */
static void reap(struct keeper *keeper)
{
    int status;

    while (read_message(keeper))
        ;
    if (keeper->daemon && waitpid(keeper->daemon, &status, WNOHANG) == keeper->daemon)
        daemon_has_ended(keeper, status);
}

/* ---- signals ---- */

static void end_daemon(struct keeper *keeper)
{
    if (!keeper->daemon) {
        keeper->status = EXIT_SUCCESS;
    } else {
        /*
         * A stopped daemon would not see SIGTERM. SIGCONT comes first: after it, it could meet a daemon that is ending already, and take back the SIGSTOP
         * by which a tracer attaches (LeakSanitizer does so at exit, and would wait for ever).
         */
        kill(keeper->daemon, SIGCONT);
        kill(keeper->daemon, keeper->ending ? SIGKILL : SIGTERM);
    }
    keeper->ending = true;
}

static void read_signal(struct keeper *keeper)
{
    struct signalfd_siginfo info;

    if (read(keeper->signals, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SIGCHLD)
        reap(keeper);
    else if (info.ssi_signo != SIGHUP)
        end_daemon(keeper);
    else if (keeper->daemon)
        kill(keeper->daemon, SIGHUP);
}

static int watch_signals(void)
{
    static const int watched[] = { SIGTERM, SIGINT, SIGHUP, SIGCHLD };
    sigset_t set;
    int fd;

    sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_SIZE(watched); i++) {
        signal(watched[i], SIG_DFL);
        sigaddset(&set, watched[i]);
    }
    sigprocmask(SIG_SETMASK, &set, NULL);
    fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? la_fail(-errno, "cannot make a descriptor for signals (errno %d)", errno) : fd;
}

/* ---- life ---- */

static int open_notify(struct keeper *keeper, const char *path)
{
    char usual[SOCKET_PATH_MAX], ours[SOCKET_PATH_MAX + sizeof(SOCKET_PATH_KEEPER)];
    const int yes = 1;
    int r;

    socket_path_nth(0, usual, sizeof(usual));
    snprintf(ours, sizeof(ours), "%s" SOCKET_PATH_KEEPER, path ? path : usual);
    r = listener_open(&keeper->notify, ours, SOCK_DGRAM, -1);
    if (r == 0 && setsockopt(keeper->notify.fd, SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes)) < 0)
        r = la_fail(-errno, "cannot ask who sends (errno %d)", errno);
    return r;
}

/* One per heap, and as many once more while they are handed over. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= 16384)
        return;
    limit.rlim_cur = MIN(limit.rlim_max, 16384);
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* Until something comes, or the pause before the next start is over. */
static void turn(struct keeper *keeper)
{
    struct pollfd fds[] = { { .fd = keeper->notify.fd, .events = POLLIN }, { .fd = keeper->signals, .events = POLLIN } };

    if (poll(fds, ARRAY_SIZE(fds), keeper->daemon ? -1 : (int)keeper->pause_ms) == 0)
        start_daemon(keeper);
    /* First what it says: it may end right afterwards. */
    if (fds[0].revents)
        read_message(keeper);
    if (fds[1].revents)
        read_signal(keeper);
}

static void stop(struct keeper *keeper)
{
    report_start(keeper, (unsigned char)MAX(keeper->status, 0));
    named_fds_close(&keeper->kept);
    listener_close(&keeper->notify);
    close_fd(&keeper->signals);
}

int keeper_run(const struct keeper_options *options)
{
    struct keeper keeper = { .options = options, .signals = -1, .status = -1, .report = options->report, .notify = { .fd = -1, .lock = -1 } };
    int r = named_fds_inherit(&keeper.kept);

    /* From an earlier daemon: this one was ready. */
    keeper.was_ready = keeper.kept.count > 0;
    raise_descriptor_limit();
    prctl(PR_SET_NAME, "shmserver-keep");
    if (r == 0)
        r = keeper.signals = watch_signals();
    if (r >= 0)
        r = open_notify(&keeper, options->path);
    if (r < 0)
        keeper.status = EXIT_FAILURE;
    else
        start_daemon(&keeper);
    while (keeper.status < 0)
        turn(&keeper);
    stop(&keeper);
    return r < 0 ? r : keeper.status;
}
