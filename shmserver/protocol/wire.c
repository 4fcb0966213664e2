#include "shmserver/protocol/wire.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"

struct tlv_header {
    uint16_t type;
    uint16_t flags;
    uint32_t length;
};

enum { TLV_ALIGN = 8 };

_Static_assert(sizeof(struct tlv_header) == TLV_ALIGN, "values begin aligned");
_Static_assert(sizeof(struct wire_header) % TLV_ALIGN == 0, "the first TLV begins aligned");

void wire_begin(struct wire_message *m, enum wire_type type, uint32_t flags, uint64_t sequence)
{
    m->header = (struct wire_header){ .magic = WIRE_MAGIC, .version = WIRE_VERSION_MAX, .type = (uint16_t)type,
                                      .flags = flags, .length = sizeof(m->header), .sequence = sequence };
}

bool wire_put(struct wire_message *m, enum wire_tlv_type type, unsigned flags, const void *value, size_t length)
{
    struct tlv_header tlv = { .type = (uint16_t)type, .flags = (uint16_t)flags, .length = (uint32_t)length };
    unsigned char *end = m->bytes + m->header.length;
    size_t padded;

    if (length > WIRE_MAX)
        return false;
    padded = align_up(length, TLV_ALIGN);
    if (sizeof(tlv) + padded > WIRE_MAX - m->header.length)
        return false;
    memcpy(end, &tlv, sizeof(tlv));
    memcpy(end + sizeof(tlv), value, length);
    memset(end + sizeof(tlv) + length, 0, padded - length);
    m->header.length += (uint32_t)(sizeof(tlv) + padded);
    return true;
}

bool wire_put_u64(struct wire_message *m, enum wire_tlv_type type, unsigned flags, uint64_t value)
{
    return wire_put(m, type, flags, &value, sizeof(value));
}

bool wire_put_text(struct wire_message *m, enum wire_tlv_type type, const char *text)
{
    return wire_put(m, type, 0, text, strlen(text));
}

bool wire_next(const struct wire_message *m, size_t *cursor, struct wire_tlv *ret)
{
    size_t at = *cursor ? *cursor : sizeof(m->header);
    struct tlv_header tlv;

    if (at >= m->header.length)
        return false;
    memcpy(&tlv, m->bytes + at, sizeof(tlv));
    *ret = (struct wire_tlv){ tlv.type, (tlv.flags & TLV_CRITICAL) != 0, tlv.length, m->bytes + at + sizeof(tlv) };
    *cursor = at + sizeof(tlv) + align_up(tlv.length, TLV_ALIGN);
    return true;
}

/* Every TLV lies inside the message, and they fill it exactly. */
static bool tlvs_are_valid(const struct wire_message *m)
{
    size_t at = sizeof(m->header);

    while (at < m->header.length) {
        size_t left = m->header.length - at;
        struct tlv_header tlv;

        if (left < sizeof(tlv))
            return false;
        memcpy(&tlv, m->bytes + at, sizeof(tlv));
        left -= sizeof(tlv);
        if (tlv.length > left || align_up(tlv.length, TLV_ALIGN) > left)
            return false;
        at += sizeof(tlv) + align_up(tlv.length, TLV_ALIGN);
    }
    return true;
}

int wire_check(const struct wire_message *m, size_t received, size_t n_fds)
{
    if (received < sizeof(m->header))
        return la_fail(-EBADMSG, "a message of %zu bytes is shorter than its header of %zu", received, sizeof(m->header));
    if (m->header.magic != WIRE_MAGIC)
        return la_fail(-EBADMSG, "a message begins with %#x instead of %#x: not our protocol", m->header.magic, WIRE_MAGIC);
    if (m->header.length != received || received > WIRE_MAX)
        return la_fail(-EBADMSG, "a message says that it has %u bytes, but %zu came", m->header.length, received);
    if (m->header.n_fds != n_fds)
        return la_fail(-EBADMSG, "a message says that it has %u descriptors, but %zu came", m->header.n_fds, n_fds);
    if (!tlvs_are_valid(m))
        return la_fail(-EBADMSG, "a message of type %u has a field that does not end inside it", m->header.type);
    return 0;
}

unsigned wire_unknown_critical(const struct wire_message *m)
{
    struct wire_tlv tlv;

    for (size_t cursor = 0; wire_next(m, &cursor, &tlv);)
        if (tlv.critical && (tlv.type == 0 || tlv.type >= TLV_TYPES))
            return tlv.type ? tlv.type : UINT16_MAX;
    return 0;
}

bool wire_find(const struct wire_message *m, enum wire_tlv_type type, struct wire_tlv *ret)
{
    for (size_t cursor = 0; wire_next(m, &cursor, ret);)
        if (ret->type == type)
            return true;
    return false;
}

bool wire_get_u64(const struct wire_message *m, enum wire_tlv_type type, uint64_t *ret)
{
    struct wire_tlv tlv;

    if (!wire_find(m, type, &tlv) || tlv.length != sizeof(*ret))
        return false;
    memcpy(ret, tlv.value, sizeof(*ret));
    return true;
}

bool wire_get_text(const struct wire_message *m, enum wire_tlv_type type, char *ret, size_t size)
{
    struct wire_tlv tlv;

    if (!wire_find(m, type, &tlv) || tlv.length >= size || memchr(tlv.value, '\0', tlv.length))
        return false;
    memcpy(ret, tlv.value, tlv.length);
    ret[tlv.length] = '\0';
    return true;
}
