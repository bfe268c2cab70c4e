// SPDX-License-Identifier: Apache-2.0
/// What went wrong, and what to do about it, in words.
#include <cerrno>

#include "tandem/wd/wd.h"

extern "C" {

const char* wd_strerror(int error) noexcept {
  switch (error < 0 ? -error : error) {
    case 0:
      return "success";
    case EINVAL:
      return "invalid argument: the queue is not open, is open already, or a field or size has no "
             "meaning; start from WD_QUEUE_INIT, depth is a power of two, a size to reserve is not "
             "0, TANDEM is auto, embedded, inline or unix:PATH, TANDEM_TRUST reserved-only or not "
             "set, TANDEM_TRUST_UID a user's number or not set";
    case ENODEV:
      return "no device has this algorithm: no broker offers it and no embedded device is linked; "
             "try `tandem devices`, start tandemd, or link tandem::tandem";
    case EACCES:
      return "the broker is not to be trusted, or not for this user: its socket must be open to "
             "you, and stand in a directory of root, of you or of TANDEM_TRUST_UID that nobody "
             "else can write; it must run as one of these; set-id programs use no broker";
    case ECONNREFUSED:
      return "no broker listens at the socket that TANDEM names; start tandemd there, or unset "
             "TANDEM";
    case EBUSY:
      return "the queue is full, or a stream's last request is not back yet; receive, then send "
             "again";
    case EAGAIN:
      return "nothing has completed yet; try again, or wait with wd_recv_sync() or wd_arm()";
    case ENOMSG:
      return "nothing is in flight, so there is nothing to wait for; after a fork, what the parent "
             "sent is the parent's";
    case ESHUTDOWN:
      return "the queue died: released, removed, or its broker ended; open it again with "
             "wd_reinit()";
    case EMFILE:
      return "too many queues or descriptors; release some queues, or raise the limit";
    case ENOMEM:
      return "out of memory, or over the quota of reserved memory; release some of it";
    case ENOSPC:
      return "the broker has no address space left to give; close other clients";
    case ENOENT:
      return "not in flight here: the request came back already, or was sent on another queue";
    case EPROTO:
      return "library and broker do not understand each other; install the same version of both";
    case EPROTONOSUPPORT:
      return "library and broker have no protocol version in common; install the same version of "
             "both";
    case EPERM:
      return "the broker refused: this process is not the one that connected; a forked child must "
             "use "
             "its queues through the library";
    case ETIMEDOUT:
      return "the broker did not answer in time; it hangs or is overloaded, see its log";
    case ENAMETOOLONG:
      return "the path of the broker's socket is too long; use a shorter one";
    case EIO:
      return "an unexpected failure inside the library; please report it";
    default:
      return "a system call failed; see errno(3) for the number";
  }
}

const char* wd_strstatus(int status) noexcept {
  switch (status) {
    case TANDEM_STATUS_OK:
      return "ok";
    case TANDEM_STATUS_FAULT:
      return "fault: the memory at fault_address is not mapped, or not readable or writable as the "
             "operation needs; check the pointer and the length";
    case TANDEM_STATUS_UNKNOWN_OPCODE:
      return "unknown operation: this device does not have it; open a queue for its algorithm";
    case TANDEM_STATUS_BAD_DESCRIPTOR:
      return "bad request: a flag, parameter or length that the operation does not take "
             "(compression: level 0 to 12, each operand at most 64 MiB; decompression in one "
             "request: the same lengths); see tandem/abi/ring.h";
    case TANDEM_STATUS_BAD_RANGE:
      return "bad range: address plus length wraps or leaves user memory; check the length";
    case TANDEM_STATUS_OUTPUT_TOO_SMALL:
      return "output too small: give more room at dst; tandem_compress_bound() is enough for any "
             "compression";
    case TANDEM_STATUS_CORRUPT_INPUT:
      return "corrupt input: not what its format allows, or a checksum differs; check format and "
             "data";
    case TANDEM_STATUS_TRUNCATED_INPUT:
      return "truncated input: it ends too early; give all of it, or use a stream";
    case TANDEM_STATUS_NEEDS_STAGING:
      return "memory that the engine must not touch, and no reserved memory left to copy it to; "
             "release some, or use smaller requests";
    case TANDEM_STATUS_CANCELLED:
      return "cancelled before it ran";
    case TANDEM_STATUS_DEVICE_LOST:
      return "device lost: the queue died with the request in flight, which may or may not have "
             "run; "
             "open it again with wd_reinit()";
    case TANDEM_STATUS_UNKNOWN_ID:
      return "unknown id: not one of this queue's users, or released; a forked child gets its own";
    case TANDEM_STATUS_WRONG_TURN:
      return "wrong turn: the player to move is an agent; read its move, or change the permission";
    case TANDEM_STATUS_ILLEGAL_CELL:
      return "illegal cell: taken, or not on the board";
    case TANDEM_STATUS_UNKNOWN_AGENT:
      return "unknown agent: nobody plays under this number here; see tandem/abi/kxo.h";
    case TANDEM_STATUS_NO_ROOM:
      return "no room: the queue, its tenant or the device has as many users as may be, or "
             "waits for as many agents; release some, or try again later";
    case TANDEM_STATUS_WOULD_BLOCK:
      return "would block: the ring of moves is full; take some first";
    default:
      return "a status that this library does not know; install the same version as the broker's";
  }
}

}  // extern "C"
