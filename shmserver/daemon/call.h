/*
 * call.h - one request on its way to an answer: what the handlers of answer.c and answer_admin.c share.
 */
#ifndef DAEMON_CALL_H
#define DAEMON_CALL_H

#include "shmserver/daemon/peer.h"
#include "shmserver/daemon/registry.h"
#include "shmserver/protocol/wire.h"

/* A request and the answer that grows. Handlers return 0, or a negative errno with its sentence in la_last_error(). */
struct call {
    struct peer *peer;
    struct registry *registry;
    const struct wire_message *request;
    struct wire_message *reply;
    int received;               /* a descriptor that came with the request, -1: none; closed by the caller */
    int fd;                     /* one to go with the answer, -1: none */
};

/* The heap that the request names. Return: 0, -EINVAL, -ENOENT. */
int call_get_segment(const struct call *call, struct segment **ret);
/* Leaves *ret alone when the field is not there. false: it is too large. */
bool call_get_u32(const struct call *call, enum wire_tlv_type type, uint32_t *ret);

/* Not what the version of the protocol that the caller speaks has not: heaps of huge pages. */
bool call_sees(const struct call *call, const struct segment *segment);

bool call_may(const struct call *call, const struct segment *segment, enum acl_right right);
/* Return: 0, -EACCES. */
int call_check_right(const struct call *call, const struct segment *segment, enum acl_right right);

/* What the caller does to @segment, for who wants to know. */
void call_tell(const struct call *call, enum shms_event_kind kind, const struct segment *segment);

/* Of a list: does one more record of that size fit, and the cursor after it? */
bool call_has_room(const struct call *call, size_t record);

#endif
