#include "shmserver/daemon/state.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "shmserver/daemon/log.h"

#define STATE_MAGIC 0x6574617473736d68u     /* "hmsstate" */
enum { STATE_VERSION = 1, STATE_BYTES = STATE_RECORDS * sizeof(struct state_record) };

_Static_assert(4096 % sizeof(struct state_record) == 0, "I1: no record lies in two pages");

/* In the place of record 0. */
struct state_header {
    uint64_t magic;
    uint32_t version, record_size;
};

static int write_at(const struct state *state, size_t slot, const void *data, size_t size)
{
    if (pwrite(state->fd, data, size, (off_t)(slot * sizeof(struct state_record))) == (ssize_t)size)
        return 0;
    return la_fail(errno ? -errno : -EIO, "cannot write down what belongs to whom (errno %d): is memory full?", errno);
}

/* Records are written from the front on, so memory ends where the first hole begins. */
static void count_slots(struct state *state)
{
    off_t hole = lseek(state->fd, 0, SEEK_HOLE);

    state->slots = hole > 0 ? (size_t)hole / sizeof(struct state_record) : STATE_RECORDS;
}

static int make_file(struct state *state)
{
    const struct state_header header = { STATE_MAGIC, STATE_VERSION, sizeof(struct state_record) };

    state->fd = memfd_create("shmserver:state", MFD_CLOEXEC);
    if (state->fd < 0)
        return la_fail(-errno, "cannot make a memory file (errno %d)", errno);
    if (fchmod(state->fd, 0600) < 0 || ftruncate(state->fd, STATE_BYTES) < 0)
        return la_fail(-errno, "cannot make a memory file of %d bytes (errno %d)", (int)STATE_BYTES, errno);
    return write_at(state, 0, &header, sizeof(header));
}

static int check_file(const struct state *state)
{
    struct state_header header;
    struct stat st;

    if (fstat(state->fd, &st) == 0 && st.st_size == STATE_BYTES && pread(state->fd, &header, sizeof(header), 0) == sizeof(header) &&
        header.magic == STATE_MAGIC && header.version == STATE_VERSION && header.record_size == sizeof(struct state_record))
        return 0;
    return la_fail(-EPROTO, "the daemon before this one kept its books in a way that this one (%s) does not know: run one that does, or end "
                            "the service and start it anew", SERVER_VERSION);
}

int state_open(struct state *state, int fd)
{
    void *map = MAP_FAILED;
    int r;

    *state = (struct state){ .fd = fd };
    r = fd < 0 ? make_file(state) : check_file(state);
    if (r == 0) {
        map = mmap(NULL, STATE_BYTES, PROT_READ, MAP_SHARED, state->fd, 0);
        if (map == MAP_FAILED)
            r = la_fail(-errno, "cannot map a memory file (errno %d)", errno);
    }
    if (r < 0)
        close_fd(&state->fd);
    else
        state->map = map;
    if (r == 0)
        count_slots(state);
    return r;
}

void state_close(struct state *state)
{
    if (state->fd < 0)
        return;
    munmap((void *)(uintptr_t)state->map, STATE_BYTES);
    close_fd(&state->fd);
}

const struct state_record *state_next(const struct state *state, enum state_kind kind, const struct state_record *after)
{
    for (size_t slot = after ? (size_t)(after - state->map) + 1 : 1; state->fd >= 0 && slot < state->slots; slot++)
        if (state->map[slot].kind == kind)
            return &state->map[slot];
    return NULL;
}

static const struct state_record *find(const struct state *state, enum state_kind kind, uint64_t id)
{
    const struct state_record *record = NULL;

    while ((record = state_next(state, kind, record)) && record->id != id)
        ;
    return record;
}

int state_put(struct state *state, const struct state_record *record)
{
    const struct state_record *place = find(state, (enum state_kind)record->kind, record->id);
    int r;

    if (state->fd < 0)
        return 0;
    if (!place)
        place = state_next(state, STATE_FREE, NULL);
    if (!place && state->slots < STATE_RECORDS)
        place = &state->map[state->slots];
    if (!place)
        return la_fail(-ENOSPC, "shmserver has %d heaps and users with limits of their own, which is all it can keep", STATE_RECORDS - 1);
    r = write_at(state, (size_t)(place - state->map), record, sizeof(*record));
    count_slots(state);
    return r;
}

void state_drop(struct state *state, enum state_kind kind, uint64_t id)
{
    const struct state_record *place = find(state, kind, id), nothing = { .kind = STATE_FREE };

    /* Its page is there, so this cannot fail for want of memory. */
    if (place && write_at(state, (size_t)(place - state->map), &nothing, sizeof(nothing)) < 0)
        log_write(LOG_WARNING, "a record of something that is gone stays");
}
