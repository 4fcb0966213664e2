/*
 * restartable.h - pop and push on a bin, whole or not at all for signal handlers of the same thread (R9).
 *
 * A handler may call malloc and free in the middle of either. What an interrupted pop has read (the stack's top, the youngest block)
 * is worth nothing then. On x86-64 under Linux both are restartable sequences: when a signal is delivered inside of one,
 * the kernel sends the thread to its beginning; only its last instruction, the move of the top, takes effect. (rseq(2); the C library registers the
 * area since glibc 2.35. Technique: P. Turner and A. Hunter, 2013; M. Desnoyers, Linux 4.18.) Costs three instructions, no fence, no
 * branch. A handler that jumps out of one (siglongjmp) costs at most the one block.
 *
 * Without rseq (older libraries, other machines, valgrind, sanitizers) the same in C: a handler that allocates in the wrong
 * three instructions is then as harmful as with any other allocator.
 *
 * Do not step through this instruction by instruction in a debugger: each stop begins it anew.
 */
#ifndef CORE_RESTARTABLE_H
#define CORE_RESTARTABLE_H

#include "core/types.h"

#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__) && !defined(__ILP32__)
#define RESTARTABLE 1
#else
#define RESTARTABLE 0
#endif
#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#undef RESTARTABLE
#define RESTARTABLE 0
#endif
#endif

/* Once, before there is a second thread or a handler that counts. */
void restartable_init(void);

/* How often the calling thread has begun bin_claim() or bin_release() anew: it may have left a block out of its bin as often. */
extern HIDDEN __thread uint32_t la_tls_restarts;

#if RESTARTABLE

/* From the thread pointer to the thread's struct rseq, or to where a store does no harm. */
extern HIDDEN ptrdiff_t la_rseq_offset;

/* Descriptor @d of the sequence from label 1 to label 2; where the kernel sends an interrupted one, behind the signature it wants. */
#define RSEQ_DESCRIPTOR                                                                     \
    ".pushsection .data.rel.ro.la_rseq, \"aw\"\n\t.balign 32\n3:\t.long 0, 0\n\t.quad 1f, 2f - 1f, 4f\n\t.popsection\n\t"
#define RSEQ_ABORT(again, count)                                                            \
    ".pushsection .text.la_rseq_abort, \"ax\"\n\t.byte 0x0f, 0xb9, 0x3d\n\t.long 0x53053053\n4:\t" count "jmp " again "\n\t.popsection\n\t"
/* By way of %[top], which the sequence sets anew. */
#define RSEQ_COUNT "movq la_tls_restarts@gottpoff(%%rip), %[top]\n\taddl $1, %%fs:(%[top])\n\t"

/* The youngest block of the bin, which had the mark; NULL: none, or it has not. The mark is still there. */
static inline __attribute__((always_inline)) void *bin_pop(struct la_bin *bin)
{
    void **top, *block;

again:
    __asm__ volatile goto(RSEQ_DESCRIPTOR
                 "leaq 3b(%%rip), %[block]\n\t"
                 "movq %[block], %%fs:8(%[rseq])\n"
                 "1:\tmovq %[bin], %[top]\n\t"
                 "movq (%[top]), %[block]\n\t"
                 "cmpq %[mark], (%[block])\n\t"
                 "jne %l[none]\n\t"
                 "subq $8, %[bin]\n"
                 "2:\n\t"
                 RSEQ_ABORT("%l[again]", "")
                 : [block] "=&a"(block), [top] "=&r"(top), [bin] "+m"(bin->top)
                 : [mark] "r"(la_free_mark), [rseq] "r"(la_rseq_offset)
                 : "memory", "cc"
                 : none, again);
    if (!block)
        __builtin_unreachable();    /* says to the compiler that the caller's test is done */
    return block;
none:
    return NULL;
}

_Static_assert(offsetof(struct la_bin, top) == 0 && offsetof(struct la_bin, last) == 8, "as bin_push() has it");

/* false: the bin at @offset in @chain is full, or @block is its youngest already. Marks the block. */
static inline __attribute__((always_inline)) bool bin_push(struct la_chain *chain, size_t offset, void *block)
{
    void **top;

again:
    __asm__ volatile goto(RSEQ_DESCRIPTOR
                 "leaq 3b(%%rip), %[top]\n\t"
                 "movq %[top], %%fs:8(%[rseq])\n"
                 "1:\tmovq (%[chain],%[offset]), %[top]\n\t"
                 "cmpq %[top], 8(%[chain],%[offset])\n\t"
                 "je %l[refused]\n\t"
                 "cmpq %[block], (%[top])\n\t"
                 "je %l[refused]\n\t"
                 "movq %[mark], (%[block])\n\t"
                 "movq %[block], 8(%[top])\n\t"
                 "addq $8, (%[chain],%[offset])\n"
                 "2:\n\t"
                 RSEQ_ABORT("%l[again]", "")
                 : [top] "=&r"(top)
                 : [chain] "r"(chain), [offset] "r"(offset), [block] "r"(block), [mark] "r"(la_free_mark), [rseq] "r"(la_rseq_offset)
                 : "memory", "cc"
                 : refused, again);
    return true;
refused:
    return false;
}

/* The youngest block and its word; none if that is in use. Then, the word last, the block is the caller's. */
#define CLAIM_LOOK                                                                          \
    RSEQ_DESCRIPTOR                                                                         \
    "leaq 3b(%%rip), %[block]\n\t"                                                          \
    "movq %[block], %%fs:8(%[rseq])\n"                                                      \
    "1:\tmovq %[bin], %[top]\n\t"                                                           \
    "movq %[distance], %[word]\n\t"                                                         \
    "movq (%[top],%[word]), %[word]\n\t"                                                    \
    "movl (%[word]), %[w]\n\t"                                                              \
    "testl %[in_use], %[w]\n\t"                                                             \
    "jne %l[none]\n\t"                                                                      \
    "movq (%[top]), %[block]\n\t"
#define CLAIM_TAKE                                                                          \
    "orl %[holder], %[w]\n\t"                                                               \
    "subq $8, %[bin]\n\t"                                                                   \
    "movl %[w], (%[word])\n"                                                                \
    "2:\n\t"                                                                                \
    RSEQ_ABORT("%l[again]", RSEQ_COUNT)
#define CLAIM_OUT [block] "=&a"(block), [top] "=&r"(top), [word] "=&r"(word), [w] "=&r"(w), [bin] "+m"(bin->top)
#define CLAIM_IN [distance] "m"(*distance), [in_use] "re"(in_use), [holder] "re"(holder), [rseq] "r"(la_rseq_offset)

/*
 * The same for the bins of lanes, where the state word decides (shared_fast.h); its store comes last. Interrupted behind the move of the
 * top, a pop leaves its block FREE and in no bin, to be found when the page is looked at (at the latest when the heap is full, by la_tls_restarts),
 * and a push leaves an entry too many, whose word is in use when it surfaces, and which is skipped.
 *
 * *@distance: from an entry to its word's place; read inside, as a handler may make the bin grow. @in_use: bits of a word that is not FREE. @holder:
 * what is added to it. @marks: the block must be marked there, by its address / SLICE_SIZE (trail.h); NULL, as a constant: it need not, which takes five
 * instructions less.
 */
static inline __attribute__((always_inline)) void *bin_claim(struct la_bin *bin, const ptrdiff_t *distance, uint32_t in_use, uint32_t holder,
                                                             const _Atomic(uint8_t) *marks)
{
    void **top, *block;
    uint32_t *word, w;

again:
    if (marks)
        __asm__ volatile goto(CLAIM_LOOK
                     "movq %[block], %[top]\n\t"
                     "shrq %[shift], %[top]\n\t"
                     "cmpb $0, (%[marks],%[top])\n\t"
                     "je %l[none]\n\t"
                     CLAIM_TAKE
                     : CLAIM_OUT : CLAIM_IN, [marks] "r"(marks), [shift] "i"(SLICE_SHIFT) : "memory", "cc" : none, again);
    else
        __asm__ volatile goto(CLAIM_LOOK CLAIM_TAKE : CLAIM_OUT : CLAIM_IN : "memory", "cc" : none, again);
    if (!block)
        __builtin_unreachable();
    return block;
none:
    return NULL;
}

/* @block, whose state word at @word is @seen, becomes the youngest, and its word (@seen & @keep) + @add; false: full, or the word has changed. */
static inline __attribute__((always_inline)) bool bin_release(struct la_bin *bin, const ptrdiff_t *distance, void *block, _Atomic(uint32_t) *word,
                                                              uint32_t seen, int32_t keep, int32_t add)
{
    void **top;
    ptrdiff_t way;

again:
    __asm__ volatile goto(RSEQ_DESCRIPTOR
                 "leaq 3b(%%rip), %[top]\n\t"
                 "movq %[top], %%fs:8(%[rseq])\n"
                 "1:\tmovq (%[bin]), %[top]\n\t"
                 "cmpq %[top], 8(%[bin])\n\t"
                 "je %l[refused]\n\t"
                 "cmpl %[seen], (%[word])\n\t"
                 "jne %l[refused]\n\t"
                 "movq %[block], 8(%[top])\n\t"
                 "movq %[distance], %[way]\n\t"
                 "movq %[word], 8(%[top],%[way])\n\t"
                 "movl %[seen], %k[top]\n\t"
                 "andl %[keep], %k[top]\n\t"
                 "addl %[add], %k[top]\n\t"
                 "addq $8, (%[bin])\n\t"
                 "movl %k[top], (%[word])\n"
                 "2:\n\t"
                 RSEQ_ABORT("%l[again]", RSEQ_COUNT)
                 : [top] "=&r"(top), [way] "=&r"(way)
                 : [bin] "r"(bin), [distance] "m"(*distance), [block] "r"(block), [word] "r"(word), [seen] "r"(seen), [keep] "re"(keep),
                   [add] "re"(add), [rseq] "r"(la_rseq_offset)
                 : "memory", "cc"
                 : refused, again);
    return true;
refused:
    return false;
}

#else

static inline void *bin_claim(struct la_bin *bin, const ptrdiff_t *distance, uint32_t in_use, uint32_t holder, const _Atomic(uint8_t) *marks)
{
    void **top = bin->top;
    _Atomic(uint32_t) *word = *(void **)((char *)top + *distance);
    /* Acquire: see block_release() in shared_block.h. */
    uint32_t w = atomic_load_explicit(word, memory_order_acquire);

    if (unlikely(w & in_use) || (marks && unlikely(!atomic_load_explicit(&marks[(uintptr_t)*top >> SLICE_SHIFT], memory_order_relaxed))))
        return NULL;
    bin->top = top - 1;
    atomic_store_explicit(word, w | holder, memory_order_release);
    return *top;
}

static inline bool bin_release(struct la_bin *bin, const ptrdiff_t *distance, void *block, _Atomic(uint32_t) *word, uint32_t seen, int32_t keep,
                               int32_t add)
{
    void **top = bin->top;

    if (unlikely(top == bin->last) || unlikely(atomic_load_explicit(word, memory_order_relaxed) != seen))
        return false;
    top[1] = block;
    *(void **)((char *)(top + 1) + *distance) = word;
    bin->top = top + 1;
    atomic_store_explicit(word, (seen & (uint32_t)keep) + (uint32_t)add, memory_order_release);
    return true;
}

static inline void *bin_pop(struct la_bin *bin)
{
    void **top = bin->top, *block = *top;

    if (unlikely(*(uint64_t *)block != la_free_mark))
        return NULL;
    bin->top = top - 1;
    return block;
}

static inline bool bin_push(struct la_chain *chain, size_t offset, void *block)
{
    struct la_bin *bin = (struct la_bin *)((char *)chain + offset);
    void **top = bin->top;

    if (unlikely(top == bin->last) || unlikely(*top == block))
        return false;
    *(uint64_t *)block = la_free_mark;
    top[1] = block;
    bin->top = top + 1;
    return true;
}

#endif

#endif
