/*
 * main.c - shmserver: options, then server.c. shmserver(8) tells users what it does.
 */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <liballoc/error.h>

#include "shmserver/daemon/keeper.h"
#include "shmserver/daemon/log.h"
#include "shmserver/daemon/named_fds.h"
#include "shmserver/daemon/notify.h"
#include "shmserver/daemon/server.h"

const char *argp_program_version = "shmserver (liballoc) " SERVER_VERSION;

struct options {
    struct server_options server;
    enum log_level log;
    bool background;
    enum { KEEPER_AUTO, KEEPER_YES, KEEPER_NO } keeper;
    pid_t kept_by;          /* the keeper that has started us; 0: none */
};

enum { OPTION_GROUP = 256, OPTION_CLIENTS, OPTION_CLIENTS_TOTAL, OPTION_HEAPS, OPTION_HEAPS_TOTAL, OPTION_BYTES, OPTION_REQUESTS,
       OPTION_COMMITTED, OPTION_OVER, OPTION_HUGE,
       OPTION_KEEPER, OPTION_NO_KEEPER, OPTION_KEPT_BY };

static const struct argp_option argp_options[] = {
    { "socket", 's', "PATH", 0, "Where clients connect; default: $SHMSERVER_SOCKET, else $XDG_RUNTIME_DIR/shmserver.sock, else "
                                "/run/shmserver/shmserver.sock", 0 },
    { "background", 'b', NULL, 0, "Return as soon as clients can connect, and go on in the background", 0 },
    { "allow-group", OPTION_GROUP, "GROUP", 0, "Let the members of GROUP use this daemon, beside its own user and root", 0 },
    { "max-clients", OPTION_CLIENTS, "N", 0, "Connections per user (256)", 1 },
    { "max-clients-total", OPTION_CLIENTS_TOTAL, "N", 0, "Connections of all users (1024)", 1 },
    { "max-heaps", OPTION_HEAPS, "N", 0, "Heaps per user (64)", 1 },
    { "max-heaps-total", OPTION_HEAPS_TOTAL, "N", 0, "Heaps of all users (256)", 1 },
    { "max-bytes", OPTION_BYTES, "SIZE", 0, "Sum of the sizes of a user's heaps (1T)", 1 },
    { "max-huge", OPTION_HUGE, "SIZE", 0, "Sum of the sizes of a user's heaps of huge pages; 0: he may have none (no limit but --max-bytes)", 1 },
    { "max-committed", OPTION_COMMITTED, "SIZE", 0, "Memory behind a user's heaps, above which he is told of (no limit)", 1 },
    { "over-committed", OPTION_OVER, "WHAT", 0, "What happens to him above it: tell (an event, no more), kick or kill", 1 },
    { "max-requests", OPTION_REQUESTS, "N", 0, "Requests per second of a user; more wait (2000)", 1 },
    { "keeper", OPTION_KEEPER, NULL, 0, "Have a second process keep the heaps, and start the daemon again when it dies (the default without a "
                                        "service manager)", 2 },
    { "no-keeper", OPTION_NO_KEEPER, NULL, 0, "Do without: heaps that nobody is attached to end with the daemon", 2 },
    { KEPT_BY, OPTION_KEPT_BY, "PID", OPTION_HIDDEN, "Started by that keeper", 2 },
    { "verbose", 'v', NULL, 0, "Say more on standard error", 3 },
    { "quiet", 'q', NULL, 0, "Say errors and warnings only", 3 },
    { 0 },
};

/* The second one: the names of their files, handed from daemon to daemon, fit into one variable of the environment. */
enum { MAX_COUNT = 1 << 20, MAX_HEAPS_TOTAL = 4096 };

static const char *option_name(int key)
{
    const struct argp_option *option = argp_options;

    while (option->key != key)
        option++;
    return option->name;
}

static unsigned parse_count(struct argp_state *state, int key, const char *text, unsigned max)
{
    char *end;
    unsigned long n;

    errno = 0;
    n = strtoul(text, &end, 10);
    if (errno || *end || end == text || *text == '-' || n == 0 || n > max)
        argp_error(state, "--%s: \"%s\" is no number from 1 to %u", option_name(key), text, max);
    return (unsigned)n;
}

static uint64_t parse_bytes(struct argp_state *state, int key, const char *text)
{
    static const char units[] = "KMGT";
    char *end;
    unsigned long long n;
    unsigned shift = 0;
    const char *unit;

    errno = 0;
    n = strtoull(text, &end, 10);
    unit = *end ? strchr(units, *end) : NULL;
    if (unit) {
        shift = 10 * (unsigned)(unit - units + 1);
        end++;
    }
    if (errno || *end || end == text || *text == '-' || n == 0 || n > UINT64_MAX >> shift)
        argp_error(state, "--%s: \"%s\" is no size such as 512M, 64G or 1T", option_name(key), text);
    return (uint64_t)n << shift;
}

static enum committed_policy parse_policy(struct argp_state *state, const char *text)
{
    static const char *const words[] = { [COMMITTED_TELL] = "tell", [COMMITTED_KICK] = "kick", [COMMITTED_KILL] = "kill" };

    for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
        if (strcmp(text, words[i]) == 0)
            return (enum committed_policy)i;
    argp_error(state, "--%s: \"%s\" is none of tell, kick, kill", option_name(OPTION_OVER), text);
    return COMMITTED_TELL;
}

static gid_t parse_group(struct argp_state *state, const char *text)
{
    const struct group *group = getgrnam(text);
    char *end;
    unsigned long id = strtoul(text, &end, 10);

    if (group)
        return group->gr_gid;
    if (*text < '0' || *text > '9' || *end || id >= UINT32_MAX)
        argp_error(state, "--%s: there is no group \"%s\"", option_name(OPTION_GROUP), text);
    return (gid_t)id;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;

    switch (key) {
    case 's':
        options->server.path = arg;
        break;
    case 'b':
        options->background = true;
        break;
    case 'v':
        options->log = LOG_DEBUG;
        break;
    case 'q':
        options->log = LOG_WARNING;
        break;
    case OPTION_GROUP:
        options->server.access = (struct access){ .by_group = true, .group = parse_group(state, arg) };
        break;
    case OPTION_CLIENTS:
        options->server.limits.clients = parse_count(state, key, arg, MAX_COUNT);
        break;
    case OPTION_CLIENTS_TOTAL:
        options->server.max_peers = parse_count(state, key, arg, MAX_COUNT);
        break;
    case OPTION_HEAPS:
        options->server.limits.heaps = parse_count(state, key, arg, MAX_COUNT);
        break;
    case OPTION_HEAPS_TOTAL:
        options->server.max_segments = parse_count(state, key, arg, MAX_HEAPS_TOTAL);
        break;
    case OPTION_BYTES:
        options->server.limits.bytes = parse_bytes(state, key, arg);
        break;
    case OPTION_HUGE:
        options->server.limits.huge = strcmp(arg, "0") == 0 ? 0 : parse_bytes(state, key, arg);
        break;
    case OPTION_COMMITTED:
        options->server.limits.committed = parse_bytes(state, key, arg);
        break;
    case OPTION_OVER:
        options->server.over_committed = parse_policy(state, arg);
        break;
    case OPTION_REQUESTS:
        options->server.limits.requests = parse_count(state, key, arg, MAX_COUNT);
        break;
    case OPTION_KEEPER:
        options->keeper = KEEPER_YES;
        break;
    case OPTION_NO_KEEPER:
        options->keeper = KEEPER_NO;
        break;
    case OPTION_KEPT_BY:
        options->kept_by = (pid_t)parse_count(state, key, arg, INT32_MAX);
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "what is \"%s\"? shmserver takes options only", arg);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/*
 * The parent returns when the child says how its start went, by one byte: so that a shell script can begin at once, without asking.
 * Return in the child: the descriptor for that byte.
 */
static int go_to_background(void)
{
    unsigned char status = EXIT_FAILURE;
    int ends[2];

    if (pipe(ends) < 0) {
        perror("shmserver: pipe");
        exit(EXIT_FAILURE);
    }
    switch (fork()) {
    case -1:
        perror("shmserver: fork");
        exit(EXIT_FAILURE);
    case 0:
        close(ends[0]);
        setsid();
        /* Standard error stays: it is the log. */
        if (!freopen("/dev/null", "r", stdin) || !freopen("/dev/null", "w", stdout))
            perror("shmserver: /dev/null");
        fcntl(ends[1], F_SETFD, FD_CLOEXEC);
        return ends[1];
    default:
        close(ends[1]);
        if (read(ends[0], &status, 1) != 1)
            status = EXIT_FAILURE;
        _exit(status);
    }
}

static void report_start(int fd, unsigned char status)
{
    if (fd < 0)
        return;
    if (write(fd, &status, 1) != 1)
        log_write(LOG_DEBUG, "nobody waits for our start any more");
    close(fd);
}

/* The file that we were started from, whatever the working folder is later: a newer program may lie there by then. */
static void find_program(char ret[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", ret, PATH_MAX - 1);

    ret[n > 0 ? n : 0] = '\0';
}

/* ---- as a keeper ---- */

static bool wants_keeper(const struct options *options)
{
    const char *manager = secure_getenv("NOTIFY_SOCKET");

    return !options->kept_by && (options->keeper == KEEPER_YES || (options->keeper == KEEPER_AUTO && !(manager && *manager)));
}

static int run_keeper(const struct options *options, const char *program, char **argv, int report)
{
    const struct keeper_options keeper = { .program = program, .argv = argv, .path = options->server.path, .report = report };
    int r = keeper_run(&keeper);

    if (r < 0)
        log_write(LOG_ERROR, "%s", la_last_error());
    return r < 0 ? EXIT_FAILURE : r;
}

/* ---- as a daemon ---- */

static bool keeper_is_gone(const struct options *options)
{
    return options->kept_by && getppid() != options->kept_by;
}

/* Whose keeper was killed becomes one: the program that follows is to start with the options of the first. */
static void forget_keeper(char **argv)
{
    char **to = argv;

    for (char **from = argv; *from; from++)
        if (strncmp(*from, "--" KEPT_BY, sizeof("--" KEPT_BY) - 1) != 0)
            *to++ = *from;
    *to = NULL;
    unsetenv("NOTIFY_SOCKET");
}

/*
 * Put the program that lies there now in our place, with all that we have: it starts as if a service manager had started it. Returns only if
 * it could not be done; then everything goes on as before.
 */
static void start_anew(struct server *server, const struct options *options, const char *program, char **argv)
{
    struct named_fds fds = { 0 };
    int r = server_copy(server, &fds);

    if (r == 0 && access(program, X_OK) < 0)
        r = -errno;
    if (r < 0) {
        log_write(LOG_ERROR, "this process goes on, as %s cannot be started in its place (errno %d)", program, -r);
        named_fds_close(&fds);
        return;
    }
    log_write(LOG_INFO, keeper_is_gone(options) ? "the keeper is gone: this process becomes the keeper, and starts a daemon"
                                                : "starting anew, with all heaps");
    notify_send("RELOADING=1");
    server_deinit(server, KEEP_ALL);
    if (keeper_is_gone(options)) {
        prctl(PR_SET_PDEATHSIG, 0);
        forget_keeper(argv);
    }
    if (named_fds_pass(&fds) == 0) {
        execv(program, argv);
        /* No way back, but the program that we are is still there. */
        execv("/proc/self/exe", argv);
    }
    log_write(LOG_ERROR, "cannot start %s (errno %d)", program, errno);
    _exit(EXIT_FAILURE);
}

/* Return: as server_run(). */
static int serve(struct server *server, const struct options *options, const char *program, char **argv)
{
    int r;

    /* It may have been killed before we could see the signal. */
    server->restarting = keeper_is_gone(options);
    while ((r = server_run(server)) == SERVER_RESTART) {
        start_anew(server, options, program, argv);
        server->restarting = false;
    }
    return r;
}

/* A service manager that restarts us has all heaps; a keeper ends when we do. */
static enum server_keeps what_to_keep(const struct server *server, const struct options *options)
{
    return server->store.on && !options->kept_by ? KEEP_HEAPS : LOSE_ALL;
}

static int run_daemon(const struct options *options, const char *program, char **argv, int report)
{
    static struct server server;
    struct named_fds inherited;
    int r = named_fds_inherit(&inherited);

    if (r == 0)
        r = server_init(&server, &options->server, &inherited);
    report_start(report, r < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
    if (r < 0) {
        log_write(LOG_ERROR, "%s", la_last_error());
        return EXIT_FAILURE;
    }
    log_write(LOG_INFO, "listening on %s", server.listener.path);
    notify_send("READY=1\nSTATUS=Waiting for clients");
    r = serve(&server, options, program, argv);
    if (r < 0)
        log_write(LOG_ERROR, "%s", la_last_error());
    notify_send("STOPPING=1");
    server_deinit(&server, r < 0 ? KEEP_ALL : what_to_keep(&server, options));
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    static const struct argp argp = { .options = argp_options, .parser = parse_option,
        .doc = "Keeps heaps that processes share, hands them out by name, and frees what a dead process held." };
    struct options options = { .log = LOG_INFO,
        .server = { .limits = { .clients = 256, .heaps = 64, .bytes = (uint64_t)1 << 40, .huge = UINT64_MAX, .requests = 2000,
                                .committed = UINT64_MAX },
                    .max_peers = 1024, .max_segments = 256 } };
    static char program[PATH_MAX];
    int report = -1;

    argp_parse(&argp, argc, argv, 0, NULL, &options);
    log_open(options.log, getenv("JOURNAL_STREAM") != NULL);
    find_program(program);
    /* What took the place of a daemon is in the background already, and what it was started with is for this process only. */
    if (options.background && !options.kept_by && !named_fds_are_there())
        report = go_to_background();
    return wants_keeper(&options) ? run_keeper(&options, program, argv, report) : run_daemon(&options, program, argv, report);
}
