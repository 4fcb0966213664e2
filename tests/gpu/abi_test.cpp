/*
 * abi_test.cpp - what segments and the GPU tests say of CUDA (segments/cuda/abi.h, device.h), held against NVIDIA's headers. C++, as templates can take
 * a function's type to pieces: each result and argument must be as wide there as here, and a pointer where one is here.
 */
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <type_traits>

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <segments/cuda.h>

#include "device.h"
#include "segments/cuda/abi.h"

namespace {

int checks, failures;

void check(bool holds, const char *what)
{
    checks++;
    failures += !holds;
    if (!holds)
        std::printf("CUDA %d.%d has it otherwise: %s\n", CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10, what);
}

template <class A, class B> constexpr bool same_place()
{
    if constexpr (std::is_pointer_v<A> || std::is_pointer_v<B>)
        return std::is_pointer_v<A> && std::is_pointer_v<B>;
    else if constexpr (std::is_void_v<A> || std::is_void_v<B>)
        return std::is_same_v<A, B>;
    else
        return sizeof(A) == sizeof(B);
}

template <class A, class B> struct same_call : std::false_type {};

template <class R, class... A, class S, class... B> struct same_call<R(A...), S(B...)> {
    static constexpr bool compare()
    {
        if constexpr (sizeof...(A) == sizeof...(B))
            return same_place<R, S>() && (same_place<A, B>() && ...);
        else
            return false;
    }
    static constexpr bool value = compare();
};

/* A macro of the headers may lead a name to another symbol (cuMemAlloc: cuMemAlloc_v2); dlsym() would find the old one. */
#define SYMBOL(name) #name
#define SYMBOL_IN_HEADERS(name) SYMBOL(name)

void check_functions()
{
#define X(type, name, arguments)                                                                                        \
    check(same_call<type arguments, decltype(::name)>::value, #name);                                                   \
    check(std::strcmp(SYMBOL_IN_HEADERS(name), #name) == 0, "the symbol of " #name);
    CUDA_FUNCTIONS(X)
    CUDA_DRIVER_FUNCTIONS(X)
#undef X
#define X(name, arguments)                                                                                              \
    check(same_call<int arguments, decltype(::name)>::value, #name " of the GPU tests");                                \
    check(std::strcmp(SYMBOL_IN_HEADERS(name), #name) == 0, "the symbol of " #name " of the GPU tests");
    RUNTIME_FUNCTIONS(X)
    DRIVER_FUNCTIONS(X)
#undef X
}

void check_attributes()
{
    using theirs = struct cudaPointerAttributes;

    check(sizeof(theirs) <= sizeof(struct cuda_attributes), "the size of cudaPointerAttributes");
    check(sizeof(theirs) <= sizeof(struct attributes), "the size of cudaPointerAttributes in the GPU tests");
#define MEMBER(ours, name)                                                                                              \
    check(offsetof(struct cuda_attributes, ours) == offsetof(theirs, name), "cudaPointerAttributes." #name);            \
    check(offsetof(struct attributes, ours) == offsetof(theirs, name), "cudaPointerAttributes." #name " of the GPU tests")
    MEMBER(type, type);
    MEMBER(device, device);
    MEMBER(device_pointer, devicePointer);
    MEMBER(host_pointer, hostPointer);
#undef MEMBER
}

void check_numbers()
{
#define NUMBER(ours, theirs) check((int)(ours) == (int)(theirs), #theirs)
    NUMBER(CUDA_INVALID_VALUE, cudaErrorInvalidValue);
    NUMBER(CUDA_NO_MEMORY, cudaErrorMemoryAllocation);
    NUMBER(CUDA_NOT_INITIALIZED, cudaErrorInitializationError);
    NUMBER(CUDA_UNLOADING, cudaErrorCudartUnloading);
    NUMBER(CUDA_OLD_DRIVER, cudaErrorInsufficientDriver);
    NUMBER(CUDA_DEVICES_UNAVAILABLE, cudaErrorDevicesUnavailable);
    NUMBER(CUDA_NO_DEVICE, cudaErrorNoDevice);
    NUMBER(CUDA_INVALID_DEVICE, cudaErrorInvalidDevice);
    NUMBER(CUDA_NOT_READY, cudaErrorNotReady);
    NUMBER(CUDA_ALREADY_REGISTERED, cudaErrorHostMemoryAlreadyRegistered);
    NUMBER(CUDA_NOT_REGISTERED, cudaErrorHostMemoryNotRegistered);
    NUMBER(CUDA_NOT_SUPPORTED, cudaErrorNotSupported);
    NUMBER(CUDA_ALLOC_PORTABLE, cudaHostAllocPortable);
    NUMBER(CUDA_ALLOC_MAPPED, cudaHostAllocMapped);
    NUMBER(CUDA_ALLOC_WRITE_COMBINED, cudaHostAllocWriteCombined);
    NUMBER(SEG_CUDA_PORTABLE, cudaHostRegisterPortable);
    NUMBER(SEG_CUDA_MAPPED, cudaHostRegisterMapped);
    NUMBER(SEG_CUDA_READ_ONLY, cudaHostRegisterReadOnly);
    NUMBER(SEG_CUDA_PAGEABLE, cudaMemoryTypeUnregistered);
    NUMBER(SEG_CUDA_HOST, cudaMemoryTypeHost);
    NUMBER(SEG_CUDA_DEVICE, cudaMemoryTypeDevice);
    NUMBER(SEG_CUDA_MANAGED, cudaMemoryTypeManaged);
    NUMBER(CUDA_DMA_BUF_FD, CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD);
    NUMBER(CUDA_ATTRIBUTE_DMA_BUF_SUPPORTED, CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED);
    NUMBER(TO_DEVICE, cudaMemcpyHostToDevice);
    NUMBER(FROM_DEVICE, cudaMemcpyDeviceToHost);
#undef NUMBER
}

}

int main()
{
    check_functions();
    check_attributes();
    check_numbers();
    std::printf("CUDA %d.%d: %d of %d agree\n", CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10, checks - failures, checks);
    return failures ? 1 : 0;
}
