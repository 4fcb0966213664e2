/*
 * main.c - shmserver: options, then server.c. shmserver(8) tells users what it does.
 */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <liballoc/error.h>

#include "shmserver/daemon/log.h"
#include "shmserver/daemon/notify.h"
#include "shmserver/daemon/server.h"

const char *argp_program_version = "shmserver (liballoc) " SERVER_VERSION;

struct options {
    struct server_options server;
    enum log_level log;
    bool background;
};

enum { OPTION_GROUP = 256, OPTION_CLIENTS, OPTION_CLIENTS_TOTAL, OPTION_HEAPS, OPTION_HEAPS_TOTAL, OPTION_BYTES, OPTION_REQUESTS };

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
    { "max-requests", OPTION_REQUESTS, "N", 0, "Requests per second of a user; more wait (2000)", 1 },
    { "verbose", 'v', NULL, 0, "Say more on standard error", 2 },
    { "quiet", 'q', NULL, 0, "Say errors and warnings only", 2 },
    { 0 },
};

static unsigned parse_count(struct argp_state *state, const char *text)
{
    char *end;
    unsigned long n;

    errno = 0;
    n = strtoul(text, &end, 10);
    if (errno || *end || end == text || *text == '-' || n == 0 || n > 1u << 20)
        argp_error(state, "\"%s\" is no number from 1 to 1048576", text);
    return (unsigned)n;
}

static uint64_t parse_bytes(struct argp_state *state, const char *text)
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
        argp_error(state, "\"%s\" is no size such as 512M, 64G or 1T", text);
    return (uint64_t)n << shift;
}

static gid_t parse_group(struct argp_state *state, const char *text)
{
    const struct group *group = getgrnam(text);
    char *end;
    unsigned long id = strtoul(text, &end, 10);

    if (group)
        return group->gr_gid;
    if (*text < '0' || *text > '9' || *end || id >= UINT32_MAX)
        argp_error(state, "there is no group \"%s\"", text);
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
        options->server.limits.clients = parse_count(state, arg);
        break;
    case OPTION_CLIENTS_TOTAL:
        options->server.max_peers = parse_count(state, arg);
        break;
    case OPTION_HEAPS:
        options->server.limits.heaps = parse_count(state, arg);
        break;
    case OPTION_HEAPS_TOTAL:
        options->server.max_segments = parse_count(state, arg);
        break;
    case OPTION_BYTES:
        options->server.limits.bytes = parse_bytes(state, arg);
        break;
    case OPTION_REQUESTS:
        options->server.limits.requests = parse_count(state, arg);
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

int main(int argc, char **argv)
{
    static const struct argp argp = { .options = argp_options, .parser = parse_option,
        .doc = "Keeps heaps that processes share, hands them out by name, and frees what a dead process held." };
    struct options options = { .log = LOG_INFO,
        .server = { .limits = { .clients = 256, .heaps = 64, .bytes = (uint64_t)1 << 40, .requests = 2000 }, .max_peers = 1024, .max_segments = 256 } };
    static struct server server;
    int report = -1, r;

    argp_parse(&argp, argc, argv, 0, NULL, &options);
    log_open(options.log, getenv("JOURNAL_STREAM") != NULL);
    if (options.background)
        report = go_to_background();
    r = server_init(&server, &options.server);
    report_start(report, r < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
    if (r < 0) {
        log_write(LOG_ERROR, "%s", la_last_error());
        return EXIT_FAILURE;
    }
    log_write(LOG_INFO, "listening on %s", server.listener.path);
    notify_send("READY=1\nSTATUS=Waiting for clients");
    r = server_run(&server);
    if (r < 0)
        log_write(LOG_ERROR, "%s", la_last_error());
    notify_send("STOPPING=1");
    server_deinit(&server);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
