/*
 * trace.c - single-stepping without a debugger: by the processor's trap flag, in the process itself.
 *
 *   TRACE_STEPS   the trap flag is on: a SIGTRAP after each instruction of the program, the C library and the vDSO. (REP instructions
 *                 trap after each round.)
 *   TRACE_STORES  the heap is mapped read-only: SIGSEGV before an instruction that stores into it; the page is opened, that one
 *                 instruction stepped, the page closed again. Finds the same images, as only stores and system calls make
 *                 new ones, and a thousand times faster where loops only read. main.c compares both.
 *
 * In both modes the mapping is read-only where nothing was stored yet, so that the few pages in use are known and only they
 * are compared. The kernel refuses to write to a read-only page (EFAULT), so the pages are opened during system calls; for this the
 * handler looks whether the next instruction is SYSCALL. In TRACE_STORES mode it cannot know: code that lets the kernel write
 * into the heap, or map it, needs TRACE_STEPS.
 *
 * A debugger's PTRACE_SINGLESTEP stops at the same places. It lost because it takes two process switches per instruction, and because
 * tests also run where ptrace() is forbidden. Signal handlers run here on a stack of their own and touch nothing of the program: not even
 * errno, as system calls are made directly.
 */
#include "trace.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { TRAP_FLAG = 0x100, HANDLER_STACK = 256 << 10, MAX_OPEN = 8 };

static struct {
    struct trace *trace;
    enum trace_mode mode;
    char *file;             /* our own mapping of the file, never protected */
    char *shadow;           /* the file as last logged */
    uintptr_t base;
    bool mapped;            /* the program has the file at base */
    bool in_syscall;
    long number, first, third;      /* of that system call */
    uintptr_t at;           /* the instruction that is executed next */
    uint32_t *hot;          /* pages that may have changed */
    uint32_t hot_count;
    uint8_t *is_hot;        /* by page */
    uintptr_t opened[MAX_OPEN];     /* TRACE_STORES: pages opened for the instruction being stepped */
    unsigned opened_count;
    bool (*now)(void *);    /* trace_die_when() */
    void *user;
} t;

/* ---- the log ---- */

struct trace *trace_create(size_t file_size, uint32_t max_changes)
{
    size_t pages = (size_t)max_changes * TRACE_PAGE, size = sizeof(struct trace) + max_changes * sizeof(struct trace_change);
    struct trace *trace = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    char *memory = mmap(NULL, pages, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (trace == MAP_FAILED || memory == MAP_FAILED)
        return NULL;
    trace->file_size = file_size;
    trace->max_changes = max_changes;
    trace->pages = memory;
    trace->changes = (struct trace_change *)(trace + 1);
    return trace;
}

void trace_destroy(struct trace *trace)
{
    munmap(trace->pages, (size_t)trace->max_changes * TRACE_PAGE);
    munmap(trace, sizeof(struct trace) + trace->max_changes * sizeof(struct trace_change));
}

static void log_page(uint32_t page)
{
    struct trace *trace = t.trace;
    size_t at = (size_t)page * TRACE_PAGE;

    if (memcmp(t.file + at, t.shadow + at, TRACE_PAGE) == 0)
        return;
    if (trace->change_count == trace->max_changes) {
        trace->overflow = true;
        return;
    }
    memcpy(t.shadow + at, t.file + at, TRACE_PAGE);
    memcpy(trace->pages + (size_t)trace->change_count * TRACE_PAGE, t.shadow + at, TRACE_PAGE);
    trace->changes[trace->change_count++] = (struct trace_change){ .step = trace->steps, .at = t.at, .page = page };
}

/* After a system call, which may have written anywhere. */
static void log_everything(void)
{
    for (uint32_t page = 0; page < t.trace->file_size / TRACE_PAGE; page++)
        log_page(page);
}

static void log_hot(void)
{
    for (uint32_t i = 0; i < t.hot_count; i++)
        log_page(t.hot[i]);
}

/* ---- protection ---- */

/* Without errno, which belongs to the program. */
static long raw_mprotect(uintptr_t address, size_t size, long protection)
{
    long r = SYS_mprotect;

    __asm__ volatile("syscall" : "+a"(r) : "D"(address), "S"(size), "d"(protection) : "rcx", "r11", "memory");
    return r;
}

static void protect_all(void)
{
    if (t.mapped)
        raw_mprotect(t.base, t.trace->file_size, PROT_READ);
}

static void open_all(void)
{
    if (t.mapped)
        raw_mprotect(t.base, t.trace->file_size, PROT_READ | PROT_WRITE);
}

static void open_page(uintptr_t address)
{
    uint32_t page = (uint32_t)((address - t.base) / TRACE_PAGE);

    if (!t.is_hot[page]) {
        t.is_hot[page] = 1;
        t.hot[t.hot_count++] = page;
    }
    raw_mprotect(t.base + (size_t)page * TRACE_PAGE, TRACE_PAGE, PROT_READ | PROT_WRITE);
}

/* ---- handlers ---- */

static void on_fault(int signal, siginfo_t *info, void *context)
{
    ucontext_t *machine = context;
    uintptr_t address = (uintptr_t)info->si_addr;

    (void)signal;
    if (!t.mapped || address - t.base >= t.trace->file_size || info->si_code != SEGV_ACCERR || t.opened_count == MAX_OPEN) {
        t.trace->fault_at = (uintptr_t)machine->uc_mcontext.gregs[REG_RIP];
        t.trace->fault_address = address;
        _exit(4);
    }
    t.at = (uintptr_t)machine->uc_mcontext.gregs[REG_RIP];
    open_page(address);
    if (t.mode == TRACE_STORES) {
        t.opened[t.opened_count++] = address & ~(uintptr_t)(TRACE_PAGE - 1);
        machine->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
    }
}

static bool next_is_syscall(const ucontext_t *machine)
{
    const uint8_t *code = (const uint8_t *)machine->uc_mcontext.gregs[REG_RIP];

    return code[0] == 0x0f && code[1] == 0x05;
}

static void before_syscall(const ucontext_t *machine)
{
    t.in_syscall = true;
    t.number = machine->uc_mcontext.gregs[REG_RAX];
    t.first = machine->uc_mcontext.gregs[REG_RDI];
    t.third = machine->uc_mcontext.gregs[REG_RDX];
    open_all();
}

static void after_syscall(void)
{
    t.in_syscall = false;
    if (t.number == SYS_mmap && (uintptr_t)t.first == t.base)
        t.mapped = (t.third & PROT_WRITE) != 0;
    else if (t.number == SYS_munmap && (uintptr_t)t.first == t.base)
        t.mapped = false;
    protect_all();
    log_everything();
}

static void on_trap(int signal, siginfo_t *info, void *context)
{
    ucontext_t *machine = context;

    (void)signal;
    (void)info;
    t.trace->steps++;
    if (t.now) {
        if (t.now(t.user))
            kill(getpid(), SIGKILL);
    } else if (t.mode == TRACE_STORES) {
        log_hot();
    }
    if (t.mode == TRACE_STORES) {
        while (t.opened_count > 0)
            raw_mprotect(t.opened[--t.opened_count], TRACE_PAGE, PROT_READ);
        machine->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
        return;
    }
    if (t.in_syscall)
        after_syscall();
    else
        log_hot();
    t.at = (uintptr_t)machine->uc_mcontext.gregs[REG_RIP];
    if (next_is_syscall(machine))
        before_syscall(machine);
}

/* ---- begin and end ---- */

/* Functions of their own: the C compiler keeps data below the stack pointer only in functions that call none. */
void trap_flag_on(void);
void trap_flag_off(void);

__asm__(".pushsection .text\n"
        ".type trap_flag_on, @function\n"
        "trap_flag_on:\n"
        "    pushfq\n"
        "    orq $0x100, (%rsp)\n"
        "    popfq\n"
        "    ret\n"
        ".type trap_flag_off, @function\n"
        "trap_flag_off:\n"
        "    pushfq\n"
        "    andq $~0x100, (%rsp)\n"
        "    popfq\n"
        "    ret\n"
        ".popsection\n");

static void *reserve(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        abort();
    return p;
}

/* What the file holds, without touching its holes: the changes of step 0. */
static void log_file(int file)
{
    off_t at = 0, end, size = (off_t)t.trace->file_size;

    while ((at = lseek(file, at, SEEK_DATA)) >= 0 && at < size) {
        end = lseek(file, at, SEEK_HOLE);
        for (; at < end; at += TRACE_PAGE)
            log_page((uint32_t)(at / TRACE_PAGE));
    }
}

extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));

/*
 * A signal inside of a restartable sequence (core/restartable.h) sends the thread to its beginning: stepping through one would never end. Without
 * rseq the same instructions run straight, in the same order.
 */
static void leave_rseq(void)
{
    enum { UNREGISTER = 1, LENGTH = 32 };

    if (&__rseq_size && &__rseq_offset && __rseq_size > 0)
        syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, LENGTH, UNREGISTER, 0x53053053);
}

static void set_handlers(void)
{
    stack_t stack = { .ss_sp = reserve(HANDLER_STACK), .ss_size = HANDLER_STACK };
    struct sigaction trap = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    struct sigaction fault = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };

    if (sigaltstack(&stack, NULL) < 0 || sigaction(SIGTRAP, &trap, NULL) < 0 || sigaction(SIGSEGV, &fault, NULL) < 0)
        abort();
}

void trace_begin(struct trace *trace, enum trace_mode mode, int file, uintptr_t base, bool mapped)
{
    size_t pages = trace->file_size / TRACE_PAGE;

    t.trace = trace;
    t.mode = mode;
    t.base = base;
    t.mapped = mapped;
    t.file = mmap(NULL, trace->file_size, PROT_READ, MAP_SHARED, file, 0);
    t.shadow = reserve(trace->file_size);
    t.hot = reserve(pages * sizeof(*t.hot));
    t.is_hot = reserve(pages);
    if (t.file == MAP_FAILED)
        abort();
    log_file(file);
    leave_rseq();
    set_handlers();
    protect_all();
    if (mode == TRACE_STEPS)
        trap_flag_on();
}

void trace_end(void)
{
    if (t.mode == TRACE_STEPS)
        trap_flag_off();
    open_all();
}

void trace_die_when(bool (*now)(void *), void *user, int file, size_t size, uintptr_t base)
{
    struct trace *trace = trace_create(size, (uint32_t)(size / TRACE_PAGE));

    if (!trace)
        abort();
    t.now = now;
    t.user = user;
    trace_begin(trace, TRACE_STORES, file, base, true);
}
