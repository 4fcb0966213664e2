#include "shmserver/protocol/record.h"

#include <string.h>

_Static_assert(sizeof(struct shms_heap) == 8 * 9 + 4 * 6 + 64 + 4 * 4 + 8, "no padding: the struct is part of the protocol");
_Static_assert(sizeof(struct shms_process) == 8 + 4 * 4 + 16 + 64, "no padding: the struct is part of the protocol");

_Static_assert(sizeof(struct shms_quota) == 8 * 9 + 4 * 6, "no padding: the struct is part of the protocol");
_Static_assert(sizeof(struct shms_event) == 8 * 5 + 4 * 6 + 16 + 64 + 8 * 3 + 64 + 160, "no padding: the struct is part of the protocol");

/* Sizes in the version of the protocol that they came with: every peer has at least these. */
enum { HEAP_SIZE_1 = 160, PROCESS_SIZE_1 = 104, QUOTA_SIZE_2 = 72, EVENT_SIZE_2 = 144 };

bool record_put_heap(struct wire_message *m, const struct shms_heap *heap)
{
    return wire_put(m, TLV_HEAP, 0, heap, sizeof(*heap));
}

bool record_put_process(struct wire_message *m, const struct shms_process *process)
{
    return wire_put(m, TLV_PROCESS, 0, process, sizeof(*process));
}

bool record_put_quota(struct wire_message *m, const struct shms_quota *quota)
{
    return wire_put(m, TLV_QUOTA, 0, quota, sizeof(*quota));
}

bool record_put_event(struct wire_message *m, const struct shms_event *event)
{
    return wire_put(m, TLV_EVENT, 0, event, sizeof(*event));
}

bool record_get_heap(const struct wire_tlv *tlv, struct shms_heap *ret)
{
    if (tlv->type != TLV_HEAP || tlv->length < HEAP_SIZE_1)
        return false;
    *ret = (struct shms_heap){ 0 };
    memcpy(ret, tlv->value, MIN(tlv->length, sizeof(*ret)));
    ret->struct_size = sizeof(*ret);
    ret->name[sizeof(ret->name) - 1] = '\0';
    return true;
}

bool record_get_process(const struct wire_tlv *tlv, struct shms_process *ret)
{
    if (tlv->type != TLV_PROCESS || tlv->length < PROCESS_SIZE_1)
        return false;
    *ret = (struct shms_process){ 0 };
    memcpy(ret, tlv->value, MIN(tlv->length, sizeof(*ret)));
    ret->struct_size = sizeof(*ret);
    ret->command[sizeof(ret->command) - 1] = '\0';
    ret->heap[sizeof(ret->heap) - 1] = '\0';
    return true;
}

bool record_get_quota(const struct wire_tlv *tlv, struct shms_quota *ret)
{
    if (tlv->type != TLV_QUOTA || tlv->length < QUOTA_SIZE_2)
        return false;
    *ret = (struct shms_quota){ 0 };
    memcpy(ret, tlv->value, MIN(tlv->length, sizeof(*ret)));
    ret->struct_size = sizeof(*ret);
    return true;
}

bool record_get_event(const struct wire_tlv *tlv, struct shms_event *ret)
{
    if (tlv->type != TLV_EVENT || tlv->length < EVENT_SIZE_2)
        return false;
    *ret = (struct shms_event){ 0 };
    memcpy(ret, tlv->value, MIN(tlv->length, sizeof(*ret)));
    ret->struct_size = sizeof(*ret);
    ret->command[sizeof(ret->command) - 1] = '\0';
    ret->heap[sizeof(ret->heap) - 1] = '\0';
    ret->heir[sizeof(ret->heir) - 1] = '\0';
    ret->reason[sizeof(ret->reason) - 1] = '\0';
    return true;
}

/* A limit of huge pages: an older daemon would read the rest of the record, and say that all is done. */
static bool limits_huge_pages(const struct wire_message *m)
{
    struct shms_quota quota;
    struct wire_tlv tlv;

    return wire_find(m, TLV_QUOTA, &tlv) && record_get_quota(&tlv, &quota) && quota.max_huge != 0;
}

unsigned record_since(const struct wire_message *m)
{
    unsigned since = wire_type_since(m->header.type);
    struct wire_tlv tlv;

    return wire_find(m, TLV_PAGE_SIZE, &tlv) || limits_huge_pages(m) ? MAX(since, (unsigned)WIRE_HUGE_SINCE) : since;
}
