/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Layouts of a queue's shared regions: what a client and an engine write to each other.
 *
 * Region 0 (MMIO) is one page, struct tandem_doorbell. Region 1 (DUS) holds the submission ring,
 * `depth` descriptors, and behind it the completion ring, `depth` completions. Indices run freely
 * (modulo 2^32); slot = index & (depth - 1). A client keeps at most `depth` requests in flight, so
 * neither ring can overflow. Completions arrive in submission order.
 *
 * Whoever reads a word that the other side writes loads it once, into a private copy: either side
 * may be hostile. All words are little-endian and naturally aligned; accesses are atomic.
 */
#ifndef TANDEM_ABI_RING_H
#define TANDEM_ABI_RING_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** An opcode's upper bits say what its buffers are for, so that a client can stage them unseen. */
#define TANDEM_OP_SRC_IN 0x1000u  /* [src, src_len) is read */
#define TANDEM_OP_DST_OUT 0x2000u /* [dst, dst_len) is written */
#define TANDEM_OP_DST_IN 0x4000u  /* [dst, dst_len) is read */

enum tandem_opcode {
  TANDEM_OP_INVALID = 0, /* what a hole punched in a ring reads as */
  TANDEM_OP_NOP = 1,
  /* mem; a length the operation has no use for is zero */
  /* src_len bytes; dst_len ≥ src_len. Ranges that overlap are copied as memmove does; where dst >
     src that is from the end, and after a fault `done` counts the bytes written there. */
  TANDEM_OP_COPY = TANDEM_OP_SRC_IN | TANDEM_OP_DST_OUT | 0x10,
  TANDEM_OP_FILL = TANDEM_OP_DST_OUT | 0x11, /* operand, 8 bytes repeated */
  /* dst_len = src_len; result: offset of the first difference, or src_len. A difference before an
     address that cannot be read is an answer, not a fault. */
  TANDEM_OP_COMPARE = TANDEM_OP_SRC_IN | TANDEM_OP_DST_IN | 0x12,
  /* result: CRC-32C. operand: 0, or the result for the bytes before these. */
  TANDEM_OP_CRC32C = TANDEM_OP_SRC_IN | 0x13,
  /* comp: param is the level for compression; result of compression: CRC-32 (deflate, gzip) or
     Adler-32 (zlib) of the input; result of decompression: input bytes consumed (one member). Each
     operand is at most TANDEM_MAX_CODEC_BYTES. */
  TANDEM_OP_DEFLATE = TANDEM_OP_SRC_IN | TANDEM_OP_DST_OUT | 0x20,
  TANDEM_OP_ZLIB = TANDEM_OP_SRC_IN | TANDEM_OP_DST_OUT | 0x21,
  TANDEM_OP_GZIP = TANDEM_OP_SRC_IN | TANDEM_OP_DST_OUT | 0x22,
  TANDEM_OP_INFLATE = TANDEM_OP_SRC_IN | TANDEM_OP_DST_OUT | 0x28,
  TANDEM_OP_ZLIB_INFLATE = TANDEM_OP_SRC_IN | TANDEM_OP_DST_OUT | 0x29,
  TANDEM_OP_GZIP_INFLATE = TANDEM_OP_SRC_IN | TANDEM_OP_DST_OUT | 0x2a,
  /* A stream over many requests; its state lives with the queue, in the engine. param is a
     TANDEM_FORMAT_…. TANDEM_DESC_FIRST starts a stream, TANDEM_DESC_LAST says that its input ends
     with these bytes. Completes with done = bytes produced, result = bytes consumed (submit the
     rest again); flag TANDEM_CPL_STREAM_END at the end of one member. An operand that faults at
     once leaves the stream as it was; any other error ends it. Lengths are not limited. */
  TANDEM_OP_INFLATE_STREAM = TANDEM_OP_SRC_IN | TANDEM_OP_DST_OUT | 0x30,
  /* kxo: see kxo.h */
  TANDEM_OP_KXO_GET_ID = TANDEM_OP_SRC_IN | 0x40,
  TANDEM_OP_KXO_SET_PERMISSION = 0x41,
  TANDEM_OP_KXO_RELEASE_ID = 0x42,
  TANDEM_OP_KXO_WRITE = 0x43,
  TANDEM_OP_KXO_BOARD = TANDEM_OP_DST_OUT | 0x44,
  TANDEM_OP_KXO_RESUME = 0x45,
};

/** descriptor flags */
#define TANDEM_DESC_FIRST 0x1u /* first request of a stream */
#define TANDEM_DESC_LAST 0x2u  /* no input follows: a stream that needs more is TRUNCATED_INPUT */

/** param of a compression: 1 (fastest) … 12 (smallest); gzip's -1 … -9 mean the same numbers */
#define TANDEM_LEVEL_DEFAULT 0u /* the fastest */
#define TANDEM_LEVEL_FASTEST 1u
#define TANDEM_LEVEL_BEST 12u

/** param of TANDEM_OP_INFLATE_STREAM */
#define TANDEM_FORMAT_DEFLATE 0u
#define TANDEM_FORMAT_ZLIB 1u
#define TANDEM_FORMAT_GZIP 2u

/** Longest operand of a one-shot compression or decompression, in bytes; beyond: BAD_DESCRIPTOR. */
#define TANDEM_MAX_CODEC_BYTES (64u << 20)

/** A dst_len with which compressing `length` bytes never ends with OUTPUT_TOO_SMALL. */
static inline uint64_t tandem_compress_bound(uint32_t length) {
  return (uint64_t)length + 5 * ((uint64_t)length / 65535 + 1) + 18;
}

/** What a client asks for. 64 bytes. Reserved words are zero. */
struct tandem_descriptor {
  uint16_t opcode;
  uint16_t flags;
  uint32_t param;
  uint64_t src;     /* virtual address in the client */
  uint64_t dst;     /* virtual address in the client */
  uint32_t src_len; /* bytes */
  uint32_t dst_len; /* bytes */
  uint64_t operand;
  uint64_t tag; /* comes back in the completion */
  uint64_t reserved[2];
};

enum tandem_status {
  TANDEM_STATUS_OK = 0,
  TANDEM_STATUS_FAULT = 1,          /* fault_address cannot be accessed */
  TANDEM_STATUS_UNKNOWN_OPCODE = 2, /* not an operation of this device */
  TANDEM_STATUS_BAD_DESCRIPTOR =
      3,                       /* reserved bits, flags, param or lengths that no operation takes */
  TANDEM_STATUS_BAD_RANGE = 4, /* address + length wraps or is not a user address */
  TANDEM_STATUS_OUTPUT_TOO_SMALL = 5,
  TANDEM_STATUS_CORRUPT_INPUT = 6,
  TANDEM_STATUS_TRUNCATED_INPUT = 7,
  TANDEM_STATUS_NEEDS_STAGING =
      8, /* fault_address is memory that could block: copy it to reserved memory */
  TANDEM_STATUS_CANCELLED = 9,    /* the queue was put while the request waited */
  TANDEM_STATUS_DEVICE_LOST = 10, /* made up by the client library when the queue died */
  /* kxo, see kxo.h */
  TANDEM_STATUS_UNKNOWN_ID = 11,    /* the queue has no user of this id */
  TANDEM_STATUS_WRONG_TURN = 12,    /* it is not the turn of a player whom the client moves */
  TANDEM_STATUS_ILLEGAL_CELL = 13,  /* taken, or not on the board */
  TANDEM_STATUS_UNKNOWN_AGENT = 14, /* nobody plays under this number */
  TANDEM_STATUS_NO_ROOM = 15,       /* a quota is used up */
  TANDEM_STATUS_WOULD_BLOCK = 16,   /* the ring of moves is full: take some first */
};

/** completion flags; the phase is 1 in the first pass over the ring and flips with each pass */
#define TANDEM_CPL_PHASE 0x1u
#define TANDEM_CPL_STREAM_END 0x2u
#define TANDEM_CPL_ZERO_COPY 0x4u /* all operands were reached in place */

/** What an engine answers. 32 bytes. The last eight bytes are written last, with one store. */
struct tandem_completion {
  uint64_t tag;
  uint64_t fault_address;
  uint64_t result;
  uint32_t done; /* bytes written (operations without output: bytes read) before the end or fault */
  uint16_t status; /* enum tandem_status */
  uint16_t flags;
};

enum tandem_queue_state {
  TANDEM_QUEUE_ALIVE = 0,
  TANDEM_QUEUE_PUT = 1,            /* released by its owner */
  TANDEM_QUEUE_BAD_TAIL = 2,       /* the tail ran more than `depth` ahead */
  TANDEM_QUEUE_OWNER_GONE = 3,     /* its address space ended (exit, exec, kill) */
  TANDEM_QUEUE_STUCK = 4,          /* an access of its engine never returned */
  TANDEM_QUEUE_DEVICE_REMOVED = 5, /* device or broker went away */
};

/** values of `waiting` */
#define TANDEM_WAIT_NONE 0u
#define TANDEM_WAIT_FUTEX 1u /* the client sleeps on `event` */
#define TANDEM_WAIT_FD 2u    /* the client wants its event descriptor signalled */

/**
 * The doorbell page. Each block of 64 bytes has one writer.
 *
 * Fences: the client stores `tail`, then loads `parked`; the engine stores `parked`, then loads
 * `tail`. Likewise completion/`waiting`. Between each store and load stands a full fence.
 */
struct tandem_doorbell {
  /* client */
  uint32_t tail; /* descriptors published so far */
  uint32_t client_pad[15];
  /* client */
  uint32_t waiting;
  uint32_t waiting_pad[15];
  /* engine */
  uint32_t parked; /* 1: write the wake descriptor after publishing */
  uint32_t state;  /* enum tandem_queue_state; leaves ALIVE once */
  uint32_t event;  /* futex word: bumped before a sleeping client is woken */
  uint32_t engine_pad[13];
};

#define TANDEM_MIN_DEPTH 2u
#define TANDEM_MAX_DEPTH 65536u
#define TANDEM_DEFAULT_DEPTH 256u

/** Bytes of the DUS region that rings of `depth` (a power of two) use, before rounding to pages. */
static inline uint64_t tandem_rings_size(uint32_t depth) { return (uint64_t)depth * (64 + 32); }

#ifdef __cplusplus
}
static_assert(sizeof(tandem_descriptor) == 64 && sizeof(tandem_completion) == 32);
static_assert(sizeof(tandem_doorbell) == 192);
#endif

#endif
