/*
 * wire.h - the messages between client and daemon. docs/shmserver.md is the reference.
 *
 *   | header 32 bytes | TLV | TLV | ...      one SOCK_SEQPACKET message, at most WIRE_MAX bytes
 *
 *   header: | magic 4 | version 2 | type 2 | flags 4 | length 4 | sequence 8 | status 4 | n_fds 4 |
 *   TLV:    | type 2 | flags 2 | length 4 | value, padded with zeros to a multiple of 8 |
 *
 * Little-endian. A receiver ignores a TLV type it does not know, unless its critical bit is set. Whoever reads a
 * message has called wire_check() on it: from then on every length in it can be believed.
 */
#ifndef PROTOCOL_WIRE_H
#define PROTOCOL_WIRE_H

#include "base/util.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire format is little-endian, and so are our machines");

#define WIRE_MAGIC 0x534d4853u  /* "SHMS" */

enum {
    WIRE_VERSION_MIN = 1,       /* what this code speaks */
    WIRE_VERSION_MAX = 4,
    WIRE_MAX = 4096,            /* bytes of a message */
};

/* Requests; the reply has the same type and WIRE_REPLY. In brackets: optional. */
enum wire_type {
    WIRE_HELLO = 1,     /* VERSION_MIN VERSION_MAX -> VERSION SERVER; must be the first, and may be repeated */
    WIRE_CREATE,        /* NAME SIZE [PAGE_SIZE] [KEY] -> ID */
    WIRE_ATTACH,        /* NAME [SIZE [PAGE_SIZE] [EXCLUSIVE] [KEY]] [READ_ONLY] -> ID, one descriptor */
    WIRE_DETACH,        /* ID */
    WIRE_REMOVE,        /* NAME */
    WIRE_LIST,          /* [AFTER] -> HEAP... [NEXT] */
    WIRE_INFO,          /* NAME -> HEAP */
    WIRE_PROCESSES,     /* [NAME] [AFTER] -> PROCESS... [NEXT] */
    /* Since version 2: */
    WIRE_ACL,           /* NAME [OWNER] [GROUP] [MODE] */
    WIRE_SEAL,          /* NAME */
    WIRE_QUOTA,         /* QUOTA: set it; or [AFTER] -> QUOTA... [NEXT] */
    WIRE_EVENTS,        /* [AFTER] -> EVENT... [NEXT] */
    WIRE_KICK,          /* PID [KILL] */
    WIRE_GC,            /* -> RECOVERED FREED */
    /* Since version 3: */
    WIRE_RESUME,        /* ID, one descriptor: through which the client is attached already */
    WIRE_TYPES
};

enum wire_tlv_type {
    TLV_TEXT = 1,       /* of a refusal: a sentence */
    TLV_VERSION_MIN,    /* u64, as are all but the named */
    TLV_VERSION_MAX,
    TLV_VERSION,
    TLV_SERVER,         /* text: name and version of the daemon */
    TLV_NAME,           /* text */
    TLV_SIZE,
    TLV_KEY,            /* a CREATE repeated with the same random key is the same CREATE */
    TLV_EXCLUSIVE,      /* ATTACH: the heap must be new */
    TLV_ID,
    TLV_AFTER,          /* cursor: where the next page of a list begins */
    TLV_NEXT,           /* there is more: repeat with AFTER of this value */
    TLV_HEAP,           /* struct shms_heap */
    TLV_PROCESS,        /* struct shms_process */
    TLV_OWNER,
    TLV_GROUP,
    TLV_MODE,
    TLV_QUOTA,          /* struct shms_quota */
    TLV_READ_ONLY,      /* ATTACH: a descriptor for reading only */
    TLV_EVENT,          /* struct shms_event */
    TLV_PID,
    TLV_KILL,           /* KICK: end the process, not only its connections */
    TLV_RECOVERED,      /* processes */
    TLV_FREED,          /* heaps */
    /* Since version 4: */
    TLV_PAGE_SIZE,      /* of a new heap: of huge pages of so many bytes */
    TLV_TYPES
};

enum wire_flags { WIRE_REPLY = 1u << 0 };
enum wire_tlv_flags { TLV_CRITICAL = 1u << 0 };

struct wire_header {
    uint32_t magic;
    uint16_t version;
    uint16_t type;
    uint32_t flags;
    uint32_t length;        /* of the whole message */
    uint64_t sequence;      /* chosen by the client, repeated in the reply */
    int32_t status;         /* 0 or a negative errno; of requests 0 */
    uint32_t n_fds;
};

/* The only request that brings a descriptor. */
static inline bool wire_brings_fd(unsigned type)
{
    return type == WIRE_RESUME;
}

_Static_assert(sizeof(struct wire_header) == 32, "the header is part of the protocol");

struct wire_message {
    union {
        struct wire_header header;
        unsigned char bytes[WIRE_MAX];
    };
};

struct wire_tlv {
    uint16_t type;
    bool critical;
    uint32_t length;
    const void *value;
};

/* The first version of the protocol that has this request. Who has agreed on an older one does not send it. */
static inline unsigned wire_type_since(unsigned type)
{
    return type <= WIRE_PROCESSES ? 1 : type <= WIRE_GC ? 2 : 3;
}

/* The same for heaps of huge pages: who has agreed on an older version does not see them. */
enum { WIRE_HUGE_SINCE = 4 };

/* An empty message. */
void wire_begin(struct wire_message *m, enum wire_type type, uint32_t flags, uint64_t sequence);

/* Append a TLV. false: it does not fit, the message is as before. */
bool wire_put(struct wire_message *m, enum wire_tlv_type type, unsigned flags, const void *value, size_t length);
bool wire_put_u64(struct wire_message *m, enum wire_tlv_type type, unsigned flags, uint64_t value);
bool wire_put_text(struct wire_message *m, enum wire_tlv_type type, const char *text);

/*
 * Is what was received a well-formed message? @received: bytes that came, @n_fds: descriptors that came.
 * Return: 0, or -EBADMSG with the reason in la_last_error().
 */
int wire_check(const struct wire_message *m, size_t received, size_t n_fds);

/* A critical TLV that we do not know, which must not be ignored: its type, or 0. */
unsigned wire_unknown_critical(const struct wire_message *m);

/* Walk through a checked message: *cursor is 0 at first. false: no more. */
bool wire_next(const struct wire_message *m, size_t *cursor, struct wire_tlv *ret);

/* The first TLV of a type. Of the two others: false also if it has the wrong length (text: too long, or a NUL inside). */
bool wire_find(const struct wire_message *m, enum wire_tlv_type type, struct wire_tlv *ret);
bool wire_get_u64(const struct wire_message *m, enum wire_tlv_type type, uint64_t *ret);
bool wire_get_text(const struct wire_message *m, enum wire_tlv_type type, char *ret, size_t size);

#endif
