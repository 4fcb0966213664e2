/*
 * runtime.h - the functions of libibverbs that segments call, found when the program runs.
 */
#ifndef SEGMENTS_VERBS_RUNTIME_H
#define SEGMENTS_VERBS_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

struct ibv_context;
struct ibv_device;
struct ibv_pd;

/*
 * What rdma-core's header says, so that it is not needed: laid out so since IBVERBS_1.1 (tests/guest/rdma_test.c compares). The address of one by a
 * dmabuf is the offset in that.
 */
struct verbs_mr {
    struct ibv_context *context;
    struct ibv_pd *pd;
    void *address;
    size_t length;
    uint32_t handle, lkey, rkey;
};

/* By the version of each: the unversioned name is the newest, with whatever arguments it will have. */
#define VERBS_FUNCTIONS(X)                                                                                             \
    X("IBVERBS_1.1", struct ibv_device **, ibv_get_device_list, (int *count))                                          \
    X("IBVERBS_1.1", void, ibv_free_device_list, (struct ibv_device **list))                                           \
    X("IBVERBS_1.1", struct ibv_context *, ibv_open_device, (struct ibv_device *device))                               \
    X("IBVERBS_1.1", int, ibv_close_device, (struct ibv_context *context))                                             \
    X("IBVERBS_1.1", struct ibv_pd *, ibv_alloc_pd, (struct ibv_context *context))                                     \
    X("IBVERBS_1.1", int, ibv_dealloc_pd, (struct ibv_pd *pd))                                                         \
    X("IBVERBS_1.1", struct verbs_mr *, ibv_reg_mr, (struct ibv_pd *pd, void *address, size_t size, int access))       \
    X("IBVERBS_1.1", int, ibv_dereg_mr, (struct verbs_mr *mr))

/* NULL where the library is older. */
#define VERBS_OPTIONAL_FUNCTIONS(X)                                                                                    \
    X("IBVERBS_1.8", struct verbs_mr *, ibv_reg_mr_iova2,                                                              \
      (struct ibv_pd *pd, void *address, size_t size, uint64_t iova, unsigned access))                                 \
    X("IBVERBS_1.12", struct verbs_mr *, ibv_reg_dmabuf_mr,                                                            \
      (struct ibv_pd *pd, uint64_t offset, size_t size, uint64_t iova, int fd, int access))

struct verbs_runtime {
#define X(version, type, name, arguments) type (*name) arguments;
    VERBS_FUNCTIONS(X)
    VERBS_OPTIONAL_FUNCTIONS(X)
#undef X
};

/* Return: 0, -ENODEV (not there, too old). */
int verbs_runtime_open(const struct verbs_runtime **ret);

/* A registration has failed with @error (0: it has not said why): a sentence, and its negative. */
int verbs_fail(int error, const char *call, size_t size, unsigned access);

#endif
