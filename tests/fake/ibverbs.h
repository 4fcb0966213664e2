/* ibverbs.h - what tests may ask and tell the fake libibverbs (ibverbs.c); found by dlsym(). */
#ifndef TESTS_FAKE_IBVERBS_H
#define TESTS_FAKE_IBVERBS_H

struct fake_ibverbs {
    int devices;                /* what ibv_get_device_list() counts */
    int list_error;             /* it fails with this errno; 0: none */
    unsigned fail_at;           /* the n-th registration from now on fails with errno .error (0: without setting it); 0: none */
    int error;
    int dereg_error;            /* ibv_dereg_mr() returns this; 0: all is well */
    int dereg_errno;            /* and sets errno to this */
    unsigned calls;             /* of any function */
    unsigned registered;        /* out now */
    unsigned unmapped;          /* regions whose memory was gone before they were deregistered */
    unsigned lists;             /* of devices, not freed */
    unsigned access;            /* of the last registration */
    unsigned by_iova;           /* registrations through ibv_reg_mr_iova2() */
    int dmabuf_error;           /* ibv_reg_dmabuf_mr() sets errno to this and fails; 0: the device does it */
    unsigned by_dmabuf;         /* registrations through it */
    void *iova;                 /* what peers say for the first byte of the last registration */
    int peer_memory;            /* the kernel finds what the processor must not touch by its address */
    unsigned open;              /* devices and protection domains, not closed */
};

/* Set one of these and all is as new. */
#define FAKE_IBVERBS_NEW { .devices = 1 }

#endif
