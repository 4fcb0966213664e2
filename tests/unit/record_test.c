/* record_test.c - heaps and processes in messages, between peers of different age. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "shmserver/protocol/record.h"

static struct wire_message message;

static struct wire_tlv first_field(void)
{
    struct wire_tlv tlv;
    size_t cursor = 0;

    assert_int_equal(wire_check(&message, message.header.length, 0), 0);
    assert_true(wire_next(&message, &cursor, &tlv));
    return tlv;
}

static void heap_comes_out_as_it_went_in(void **state)
{
    struct shms_heap in = { .struct_size = sizeof(in), .id = 1, .size = 2, .recovered_bytes = 3, .created = -4, .owner = 5, .name = "six" }, out;
    struct wire_tlv tlv;

    (void)state;
    wire_begin(&message, WIRE_INFO, WIRE_REPLY, 0);
    assert_true(record_put_heap(&message, &in));
    tlv = first_field();
    assert_true(record_get_heap(&tlv, &out));
    assert_memory_equal(&in, &out, sizeof(in));
    assert_false(record_get_process(&tlv, &(struct shms_process){ 0 }));
}

static void process_comes_out_as_it_went_in(void **state)
{
    struct shms_process in = { .struct_size = sizeof(in), .pid = -1, .uid = UINT32_MAX, .state = SHMS_DEAD, .command = "c", .heap = "h" }, out;
    struct wire_tlv tlv;

    (void)state;
    wire_begin(&message, WIRE_PROCESSES, WIRE_REPLY, 0);
    assert_true(record_put_process(&message, &in));
    tlv = first_field();
    assert_true(record_get_process(&tlv, &out));
    assert_memory_equal(&in, &out, sizeof(in));
    assert_false(record_get_heap(&tlv, &(struct shms_heap){ 0 }));
}

static void quota_comes_out_as_it_went_in(void **state)
{
    struct shms_quota in = { .struct_size = sizeof(in), .bytes = 1, .max_bytes = UINT64_MAX, .uid = 2, .max_requests = 3 }, out;
    struct wire_tlv tlv;

    (void)state;
    wire_begin(&message, WIRE_QUOTA, WIRE_REPLY, 0);
    assert_true(record_put_quota(&message, &in));
    tlv = first_field();
    assert_true(record_get_quota(&tlv, &out));
    assert_memory_equal(&in, &out, sizeof(in));
    wire_begin(&message, WIRE_QUOTA, WIRE_REPLY, 0);
    wire_put(&message, TLV_QUOTA, 0, &in, 71);
    tlv = first_field();
    assert_false(record_get_quota(&tlv, &out));
}

static void event_comes_out_as_it_went_in(void **state)
{
    struct shms_event in = { .struct_size = sizeof(in), .serial = 1, .time = -2, .bytes = 3, .kind = SHMS_EVENT_DIED, .command = "c", .heap = "h" }, out;
    struct wire_tlv tlv;

    (void)state;
    wire_begin(&message, WIRE_EVENTS, WIRE_REPLY, 0);
    assert_true(record_put_event(&message, &in));
    tlv = first_field();
    assert_true(record_get_event(&tlv, &out));
    assert_memory_equal(&in, &out, sizeof(in));
    wire_begin(&message, WIRE_EVENTS, WIRE_REPLY, 0);
    wire_put(&message, TLV_EVENT, 0, &in, 143);
    tlv = first_field();
    assert_false(record_get_event(&tlv, &out));
}

static void longer_record_of_a_newer_peer_is_cut(void **state)
{
    struct {
        struct shms_heap heap;
        char news[64];
    } in = { .heap = { .struct_size = sizeof(in), .size = 2, .name = "newer" }, .news = "unknown here" };
    struct shms_heap out;
    struct wire_tlv tlv;

    (void)state;
    wire_begin(&message, WIRE_INFO, WIRE_REPLY, 0);
    wire_put(&message, TLV_HEAP, 0, &in, sizeof(in));
    tlv = first_field();
    assert_true(record_get_heap(&tlv, &out));
    assert_int_equal(out.struct_size, sizeof(out));
    assert_string_equal(out.name, "newer");
}

static void shorter_record_than_the_first_version_is_refused(void **state)
{
    struct shms_heap heap;
    struct shms_process process;
    struct wire_tlv tlv;

    (void)state;
    memset(&heap, 0, sizeof(heap));
    wire_begin(&message, WIRE_INFO, WIRE_REPLY, 0);
    wire_put(&message, TLV_HEAP, 0, &heap, 159);
    tlv = first_field();
    assert_false(record_get_heap(&tlv, &heap));
    wire_begin(&message, WIRE_INFO, WIRE_REPLY, 0);
    wire_put(&message, TLV_PROCESS, 0, &heap, 103);
    tlv = first_field();
    assert_false(record_get_process(&tlv, &process));
}

static void names_without_an_end_get_one(void **state)
{
    struct shms_process in, out;
    struct wire_tlv tlv;

    (void)state;
    memset(&in, 'x', sizeof(in));
    wire_begin(&message, WIRE_PROCESSES, WIRE_REPLY, 0);
    record_put_process(&message, &in);
    tlv = first_field();
    assert_true(record_get_process(&tlv, &out));
    assert_int_equal(strlen(out.command), sizeof(out.command) - 1);
    assert_int_equal(strlen(out.heap), sizeof(out.heap) - 1);
}

static void request_is_of_the_latest_version_of_its_parts(void **state)
{
    struct shms_quota quota = { .struct_size = sizeof(quota), .max_bytes = 1 };
    struct wire_message m;

    (void)state;
    wire_begin(&m, WIRE_CREATE, 0, 0);
    wire_put_u64(&m, TLV_SIZE, TLV_CRITICAL, 1);
    assert_int_equal(record_since(&m), 1);
    wire_put_u64(&m, TLV_PAGE_SIZE, TLV_CRITICAL, 2 << 20);
    assert_int_equal(record_since(&m), 4);
    wire_begin(&m, WIRE_QUOTA, 0, 0);
    record_put_quota(&m, &quota);
    assert_int_equal(record_since(&m), 2);
    quota.max_huge = SHMS_NO_HUGE;
    wire_begin(&m, WIRE_QUOTA, 0, 0);
    record_put_quota(&m, &quota);
    assert_int_equal(record_since(&m), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heap_comes_out_as_it_went_in),
        cmocka_unit_test(process_comes_out_as_it_went_in),
        cmocka_unit_test(quota_comes_out_as_it_went_in),
        cmocka_unit_test(event_comes_out_as_it_went_in),
        cmocka_unit_test(longer_record_of_a_newer_peer_is_cut),
        cmocka_unit_test(shorter_record_than_the_first_version_is_refused),
        cmocka_unit_test(names_without_an_end_get_one),
        cmocka_unit_test(request_is_of_the_latest_version_of_its_parts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
