/* cudart.h - what tests may ask and tell the fake CUDA runtime (cudart.c); found by dlsym(). */
#ifndef TESTS_FAKE_CUDART_H
#define TESTS_FAKE_CUDART_H

struct fake_cudart {
    int devices;                /* what cudaGetDeviceCount() says */
    int driver_error;           /* every call fails with this; 0: none */
    unsigned fail_at;           /* the n-th call from now on that takes memory fails with .error; 0: none */
    int error;
    int unregister_error;       /* cudaHostUnregister(), cudaFreeHost() and cudaFree() fail with this; 0: none */
    int device_pointer_error;   /* cudaHostGetDevicePointer() does */
    int attributes_error;       /* cudaPointerGetAttributes() does */
    int event_error;            /* what cudaEventQuery() says */
    int last_error;             /* what cudaGetLastError() would say */
    unsigned calls;             /* of any function */
    unsigned registered, allocated;     /* out now; allocated of the host or a device */
    unsigned unmapped;          /* ranges that were unmapped before they were unregistered */
    unsigned flags;             /* of the last registration or allocation */
    int device;                 /* cudaSetDevice() */
    int last_device;            /* that gave memory last */
    int dmabuf;                 /* the device exports dmabufs */
    int dmabuf_error;           /* cuMemGetHandleForAddressRange() fails with this; 0: none */
    unsigned dmabufs;           /* so many has it given */
    unsigned crooked;           /* so many of the next cudaMalloc() give what is aligned to 256 bytes only */
};

/* Set one of these and all is as new. */
#define FAKE_CUDART_NEW { .devices = 1, .dmabuf = 1 }

#endif
