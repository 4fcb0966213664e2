/*
 * wire.c - fuzz target: the decoder of messages and records. The first byte is the number of descriptors that came along, the rest the message.
 *
 * What wire_check() has let through can be walked without a look at any length, has each field inside of it, and says the same when it is written anew.
 */
#include "input.h"

#include "shmserver/protocol/record.h"
#include "shmserver/protocol/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_text(const void *bytes, size_t size, size_t length)
{
    return length < size && memchr(bytes, '\0', size) == (const char *)bytes + length;
}

static void read_records(const struct wire_tlv *tlv)
{
    struct shms_process process;
    struct shms_quota quota;
    struct shms_event event;
    struct shms_heap heap;

    if (record_get_heap(tlv, &heap))
        REQUIRE(is_text(heap.name, sizeof(heap.name), strlen(heap.name)));
    if (record_get_process(tlv, &process))
        REQUIRE(is_text(process.heap, sizeof(process.heap), strlen(process.heap)));
    if (record_get_event(tlv, &event))
        REQUIRE(is_text(event.heap, sizeof(event.heap), strlen(event.heap)));
    if (record_get_quota(tlv, &quota))
        REQUIRE(quota.struct_size == sizeof(quota));
}

static void read_fields(const struct wire_message *m)
{
    char text[64];
    uint64_t value;

    for (unsigned type = 0; type <= TLV_TYPES; type++) {
        wire_get_u64(m, (enum wire_tlv_type)type, &value);
        if (wire_get_text(m, (enum wire_tlv_type)type, text, sizeof(text)))
            REQUIRE(is_text(text, sizeof(text), strlen(text)));
    }
    wire_unknown_critical(m);
}

/* Return: number of fields. */
static unsigned write_anew(const struct wire_message *m, struct wire_message *copy)
{
    struct wire_tlv tlv;
    unsigned n = 0;

    wire_begin(copy, (enum wire_type)m->header.type, m->header.flags, m->header.sequence);
    for (size_t cursor = 0; wire_next(m, &cursor, &tlv); n++) {
        REQUIRE((const unsigned char *)tlv.value + tlv.length <= m->bytes + m->header.length);
        REQUIRE(wire_put(copy, (enum wire_tlv_type)tlv.type, tlv.critical ? TLV_CRITICAL : 0, tlv.value, tlv.length));
        read_records(&tlv);
    }
    return n;
}

static void compare(const struct wire_message *a, const struct wire_message *b, unsigned fields)
{
    struct wire_tlv of_a, of_b;
    size_t at_a = 0, at_b = 0;

    REQUIRE(a->header.length == b->header.length && wire_check(b, b->header.length, 0) == 0);
    for (unsigned i = 0; i < fields; i++) {
        REQUIRE(wire_next(a, &at_a, &of_a) && wire_next(b, &at_b, &of_b));
        REQUIRE(of_a.type == of_b.type && of_a.critical == of_b.critical && of_a.length == of_b.length);
        REQUIRE(memcmp(of_a.value, of_b.value, of_a.length) == 0);
    }
    REQUIRE(!wire_next(b, &at_b, &of_b));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };
    unsigned fds = take8(&in);
    struct wire_message *copy = calloc(1, sizeof(*copy)), *m;
    size_t received = in.left;

    /* Exactly as large as what was received, so that the sanitizer sees a look behind it; but for the header, which the type has. */
    m = calloc(1, MAX(received, sizeof(struct wire_header)));
    REQUIRE(copy && m);
    if (received <= WIRE_MAX) {
        memcpy(m->bytes, in.at, received);
        if (wire_check(m, received, fds) == 0) {
            read_fields(m);
            compare(m, copy, write_anew(m, copy));
        }
    }
    free(copy);
    free(m);
    return 0;
}
