/*
 * exchange TRANSPORT: one object from one process to the other. The processes are unrelated but for the transport.
 *
 *   queue   a block of 64 B of a shared heap, allocated (held) by the one and freed by the other, through la_queue_push() and la_queue_pop()
 *   pipe    a message of 8 B through a pipe (FIFO)
 *   socket  the same through a Unix stream socket
 *
 * A message of 8 B hands over a number; what it says would have to be allocated, written and found as well, which is not measured for these two.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "bench.h"
#include "shared_liballoc.h"

#include <liballoc/queue.h>

enum { HEAP_BYTES = 64 << 20, CAPACITY = 4096, OBJECT_BYTES = 64 };

static void fail(const char *what)
{
    fprintf(stderr, "exchange: %s (errno %d)\n", what, errno);
    exit(2);
}

/* ---- the queue: [0] from the first process to the second, [1] back ---- */

static struct la_queue *queues[2];

static void open_queues(void)
{
    static const char *const names[2] = { "there", "back" };
    char name[64];

    snprintf(name, sizeof(name), "bench-exchange-%d", (int)bench_first_pid());
    if (bench_is_first()) {
        backend_create(name, HEAP_BYTES);
        for (int i = 0; i < 2; i++)
            backend_check(la_queue_create(heap, names[i], CAPACITY, &queues[i]));
    }
    bench_meet();
    if (!bench_is_first()) {
        backend_attach(name);
        for (int i = 0; i < 2; i++)
            backend_check(la_queue_open(heap, names[i], &queues[i]));
    }
    bench_meet();
    if (bench_is_first())
        backend_remove(name);
}

static void push(unsigned way, void *block)
{
    backend_check(la_queue_push(heap, queues[way], block, LA_FOREVER));
}

static void *pop(unsigned way)
{
    void *block = NULL;

    backend_check(la_queue_pop(heap, queues[way], LA_FOREVER, &block));
    return block;
}

static void queue_stream(struct bench_worker *w, unsigned long operations)
{
    for (unsigned long i = 0; i < operations; i++)
        if (w->index == 0) {
            void *block = la_heap_hold(heap, OBJECT_BYTES);

            if (!block)
                fail("no block");
            bench_touch(block);
            push(0, block);
        } else {
            void *block = pop(0);

            bench_touch(block);
            la_free(block);
        }
}

static void queue_return(struct bench_worker *w, unsigned long operations)
{
    void *block = w->index == 0 ? la_heap_hold(heap, OBJECT_BYTES) : NULL;

    for (unsigned long i = 0; i < operations; i++) {
        if (w->index == 0)
            push(0, block);
        block = pop(w->index == 0 ? 1 : 0);
        bench_touch(block);
        if (w->index != 0)
            push(1, block);
    }
    if (w->index == 0)
        la_free(block);
}

/* ---- pipe and socket ---- */

static int in, out;

static int open_fifo(const char *way, int mode)
{
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/tmp/liballoc-bench-%d-%s", (int)bench_first_pid(), way);
    if (mkfifo(path, 0600) < 0 && errno != EEXIST)
        fail("mkfifo");
    fd = open(path, mode);      /* waits for the other end */
    if (fd < 0)
        fail("fifo");
    bench_meet();
    unlink(path);
    return fd;
}

static void open_pipes(void)
{
    bool first = bench_is_first();
    int there = open_fifo("there", first ? O_WRONLY : O_RDONLY), back = open_fifo("back", first ? O_RDONLY : O_WRONLY);

    in = first ? back : there;
    out = first ? there : back;
}

static void open_socket(void)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    /* Abstract: no file. */
    snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "liballoc-bench-%d", (int)bench_first_pid());
    if (fd < 0 || (bench_is_first() && (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 1) < 0)))
        fail("socket");
    bench_meet();
    if (!bench_is_first() && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        fail("connect");
    in = out = bench_is_first() ? accept4(fd, NULL, NULL, SOCK_CLOEXEC) : fd;
    if (in < 0)
        fail("accept");
}

static void send_number(uint64_t number)
{
    if (write(out, &number, sizeof(number)) != sizeof(number))
        fail("write");
}

static uint64_t receive_number(void)
{
    uint64_t number = 0;

    if (read(in, &number, sizeof(number)) != sizeof(number))
        fail("read");
    return number;
}

static void file_stream(struct bench_worker *w, unsigned long operations)
{
    for (unsigned long i = 0; i < operations; i++)
        if (w->index == 0)
            send_number(i);
        else
            receive_number();
}

static void file_return(struct bench_worker *w, unsigned long operations)
{
    for (unsigned long i = 0; i < operations; i++)
        if (w->index == 0) {
            send_number(i);
            receive_number();
        } else {
            send_number(receive_number());
        }
}

int main(int argc, char **argv)
{
    const char *transport = argc > 1 ? argv[1] : "queue";
    bool queue = strcmp(transport, "queue") == 0;
    struct bench_case stream = { .workers = 2, .shared_operations = true, .work = queue ? queue_stream : file_stream };
    struct bench_case there_and_back = { .workers = 2, .shared_operations = true, .work = queue ? queue_return : file_return };

    bench_start_processes(argv);
    if (queue)
        open_queues();
    else if (strcmp(transport, "pipe") == 0)
        open_pipes();
    else
        open_socket();
    bench_print(bench_measure(&stream), "hand-over of an object");
    bench_print(bench_measure(&there_and_back), "hand-over there and back");
    bench_finish_processes();
    return 0;
}
