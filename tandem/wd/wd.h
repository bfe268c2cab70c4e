/* SPDX-License-Identifier: Apache-2.0 */
/**
 * WarpDrive: an accelerator as another thread of your process.
 *
 * Open a queue, send requests that hold plain pointers, receive them back completed. While the
 * engine is awake neither wd_send() nor wd_recv() makes a system call, but for operands that have
 * to be staged.
 *
 *     struct wd_queue q = WD_QUEUE_INIT;
 *     q.algorithm = "crc32c";
 *     wd_request_queue(&q);
 *     struct wd_request r = {.opcode = WD_OP_CRC32C, .src = data, .src_len = size};
 *     wd_send(&q, &r); wd_recv_sync(&q, &(struct wd_request *){0});
 *
 * Staging: operands that an engine may not reach (any but reserved memory in the tier
 * TANDEM_TRUST=reserved-only; memory that could block for ever in all tiers) are copied through
 * reserved memory in wd_send() and wd_recv(), which makes system calls and may have to reserve
 * more.
 *
 * Threads: a queue belongs to one thread at a time; open one for each thread. Different queues
 * share no lock on the send and receive path, unless they stage.
 *
 * Fork: a child may go on using the same struct wd_queue: its first call opens a new queue with the
 * same parameters. Requests in flight stay the parent's. Reserved memory is not inherited. After
 * exec nothing of this exists. vfork() and CLONE_VM share the queue as they share the memory: who
 * has the same memory may send and receive. A broker, though, serves the process alone that
 * connected: to others, calls that ask it something (all but sending, receiving, wd_flush(),
 * wd_cancel(), wd_in_flight()) fail with -EPERM.
 *
 * Errors: negative errno, besides requests' own status. -ENODEV when no broker or device has the
 * algorithm, -ECONNREFUSED when nobody listens at the socket that was asked for, -EACCES when the
 * broker is not one to trust, -EBUSY when a ring is full (wd_send) or
 * -EAGAIN when nothing has completed (wd_recv), -ENOMSG when nothing is in flight (wd_recv_sync),
 * -ESHUTDOWN when the queue died and everything in flight has been received, -ETIMEDOUT when a
 * broker did not answer in ten seconds (a queue that is released in the midst of a long request may
 * keep it that long): that call failed, the queues go on.
 */
#ifndef TANDEM_WD_WD_H
#define TANDEM_WD_WD_H

#include <stddef.h>
#include <stdint.h>

#include "tandem/abi/ring.h"

#ifdef __cplusplus
extern "C" {
#define WD_NOEXCEPT noexcept
#else
#define WD_NOEXCEPT
#endif

/** Operations: what the request's fields mean is said at enum tandem_opcode. */
enum wd_opcode {
  WD_OP_NOP = TANDEM_OP_NOP,
  WD_OP_COPY = TANDEM_OP_COPY,
  WD_OP_FILL = TANDEM_OP_FILL,
  WD_OP_COMPARE = TANDEM_OP_COMPARE,
  WD_OP_CRC32C = TANDEM_OP_CRC32C,
  WD_OP_DEFLATE = TANDEM_OP_DEFLATE,
  WD_OP_ZLIB = TANDEM_OP_ZLIB,
  WD_OP_GZIP = TANDEM_OP_GZIP,
  WD_OP_INFLATE = TANDEM_OP_INFLATE,
  WD_OP_ZLIB_INFLATE = TANDEM_OP_ZLIB_INFLATE,
  WD_OP_GZIP_INFLATE = TANDEM_OP_GZIP_INFLATE,
  WD_OP_INFLATE_STREAM = TANDEM_OP_INFLATE_STREAM,
  WD_OP_KXO_GET_ID = TANDEM_OP_KXO_GET_ID,
  WD_OP_KXO_SET_PERMISSION = TANDEM_OP_KXO_SET_PERMISSION,
  WD_OP_KXO_RELEASE_ID = TANDEM_OP_KXO_RELEASE_ID,
  WD_OP_KXO_WRITE = TANDEM_OP_KXO_WRITE,
  WD_OP_KXO_BOARD = TANDEM_OP_KXO_BOARD,
  WD_OP_KXO_RESUME = TANDEM_OP_KXO_RESUME,
};

/** Where a queue's requests run. */
enum wd_path {
  WD_PATH_AUTO = 0,     /* TANDEM=…, else a broker that is there, else embedded */
  WD_PATH_BROKER = 1,   /* in a broker's process */
  WD_PATH_EMBEDDED = 2, /* on an engine thread of this process */
  WD_PATH_INLINE = 3,   /* in the calling thread */
};

/**
 * A queue. Set `size` (WD_QUEUE_INIT does) and what you want; wd_request_queue() fills in the rest.
 *
 * Its size may grow: the library touches only the first `size` bytes.
 */
struct wd_queue {
  size_t size;           /* in: sizeof(struct wd_queue) */
  const char *algorithm; /* in: "gzip", or a device's name, "comp-0"; copied */
  uint32_t depth;  /* in: requests in flight at most, a power of two; 0: 256. out: what it is */
  uint32_t path;   /* in: enum wd_path. out: where it runs */
  char device[32]; /* out: name of the device */
  uint32_t device_flags; /* out: bit 0 SVA */
  uint32_t reserved;     /* 0 */
  uint64_t opaque[8];    /* the library's */
};
#define WD_QUEUE_INIT                                  \
  {                                                    \
    sizeof(struct wd_queue), 0, 0, 0, {0}, 0, 0, { 0 } \
  }

/**
 * One request. The caller owns it and keeps it, and the buffers, until wd_recv() has returned it.
 * A request that is sent twice before it came back is refused with -EINVAL.
 *
 * It has no size field since its size is fixed: these 88 bytes are all it will ever be. Zero what
 * you do not set.
 */
struct wd_request {
  uint16_t opcode;  /* enum wd_opcode */
  uint16_t flags;   /* TANDEM_DESC_… */
  uint32_t param;   /* e.g. compression level */
  const void *src;  /* any pointer */
  void *dst;        /* any pointer */
  uint32_t src_len; /* bytes */
  uint32_t dst_len; /* bytes */
  uint64_t operand; /* e.g. fill pattern, checksum seed */
  void *user;       /* not touched */
  /* results */
  uint16_t status;        /* enum tandem_status */
  uint16_t result_flags;  /* TANDEM_CPL_… */
  uint32_t done;          /* bytes produced, or read by operations without output */
  uint64_t result;        /* e.g. checksum */
  uint64_t fault_address; /* with TANDEM_STATUS_FAULT: what could not be accessed */
  uint64_t opaque[2];     /* the library's; zero before the first send */
};
#ifdef __cplusplus
static_assert(sizeof(struct wd_request) == 88, "its size is part of the ABI");
#else
_Static_assert(sizeof(struct wd_request) == 88, "its size is part of the ABI");
#endif

/** The eight calls of WarpDrive. The historic signatures; 0 or a count, or a negative errno. */

/** Opens `q`. Errors: -EINVAL, -ENODEV, -ECONNREFUSED, -EACCES, -EMFILE, -ENOMEM, -ETIMEDOUT. */
int wd_request_queue(struct wd_queue *q) WD_NOEXCEPT;
/** Stops the queue and returns it. Requests in flight are lost; NULL and a closed queue are fine.
 */
void wd_release_queue(struct wd_queue *q) WD_NOEXCEPT;
/**
 * Sends one request. Errors: -EBUSY (receive first; a stream has one request in flight at a time,
 * since where its next input starts is in the result), -ESHUTDOWN, -EINVAL.
 */
int wd_send(struct wd_queue *q, struct wd_request *request) WD_NOEXCEPT;
/** Receives one completed request. Returns 1, or -EAGAIN; -ESHUTDOWN. */
int wd_recv(struct wd_queue *q, struct wd_request **request) WD_NOEXCEPT;
/** Waits for one: spins for a while, then sleeps. Returns 1; -ENOMSG when nothing is in flight. */
int wd_recv_sync(struct wd_queue *q, struct wd_request **request) WD_NOEXCEPT;
/**
 * Returns when everything sent has completed; results are still to be received. When the queue dies
 * meanwhile it returns too: what had not completed is then received with
 * TANDEM_STATUS_DEVICE_LOST. At once for NULL, a closed queue, and in a forked child, which has
 * sent nothing.
 */
void wd_flush(struct wd_queue *q) WD_NOEXCEPT;
/**
 * Reserves memory that engines reach without copies. Lives until wd_release_memory(), or until the
 * last queue along the same path (the same broker, or embedded) is released; not inherited by fork.
 *
 * The death of a broker and wd_reinit() leave it where it is, with what it holds. From then on it
 * is ordinary memory to engines, with the copies this costs: to be quick again, reserve anew.
 *
 * Units: bytes, rounded up to whole pages. The memory starts at a page, from 2 MiB on at a multiple
 * of 2 MiB, and is zero. The limit is the framework's quota, 4 GiB for a tenant over all its
 * processes unless the framework was made with another.
 *
 * Returns NULL and sets errno on failure: EINVAL `size` is 0 or the queue is not open; ENOMEM over
 * the quota, or memory ran out; ENOSPC no addresses left in the framework; EMFILE descriptors ran
 * out; ETIMEDOUT the broker does not answer; ESHUTDOWN it has gone.
 */
void *wd_reserve_memory(struct wd_queue *q, size_t size) WD_NOEXCEPT;
/**
 * Does nothing, for programs written to the historic interface: what one queue reserved, all of the
 * process may use in place along the same path; to a queue along another path it is ordinary
 * memory. Returns 0; -EINVAL when one of the two is not open.
 */
int wd_share_reserved_memory(struct wd_queue *q, struct wd_queue *target) WD_NOEXCEPT;

/** What WarpDrive lacks. */

/** Opens a queue by algorithm: wd_request_queue() with everything else at its default. */
static inline int wd_open(struct wd_queue *q, const char *algorithm) WD_NOEXCEPT {
  const struct wd_queue fresh = WD_QUEUE_INIT; /* here, so that `size` is the caller's */
  if (q == NULL) return wd_request_queue(q);
  *q = fresh;
  q->algorithm = algorithm;
  return wd_request_queue(q);
}
/**
 * Gives reserved memory back; when it returns no engine reaches it. `q`: any queue of this process.
 * Errors: -EINVAL not reserved by this process (a forked child has inherited none); -ETIMEDOUT the
 * broker does not answer: it is still reserved.
 */
int wd_release_memory(struct wd_queue *q, void *memory) WD_NOEXCEPT;
/**
 * A number for the reservation that starts at `memory`; 0 when this process reserved nothing there.
 * No two reservations have the same, in a process and its forked children: an address is used
 * again.
 */
uint64_t wd_memory_id(const void *memory) WD_NOEXCEPT;
/** Sends `count` requests with one doorbell. Returns how many were taken, or an error if none. */
int wd_send_batch(struct wd_queue *q, struct wd_request *const *requests,
                  unsigned count) WD_NOEXCEPT;
/**
 * Receives at most `capacity` completed requests. Returns how many, or -EAGAIN; -ESHUTDOWN.
 *
 * They come in the order they were sent, but for those that are staged: one whose operands cannot
 * even be copied comes at once, one that an engine gave back to be staged comes after those that
 * were sent up to then.
 */
int wd_recv_batch(struct wd_queue *q, struct wd_request **requests, unsigned capacity) WD_NOEXCEPT;
/**
 * Opens the queue again with the same parameters, along the path it had: after a death, or
 * explicitly in a child. Holds are kept, and so is reserved memory (see wd_reserve_memory()).
 *
 * Requests in flight do not come back: receive them first (of a dead queue, as lost). They may be
 * sent again. wd_fd() is another one afterwards.
 *
 * Errors: those of wd_request_queue(), -ECONNREFUSED while no broker listens there, -ETIMEDOUT: `q`
 * is as it was, and may be tried again.
 */
int wd_reinit(struct wd_queue *q) WD_NOEXCEPT;
/**
 * A descriptor to poll for readability; the library's, do not read or close. See wd_arm(). The same
 * until the queue is released, opened again, or used in a forked child.
 * Errors: -EMFILE or -ENOMEM none could be made; -EPERM, -ETIMEDOUT the broker did not give one;
 * -EINVAL the queue is not open, or had died before the first call; -ESHUTDOWN the broker had gone.
 */
int wd_fd(struct wd_queue *q) WD_NOEXCEPT;
/**
 * Asks for a signal on wd_fd(), for the next completion or the queue's death. Ask anew after
 * wd_recv() has returned something.
 *
 * Returns 0, or 1 when there will be none: something has completed already, or the queue is dead
 * (wd_recv() tells which). Errors: those of wd_fd(): nothing is asked for.
 */
int wd_arm(struct wd_queue *q) WD_NOEXCEPT;
/**
 * While held (count of calls), the engine does not go to sleep for this queue, and neither
 * wd_send() nor wd_recv() makes a system call, but to stage operands. Without a hold, a long run of
 * empty wd_recv() asks now and then whether the broker still lives. Errors: -EINVAL nothing is
 * held; -ETIMEDOUT the engine did not wake up: nothing is held then.
 */
int wd_keep_awake(struct wd_queue *q, int hold) WD_NOEXCEPT;
/**
 * Tries to withdraw a request: it then comes back with TANDEM_STATUS_CANCELLED, or as usual when an
 * engine was faster. 0, or -ENOENT when it is not in flight here.
 */
int wd_cancel(struct wd_queue *q, struct wd_request *request) WD_NOEXCEPT;
/** Requests sent and not yet received. */
unsigned wd_in_flight(const struct wd_queue *q) WD_NOEXCEPT;
/** Text for a negative errno of this library, or for a request's status. Static, never NULL. */
const char *wd_strerror(int error) WD_NOEXCEPT;
const char *wd_strstatus(int status) WD_NOEXCEPT;

/** One device, as wd_list_devices() tells. */
struct wd_device {
  char name[32];             /* "comp-0" */
  char api[32];              /* "tandem_comp_v1" */
  char algorithms[384];      /* what wd_queue::algorithm may be besides the name; one a line */
  uint32_t flags;            /* bit 0 SVA: it reaches ordinary memory */
  int32_t numa_node;         /* -1: none */
  uint32_t queues_max;       /* at once, of all clients */
  uint32_t queues_used;      /* now */
  uint32_t clients;          /* that have a queue now */
  uint32_t engines;          /* threads that can run it at once */
  uint64_t operations;       /* completed since the device was added, for everybody */
  uint64_t bytes;            /* read by these */
  uint64_t region_mmio_size; /* bytes of a queue's doorbell page */
  uint64_t region_dus_size;  /* bytes of a queue's rings at the default depth */
};
/**
 * Fills at most `capacity` devices of `path`, `device_size` bytes apart. Returns how many there
 * are, or an error. The structure may grow: what one side does not know is left out, or zero.
 *
 * Threads: any, at any time, beside all other calls. It may connect to a broker, and waits for its
 * answer. Errors: -EINVAL `devices` is NULL with a capacity, `device_size` is less than the first
 * published structure's 504, or `path` is none; else those of wd_request_queue().
 */
int wd_list_devices_sized(uint32_t path, struct wd_device *devices, size_t device_size,
                          unsigned capacity) WD_NOEXCEPT;
static inline int wd_list_devices(uint32_t path, struct wd_device *devices,
                                  unsigned capacity) WD_NOEXCEPT {
  return wd_list_devices_sized(path, devices, sizeof *devices, capacity);
}

/**
 * What this process has had done since it connected on the path of `q`, by all its queues there. A
 * forked child starts anew.
 */
struct wd_stats {
  uint64_t operations;       /* completed, well or not */
  uint64_t faults;           /* of these, with TANDEM_STATUS_FAULT */
  uint64_t bytes_zero_copy;  /* operand bytes that engines reached in place */
  uint64_t bytes_copied;     /* operand bytes that engines copied */
  uint64_t page_faults;      /* page requests that were served */
  uint64_t translations;     /* pages, or superpages, that devices looked up */
  uint64_t translation_hits; /* of these, found without asking the IOMMU */
  uint64_t staged;           /* requests copied through reserved memory, on all paths */
  uint64_t rebinds;          /* queues that this process took over from its parent, on all paths */
};
/**
 * Fills the first `size` bytes of a structure that may grow. Asks the broker, and waits for it.
 * Errors: -EINVAL, -ETIMEDOUT, -EPERM; -ESHUTDOWN the broker has gone.
 */
int wd_get_stats_sized(struct wd_queue *q, struct wd_stats *stats, size_t size) WD_NOEXCEPT;
static inline int wd_get_stats(struct wd_queue *q, struct wd_stats *stats) WD_NOEXCEPT {
  return wd_get_stats_sized(q, stats, sizeof *stats);
}

#ifdef __cplusplus
}
#endif

#endif
