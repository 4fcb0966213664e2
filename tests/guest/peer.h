/*
 * peer.h - a second process that reaches this one by an RDMA device only: it is told addresses and keys, and maps nothing of ours.
 *
 * It is this program anew (fork and exec, as no device that was open before works in a child), connected by rdma_cm, which finds the device by its
 * address and works over RoCE and iWARP alike. After an operation that failed a connection is of no more use: start another peer.
 */
#ifndef TESTS_GUEST_PEER_H
#define TESTS_GUEST_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <rdma/rdma_cma.h>

enum { PEER_SIZE_MAX = 1 << 20 };       /* bytes that it moves at once */

struct peer {
    pid_t pid;
    int orders;                         /* a socket */
    struct rdma_cm_id *listener, *connection;       /* connection->pd: the domain in which it reaches memory */
};

/* Connected on return; fails the test otherwise. */
void peer_start(struct peer *peer, const char *address);
/* After the memory that is registered in its domain is deregistered. */
void peer_stop(struct peer *peer);

/*
 * The peer writes bytes that only @seed tells, and reads the first back, as a write may be complete before it has arrived; or it reads and compares.
 * Return: what its device said; *same: the bytes were those of @seed.
 */
enum ibv_wc_status peer_write(struct peer *peer, const void *at, uint64_t key, size_t size, unsigned seed);
enum ibv_wc_status peer_read(struct peer *peer, const void *at, uint64_t key, size_t size, unsigned seed, bool *same);
/* Our device sends @size bytes at @at with our own key, the peer receives and compares. */
enum ibv_wc_status peer_receive(struct peer *peer, const void *at, uint64_t local_key, size_t size, unsigned seed, bool *same);

/* The bytes of @seed, here. */
void peer_fill(void *at, size_t size, unsigned seed);
bool peer_is_filled(const void *at, size_t size, unsigned seed);

/* First in main(): in the second process it does not return. */
void peer_main(int argc, char **argv);

#endif
