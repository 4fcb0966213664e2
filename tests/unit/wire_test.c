/* wire_test.c - messages: what goes in comes out, and nothing that is malformed passes the check. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <liballoc/error.h>

#include "shmserver/protocol/wire.h"

static void begin(struct wire_message *m)
{
    memset(m, 0xaa, sizeof(*m));    /* what was in the buffer before must not matter */
    wire_begin(m, WIRE_CREATE, 0, 42);
}

static void fields_come_out_as_they_went_in(void **state)
{
    struct wire_message m;
    struct wire_tlv tlv;
    char name[16];
    uint64_t size = 0;

    (void)state;
    begin(&m);
    assert_true(wire_put_text(&m, TLV_NAME, "a heap"));
    assert_true(wire_put_u64(&m, TLV_SIZE, TLV_CRITICAL, UINT64_MAX));
    assert_int_equal(wire_check(&m, m.header.length, 0), 0);
    assert_true(wire_get_text(&m, TLV_NAME, name, sizeof(name)));
    assert_string_equal(name, "a heap");
    assert_true(wire_get_u64(&m, TLV_SIZE, &size));
    assert_true(size == UINT64_MAX);
    assert_true(wire_find(&m, TLV_SIZE, &tlv));
    assert_true(tlv.critical);
    assert_false(wire_find(&m, TLV_KEY, &tlv));
    assert_int_equal(m.header.sequence, 42);
    assert_int_equal(m.header.length % 8, 0);
}

static void values_of_every_length_are_aligned_and_padded_with_zeros(void **state)
{
    (void)state;
    for (size_t length = 0; length < 32; length++) {
        struct wire_message m;
        struct wire_tlv tlv;
        char value[32];
        size_t cursor = 0;

        begin(&m);
        memset(value, 'v', sizeof(value));
        assert_true(wire_put(&m, TLV_TEXT, 0, value, length));
        assert_true(wire_put_u64(&m, TLV_ID, 0, 1));
        assert_int_equal(wire_check(&m, m.header.length, 0), 0);
        assert_true(wire_next(&m, &cursor, &tlv));
        assert_int_equal(tlv.length, length);
        assert_int_equal((uintptr_t)tlv.value % 8, 0);
        for (size_t i = length; i < align_up(length, 8); i++)
            assert_int_equal(((const char *)tlv.value)[i], 0);
        assert_true(wire_next(&m, &cursor, &tlv));
        assert_int_equal(tlv.type, TLV_ID);
        assert_false(wire_next(&m, &cursor, &tlv));
    }
}

static void message_never_outgrows_its_limit(void **state)
{
    struct wire_message m;
    char value[100];
    uint32_t before;

    (void)state;
    begin(&m);
    memset(value, 0, sizeof(value));
    do {
        before = m.header.length;
        assert_true(before <= WIRE_MAX);
    } while (wire_put(&m, TLV_TEXT, 0, value, sizeof(value)));
    assert_int_equal(m.header.length, before);
    assert_int_equal(wire_check(&m, m.header.length, 0), 0);
    assert_false(wire_put(&m, TLV_TEXT, 0, value, SIZE_MAX));
    assert_false(wire_put(&m, TLV_TEXT, 0, value, (size_t)UINT32_MAX + 1));
}

static void refuse(struct wire_message *m, size_t received, size_t fds, const char *why)
{
    assert_int_equal(wire_check(m, received, fds), -EBADMSG);
    assert_non_null(strstr(la_last_error(), why));
}

static void malformed_messages_are_refused_with_the_reason(void **state)
{
    struct wire_message m;

    (void)state;
    begin(&m);
    refuse(&m, 0, 0, "shorter than its header");
    refuse(&m, 31, 0, "shorter than its header");
    refuse(&m, 40, 0, "says that it has 32 bytes, but 40 came");
    refuse(&m, 32, 1, "0 descriptors, but 1 came");
    m.header.magic++;
    refuse(&m, 32, 0, "not our protocol");

    begin(&m);
    wire_put_u64(&m, TLV_SIZE, 0, 1);
    m.header.length = 33;           /* a rest too short for a field's header */
    refuse(&m, 33, 0, "does not end inside it");
    begin(&m);
    wire_put_u64(&m, TLV_SIZE, 0, 1);
    memset(m.bytes + 36, 0xff, 4);  /* the field's length */
    refuse(&m, 48, 0, "does not end inside it");
    begin(&m);
    wire_put(&m, TLV_TEXT, 0, "12345678", 8);
    m.bytes[36] = 9;                /* one byte more than there is */
    refuse(&m, 48, 0, "does not end inside it");
    begin(&m);
    wire_put(&m, TLV_TEXT, 0, "1234", 4);
    m.header.length -= 4;           /* its padding is missing */
    refuse(&m, 44, 0, "does not end inside it");
}

static void numbers_and_texts_of_the_wrong_length_are_not_read(void **state)
{
    struct wire_message m;
    char name[8] = "before";
    uint64_t n = 7;

    (void)state;
    begin(&m);
    wire_put(&m, TLV_SIZE, 0, "1234", 4);
    wire_put_text(&m, TLV_NAME, "12345678");            /* no room for its end */
    wire_put(&m, TLV_SERVER, 0, "a\0b", 3);
    assert_false(wire_get_u64(&m, TLV_SIZE, &n));
    assert_false(wire_get_text(&m, TLV_NAME, name, sizeof(name)));
    assert_false(wire_get_text(&m, TLV_SERVER, name, sizeof(name)));
    assert_int_equal(n, 7);
    assert_string_equal(name, "before");
}

static void unknown_field_counts_only_if_it_is_critical(void **state)
{
    struct wire_message m;

    (void)state;
    begin(&m);
    wire_put_u64(&m, TLV_SIZE, TLV_CRITICAL, 1);
    wire_put_u64(&m, (enum wire_tlv_type)999, 0, 1);
    assert_int_equal(wire_unknown_critical(&m), 0);
    wire_put_u64(&m, (enum wire_tlv_type)1000, TLV_CRITICAL, 1);
    assert_int_equal(wire_unknown_critical(&m), 1000);
}

/* Whatever the bytes: if the check accepts them, walking through them stays inside and ends. */
static void random_bytes_that_pass_can_be_walked(void **state)
{
    unsigned seed = 1, passed = 0;

    (void)state;
    for (int round = 0; round < 200000; round++) {
        struct wire_message m;
        struct wire_tlv tlv;
        size_t length = 32 + (size_t)(rand_r(&seed) % 12) * 8, cursor = 0;

        wire_begin(&m, WIRE_LIST, 0, 0);
        m.header.length = (uint32_t)length;
        for (size_t i = 32; i < length; i++)
            m.bytes[i] = i % 8 >= 4 ? (i % 8 == 4 ? (unsigned char)(rand_r(&seed) % 32) : 0) : (unsigned char)rand_r(&seed);
        if (wire_check(&m, length, 0) < 0)
            continue;
        passed++;
        while (wire_next(&m, &cursor, &tlv)) {
            assert_true((const unsigned char *)tlv.value + tlv.length <= m.bytes + length);
            assert_true(cursor <= length);
        }
    }
    assert_true(passed > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_come_out_as_they_went_in),
        cmocka_unit_test(values_of_every_length_are_aligned_and_padded_with_zeros),
        cmocka_unit_test(message_never_outgrows_its_limit),
        cmocka_unit_test(malformed_messages_are_refused_with_the_reason),
        cmocka_unit_test(numbers_and_texts_of_the_wrong_length_are_not_read),
        cmocka_unit_test(unknown_field_counts_only_if_it_is_critical),
        cmocka_unit_test(random_bytes_that_pass_can_be_walked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
