/*
 * record.h - heaps, processes, quotas and events in messages: the public structs, as they are.
 *
 * They have fixed-width fields and are only ever appended to, so the older side cuts off what it does not know and the
 * newer one sees zeros.
 */
#ifndef PROTOCOL_RECORD_H
#define PROTOCOL_RECORD_H

#include <shmserver/client.h>

#include "shmserver/protocol/wire.h"

/* false: no room left in the message */
bool record_put_heap(struct wire_message *m, const struct shms_heap *heap);
bool record_put_process(struct wire_message *m, const struct shms_process *process);
bool record_put_quota(struct wire_message *m, const struct shms_quota *quota);

/* Read a TLV of that type; struct_size of the result is that of this code. false: too short to be one. */
bool record_put_event(struct wire_message *m, const struct shms_event *event);
bool record_get_heap(const struct wire_tlv *tlv, struct shms_heap *ret);
bool record_get_process(const struct wire_tlv *tlv, struct shms_process *ret);
bool record_get_event(const struct wire_tlv *tlv, struct shms_event *ret);
bool record_get_quota(const struct wire_tlv *tlv, struct shms_quota *ret);

/* The first version of the protocol that has all of this request: its type, its fields, and what its records say. */
unsigned record_since(const struct wire_message *m);

#endif
