/*
 * card.h - RDMA devices, one after the other, each with a protection domain. By libibverbs, found when the test runs.
 */
#ifndef TESTS_GPU_CARD_H
#define TESTS_GPU_CARD_H

struct ibv_context;
struct ibv_pd;

struct card {
    char name[64];
    struct ibv_context *context;
    struct ibv_pd *domain;
};

/* Return: 0, -1: there is no device of this number that can be opened. */
int card_open(int number, struct card *ret);
void card_close(const struct card *card);

#endif
