#include "ground.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <liballoc/vspace.h>

enum { VICTIM_SECONDS = 600 };

static int resume_pipe[2] = { -1, -1 };     /* a byte in it lets a peer go on */

void ground_set_path(struct stage *stage, int fd)
{
    snprintf(stage->path, sizeof(stage->path), "/proc/%d/fd/%d", getpid(), fd);
}

pid_t ground_fork(void)
{
    pid_t pid = fork();

    if (pid < 0)
        abort();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(VICTIM_SECONDS);
    }
    return pid;
}

void ground_die(void)
{
    kill(getpid(), SIGKILL);
    _exit(3);
}

static void be_peer(struct stage *stage, const struct scenario *scenario, unsigned i)
{
    struct la_heap_process everybody[2 * MAX_PEERS];
    struct actor actor = { .stage = stage };
    const char *wrong;
    char go;
    int n;

    stage_attach(&actor, LA_HEAP_NO_RECOVER);
    n = la_heap_processes(actor.heap, everybody, 2 * MAX_PEERS);
    for (int j = 0; j < n; j++)
        if (everybody[j].self)
            stage->peer_slot[i] = everybody[j].slot;
    scenario->peers[i](&actor);
    atomic_store(&stage->arrived, i + 1);
    if (scenario->peers_die)
        ground_die();
    /* Until ground_resume_peer(), or for ever. */
    while (read(resume_pipe[0], &go, 1) != 1)
        ;
    wrong = scenario->resume(&actor);
    if (wrong)
        snprintf(stage->verdict.text, sizeof(stage->verdict.text), "%s", wrong);
    _exit(wrong != NULL);
}

static void wait_for_peer(struct stage *stage, const struct scenario *scenario, pid_t pid, unsigned i)
{
    int status = 0;

    while (scenario->peers_die || atomic_load(&stage->arrived) <= i) {
        if (waitpid(pid, &status, scenario->peers_die ? 0 : WNOHANG) != pid) {
            sched_yield();
            continue;
        }
        if (!scenario->peers_die || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
            stage_fail("%s: peer %u ended with status %#x", scenario->name, i, status);
        return;
    }
}

void ground_start_peers(struct stage *stage, const struct scenario *scenario, pid_t pids[MAX_PEERS])
{
    if (resume_pipe[0] < 0 && pipe(resume_pipe) < 0)
        abort();
    for (unsigned i = 0; i < MAX_PEERS && scenario->peers[i]; i++) {
        pids[i] = ground_fork();
        if (pids[i] == 0)
            be_peer(stage, scenario, i);
        stage->peers = i + 1;
        wait_for_peer(stage, scenario, pids[i], i);
    }
    stage->peers_alive = stage->peers && !scenario->peers_die;
}

void ground_end_peers(const struct stage *stage, const pid_t *pids, unsigned count)
{
    for (unsigned i = 0; stage->peers_alive && i < count; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
}

int ground_make_heap(struct stage *stage, const struct scenario *scenario)
{
    uintptr_t base;
    size_t size;
    int fd = memfd_create("crash-heap", MFD_CLOEXEC);

    memset(stage, 0, offsetof(struct stage, tracked));
    stage->heap_size = scenario->heap_size ? scenario->heap_size : LA_HEAP_MIN_SIZE;
    /* No claim: the processes of this test map nothing else, and every process on its own. */
    if (fd < 0 || la_vspace_arena(&base, &size) < 0)
        stage_fail("no heap");
    stage->address = (base + size / 2) & ~(uintptr_t)(LA_VSPACE_GRANULE - 1);
    if (scenario->flags & UNFORMATTED ? ftruncate(fd, (off_t)stage->heap_size) < 0
                                      : la_heap_format(fd, stage->heap_size, stage->address, "crash") < 0)
        stage_fail("no heap");
    ground_set_path(stage, fd);
    return fd;
}

int ground_resume_peer(pid_t pid)
{
    int status;

    if (write(resume_pipe[1], "", 1) != 1 || waitpid(pid, &status, 0) != pid)
        abort();
    return status;
}
