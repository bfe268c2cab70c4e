/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Messages on a broker's socket (AF_UNIX, SOCK_SEQPACKET): one request, one reply, in order.
 *
 * A message is a header and one body, sized exactly as its type says; anything else is answered
 * with -EPROTO or -EBADMSG and nothing happens. Every message carries the sender's credentials (the
 * kernel's, SO_PASSCRED): one from another process than said HELLO is dropped without an answer,
 * since that would reach whoever reads first. A client skips answers whose sequence is not its own.
 * Descriptors travel as SCM_RIGHTS; a request with descriptors it should not have is refused.
 */
#ifndef TANDEM_ABI_CONTROL_H
#define TANDEM_ABI_CONTROL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TANDEM_PROTOCOL_MIN 1u
#define TANDEM_PROTOCOL_MAX 1u

enum tandem_message_type {
  TANDEM_MSG_HELLO = 1,   /* + [mem, maps] descriptors unless TANDEM_HELLO_RESERVED_ONLY */
  TANDEM_MSG_DEVICES = 2, /* one device by index; -ENOENT behind the last */
  TANDEM_MSG_OPEN = 3,    /* a queue, state INIT */
  TANDEM_MSG_MAP = 4,     /* a region's descriptor, once */
  TANDEM_MSG_START = 5,   /* INIT → STARTED; else -EINVAL */
  TANDEM_MSG_PUT = 6,     /* stop and return the queue; idempotent */
  TANDEM_MSG_RESERVE = 7, /* reserved memory: its descriptor */
  TANDEM_MSG_ATTACH = 8,  /* where the client mapped it */
  TANDEM_MSG_RELEASE = 9, /* when the reply comes, no engine reaches it */
  TANDEM_MSG_HOLD = 10,   /* keep the engine awake for this queue, or no longer */
  TANDEM_MSG_EVENT = 11,  /* a descriptor that becomes readable when TANDEM_WAIT_FD is served */
  TANDEM_MSG_STATS = 12,  /* the sender's own accounts */
  TANDEM_MSG_DETACH = 13, /* client → broker: takes back ATTACH, keeps the memory */
};

struct tandem_message_header {
  uint32_t type;
  uint32_t size;     /* bytes, header included */
  uint32_t sequence; /* echoed */
  int32_t status;    /* in replies: 0 or a negative errno */
};

#define TANDEM_HELLO_RESERVED_ONLY 0x1u /* no mem descriptor: only reserved memory is reachable */

struct tandem_hello {
  uint32_t version_min, version_max;
  uint32_t flags;
  uint32_t reserved;
  uint64_t nonce_address; /* of a 16-byte nonce in the sender's memory, read back through `mem` */
  uint8_t nonce[16];
};
/* reply: + [wake eventfd, token memfd]; the client re-opens and maps the token (MADV_DONTFORK) and
   closes both, so that the end of its address space closes the last mapping */
struct tandem_hello_reply {
  uint32_t version;
  uint32_t flags; /* 0 */
  uint32_t client;
  uint32_t pasid;
};

struct tandem_devices {
  uint32_t index;
  uint32_t reserved;
};
#define TANDEM_NAME_SIZE 32
#define TANDEM_ALGORITHMS_SIZE 384
struct tandem_devices_reply {
  char name[TANDEM_NAME_SIZE];
  char api[TANDEM_NAME_SIZE];
  char algorithms[TANDEM_ALGORITHMS_SIZE]; /* one a line */
  uint32_t flags;                          /* bit 0: SVA */
  int32_t numa_node;                       /* -1: none */
  uint32_t queues_max;
  uint32_t queues_used;
  uint32_t clients;
  uint32_t engines;    /* threads that can run it at once */
  uint64_t operations; /* completed since start */
  uint64_t bytes;      /* read by operations */
  uint64_t region_mmio_size, region_dus_size;
};
#define TANDEM_DEVICE_SVA 0x1u

struct tandem_open {
  char algorithm[TANDEM_NAME_SIZE]; /* or a device's name */
  uint32_t depth;                   /* power of two */
  uint32_t flags;                   /* 0 */
};
struct tandem_open_reply {
  char device[TANDEM_NAME_SIZE];
  uint32_t queue; /* handle, unique in the broker's life */
  uint32_t depth;
  uint32_t flags; /* 0 */
  uint32_t device_flags;
  uint64_t region_mmio_size, region_dus_size;
};

enum tandem_region { TANDEM_REGION_MMIO = 0, TANDEM_REGION_DUS = 1, TANDEM_REGION_SS = 2 };
struct tandem_map {
  uint32_t queue;
  uint32_t region;
  uint64_t size;
};
struct tandem_queue_message {
  uint32_t queue;
  uint32_t value;
}; /* START, PUT, HOLD, EVENT */

struct tandem_reserve {
  uint64_t size;
};
struct tandem_reserve_reply {
  uint64_t id;
  uint64_t size;
};
struct tandem_attach {
  uint64_t id;
  uint64_t address;
}; /* ATTACH, DETACH, RELEASE */

struct tandem_stats_reply {
  uint64_t operations, faults; /* completed; completed with FAULT */
  uint64_t bytes_zero_copy, bytes_copied;
  uint64_t page_faults; /* page requests served with success */
  uint64_t translations, translation_hits;
  uint64_t queues, reserved_bytes;
};

#ifdef __cplusplus
}
#endif

#endif
