/* dump_test.c - the picture of all chains can be read by a program, tells the truth, and costs no allocation. */
#include "engine.h"

#include <fcntl.h>
#include <unistd.h>

#include "core/source.h"
#include "core/thread.h"

/* ---- the dump, read back ---- */

struct chain_lines {
    char kind[16], name[40];
    unsigned long macros, blocks, bytes, cached, large, huge;
    unsigned classes;
    unsigned long out, in_bins;     /* over the lines of its classes */
};

struct picture {
    struct chain_lines chains[64];
    unsigned count;
    size_t mapped, kept;
    unsigned abandoned, unknown_lines;
};

static void read_class_line(struct chain_lines *c, const char *line)
{
    unsigned long size, pages, out, capacity, in_bin;

    assert_int_equal(sscanf(line, " %lu B: %lu pages, %lu of %lu blocks out, %lu in the bin", &size, &pages, &out, &capacity,
                            &in_bin), 5);
    assert_true(pages > 0 && out <= capacity && in_bin <= out);
    c->classes++;
    c->out += out;
    c->in_bins += in_bin;
}

static void read_line(struct picture *p, char *line)
{
    struct chain_lines *last = p->count ? &p->chains[p->count - 1] : NULL;
    void *address;

    if (strncmp(line, "chain ", 6) == 0) {
        last = &p->chains[p->count++];
        assert_true(p->count <= ARRAY_SIZE(p->chains));
        assert_true(sscanf(line, "chain %p %15s %39[^\n]", &address, last->kind, last->name) >= 2);
    } else if (strstr(line, " macro blocks, ") && last) {
        assert_int_equal(sscanf(line, " %lu macro blocks, %lu live blocks, %lu bytes, %lu cached, %lu large, %lu huge",
                                &last->macros, &last->blocks, &last->bytes, &last->cached, &last->large, &last->huge), 6);
    } else if (strstr(line, " B: ") && last) {
        read_class_line(last, line);
    } else if (strncmp(line, "source ", 7) == 0) {
        assert_int_equal(sscanf(line, "source anonymous memory: %zu bytes mapped, %zu free and kept, %u macro blocks abandoned",
                                &p->mapped, &p->kept, &p->abandoned), 3);
    } else {
        p->unknown_lines++;
        print_error("unknown line: %s", line);
    }
}

static struct picture take_picture(void)
{
    struct picture p = { .count = 0 };
    FILE *file = tmpfile();
    char line[300];

    assert_non_null(file);
    assert_int_equal(la_dump(fileno(file)), 0);
    rewind(file);
    while (fgets(line, sizeof(line), file))
        read_line(&p, line);
    fclose(file);
    assert_int_equal(p.unknown_lines, 0);
    return p;
}

static const struct chain_lines *chain_named(const struct picture *p, const char *name)
{
    for (unsigned i = 0; i < p->count; i++)
        if (strncmp(p->chains[i].name, name, strlen(name)) == 0)
            return &p->chains[i];
    return NULL;
}

static void dump_agrees_with_the_figures(void **state)
{
    struct la_chain *chain = NULL;
    struct la_stats s = { .struct_size = sizeof(s) };
    struct picture p;
    const struct chain_lines *lines;

    (void)state;
    la_free(la_malloc(1));
    assert_int_equal(la_chain_create(NULL, 0, &chain), 0);
    la_chain_name(chain, "of dump_test");
    for (unsigned i = 0; i < 50; i++) {
        assert_non_null(la_chain_alloc(chain, 100));
        assert_non_null(la_chain_alloc(chain, 3000));
    }
    assert_non_null(la_chain_alloc(chain, 100000));
    assert_non_null(la_chain_alloc(chain, 5 * MiB));
    p = take_picture();
    assert_int_equal(la_chain_stats(chain, &s), 0);

    lines = chain_named(&p, "of dump_test");
    assert_non_null(lines);
    assert_string_equal(lines->kind, "user");
    assert_int_equal(lines->blocks, 102);
    assert_int_equal(lines->bytes, s.allocated);
    assert_int_equal(lines->macros, s.macro_blocks);
    assert_int_equal(lines->cached, s.cached);
    assert_int_equal(lines->large, 1);
    assert_int_equal(lines->huge, 1);
    assert_int_equal(lines->classes, 2);
    assert_int_equal(lines->out - lines->in_bins, 100);
    assert_int_equal(p.mapped, la_default_source.mapped);
    assert_int_equal(p.kept, la_default_source.dirty_bytes);
    assert_int_equal(la_chain_destroy(chain), 0);
    p = take_picture();
    assert_null(chain_named(&p, "of dump_test"));
}

static void every_kind_of_chain_is_shown(void **state)
{
    static char memory[32 * KiB];
    struct la_chain *chain, *mt;
    struct picture p;
    unsigned threads = 0;

    (void)state;
    assert_int_equal(la_chain_create_in(memory, sizeof(memory), 0, &chain), 0);
    la_chain_name(chain, "buffer");
    assert_int_equal(la_chain_create(NULL, LA_CHAIN_MT, &mt), 0);
    la_chain_name(mt, "many threads");
    assert_non_null(la_chain_alloc(chain, 100));
    assert_non_null(la_chain_alloc(mt, 100));
    p = take_picture();
    assert_non_null(chain_named(&p, "buffer"));
    assert_int_equal(chain_named(&p, "buffer")->blocks, 1);
    assert_int_equal(chain_named(&p, "many threads")->blocks, 1);
    for (unsigned i = 0; i < p.count; i++)
        threads += strcmp(p.chains[i].kind, "thread") == 0;
    assert_true(threads >= 1);
    assert_int_equal(la_chain_destroy(chain), 0);
    assert_int_equal(la_chain_destroy(mt), 0);
}

static void leave_a_block(void *arg)
{
    *(void **)arg = la_malloc(100);
}

static void ended_threads_and_what_they_left_are_shown(void **state)
{
    struct picture p;
    void *block;

    (void)state;
    in_other_thread(leave_a_block, &block);
    p = take_picture();
    assert_int_equal(p.abandoned, 1);
    assert_non_null(chain_named(&p, "(ended)"));
    la_free(block);
    la_source_trim(NULL);
    assert_int_equal(take_picture().abandoned, 0);
}

static void dump_allocates_nothing(void **state)
{
    struct slow_path slow;
    struct la_stats before = { .struct_size = sizeof(before) }, after = before;
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

    (void)state;
    la_process_stats(&before);
    slow_begin(&slow);      /* as from a signal handler inside malloc: whoever allocates now gets a mapping of its own */
    assert_int_equal(la_dump(fd), 0);
    slow_end(&slow);
    la_process_stats(&after);
    assert_memory_equal(&after, &before, sizeof(after));
    close(fd);
}

static void descriptor_that_cannot_be_written_is_an_error(void **state)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    (void)state;
    assert_int_equal(la_dump(-1), -EBADF);
    assert_int_equal(la_dump(fd), -EBADF);
    close(fd);
    fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_int_equal(la_dump(fd), -ENOSPC);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dump_agrees_with_the_figures),
        cmocka_unit_test(every_kind_of_chain_is_shown),
        cmocka_unit_test(ended_threads_and_what_they_left_are_shown),
        cmocka_unit_test(dump_allocates_nothing),
        cmocka_unit_test(descriptor_that_cannot_be_written_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
