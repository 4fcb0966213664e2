/*
 * add.ptx.h - the one kernel of these tests as PTX, which the driver compiles: no CUDA compiler is needed to build them.
 *
 *     la_add(uint32_t *data, uint32_t count, uint32_t number)        data[i] += number, for i below count
 *
 * Instructions that every device since 2017 has (sm_70). Checked with `ptxas -arch=sm_90`.
 */
#ifndef TESTS_GPU_ADD_PTX_H
#define TESTS_GPU_ADD_PTX_H

static const char add_ptx[] =
    ".version 6.4\n"
    ".target sm_70\n"
    ".address_size 64\n"
    ".visible .entry la_add(.param .u64 data, .param .u32 count, .param .u32 number)\n"
    "{\n"
    "    .reg .pred %out;\n"
    "    .reg .b32 %block, %size, %thread, %i, %count, %number, %word;\n"
    "    .reg .b64 %data, %offset, %at;\n"
    "    mov.u32 %block, %ctaid.x;\n"
    "    mov.u32 %size, %ntid.x;\n"
    "    mov.u32 %thread, %tid.x;\n"
    "    mad.lo.u32 %i, %block, %size, %thread;\n"
    "    ld.param.u32 %count, [count];\n"
    "    setp.ge.u32 %out, %i, %count;\n"
    "    @%out bra DONE;\n"
    "    ld.param.u64 %data, [data];\n"
    "    cvta.to.global.u64 %data, %data;\n"
    "    ld.param.u32 %number, [number];\n"
    "    mul.wide.u32 %offset, %i, 4;\n"
    "    add.u64 %at, %data, %offset;\n"
    "    ld.global.u32 %word, [%at];\n"
    "    add.u32 %word, %word, %number;\n"
    "    st.global.u32 [%at], %word;\n"
    "DONE:\n"
    "    ret;\n"
    "}\n";

#endif
