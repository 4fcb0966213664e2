/*
 * state.c - fuzz target: the books of an earlier daemon, which may say anything, and the files that came with them.
 *
 * The input is the size of the file, what is in it, and what of each record is made to fit the heap that is there (else none would ever be found). The daemon
 * starts with it or says why not; then it serves what it has found, writes records, and ends.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include <liballoc/vspace.h>

#include "input.h"
#include "world.h"

#include "shmserver/daemon/view.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STATE_BYTES = STATE_RECORDS * sizeof(struct state_record), RECORDS = 12 };

/* For each record a byte of these. */
enum { FIT_ADDRESS = 1, FIT_SIZE = 2, FIT_ID = 4, FIT_KIND = 8, BRING_FILE = 16 };

static void fit(struct state_record *record, unsigned how, struct named_fds *inherited)
{
    char name[NAMED_FD_NAME_MAX + 1];

    if (how & FIT_ADDRESS)
        record->address = world.old_address;
    if (how & FIT_SIZE)
        record->size = world.old_size;
    if (how & FIT_ID)
        record->id = world.old_id;
    if (how & FIT_KIND)
        record->kind = STATE_HEAP;
    if (how & BRING_FILE) {
        snprintf(name, sizeof(name), "heap-%016lx", (unsigned long)record->id);
        REQUIRE(named_fds_add(inherited, name, world_copy_old()) == 0);
    }
}

/* The header and what follows, as it is; then records that are made to fit. */
static int make_books(struct input *in, struct named_fds *inherited)
{
    const unsigned size = take8(in);
    struct state_record records[1 + RECORDS] = { 0 };
    int fd = memfd_create("books", MFD_CLOEXEC), n = 1;

    REQUIRE(fd >= 0 && ftruncate(fd, size ? (off_t)size * 1000 : STATE_BYTES) == 0);
    take(in, &records[0], 16);
    for (; n <= RECORDS && in->left > 0; n++) {
        unsigned how = take8(in);

        take(in, &records[n], sizeof(records[n]));
        fit(&records[n], how, inherited);
    }
    REQUIRE(pwrite(fd, records, (size_t)n * sizeof(records[0]), 0) > 0);
    return fd;
}

static void use(struct server *server)
{
    const struct state_record record = { .kind = STATE_LIMITS, .id = 4711 };

    REQUIRE(registry_is_valid(&server->registry));
    for (struct segment *s = registry_after(&server->registry, 0); s; s = registry_after(&server->registry, s->serial)) {
        struct shms_heap heap;

        REQUIRE(memchr(s->name, '\0', sizeof(s->name)));
        view_describe(s, &heap);
    }
    REQUIRE(state_put(&server->state, &record) == 0);
    state_drop(&server->state, STATE_LIMITS, 4711);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    world_prepare();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };
    struct named_fds inherited = { 0 };

    world_note_descriptors();
    REQUIRE(named_fds_add(&inherited, "state", make_books(&in, &inherited)) == 0);
    if (world_start(&inherited) == 0) {
        use(&world.server);
        server_deinit(&world.server, LOSE_ALL);
    }
    /* Who could not start has left everything to the next one, the address too. */
    la_vspace_unclaim(world.old_address);
    world_check_descriptors();
    return 0;
}
