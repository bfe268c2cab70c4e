// SPDX-License-Identifier: Apache-2.0
/// Where an operation ran, what it came to and how it failed.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tandem/wd/wd.h"

namespace tandem::wd {

/// Where operations run.
enum class Path : std::uint32_t {
  kAuto = WD_PATH_AUTO,
  kBroker = WD_PATH_BROKER,
  kEmbedded = WD_PATH_EMBEDDED,
  kInline = WD_PATH_INLINE,
};

enum class Code : std::uint8_t {
  kBusy,         ///< queue full; finish something first
  kDeadline,     ///< not done in time; the operation goes on
  kCancelled,    ///< withdrawn before it ran
  kDeviceLost,   ///< the queue died, or the operation was sent by the parent of a fork
  kFault,        ///< fault_address cannot be accessed
  kDenied,       ///< the broker is not to be trusted, or refuses
  kShortOutput,  ///< no room in the output
  kCorrupt,      ///< input is not what its format says
  kTruncated,    ///< input ends too early
  kUnsupported,  ///< the device does not have this operation
  kInvalid,      ///< parameters that mean nothing
  kNoDevice,     ///< no device has the algorithm
  kNoMemory,     ///< memory, reserved memory or descriptors ran out
  kSystem,       ///< the errno is in `hint`'s text
  kUnknownId,    ///< kxo: not a user of this queue
  kWrongTurn,    ///< kxo: it is not the turn of a player whom the client moves
  kIllegalCell,  ///< kxo: taken, or not on the board
};

struct Error {
  Code code = Code::kSystem;
  std::size_t done_bytes = 0;       ///< done before it ended
  std::uint64_t fault_address = 0;  ///< with kFault
  const char* hint = "";            ///< what went wrong and what to do; static

  /// What Result::value() says where there is none.
  const char* message() const { return hint; }

  static Error from_errno(int negative_errno) {
    Error error{Code::kSystem, 0, 0, wd_strerror(negative_errno)};
    switch (-negative_errno) {
      case EBUSY:
      case EAGAIN:
        error.code = Code::kBusy;
        break;
      case ETIMEDOUT:
        error.code = Code::kDeadline;
        break;
      case ESHUTDOWN:
      case ENOMSG:
        error.code = Code::kDeviceLost;
        break;
      case EACCES:
      case EPERM:
        error.code = Code::kDenied;
        break;
      case EINVAL:
        error.code = Code::kInvalid;
        break;
      case ENODEV:
      case ECONNREFUSED:
        error.code = Code::kNoDevice;
        break;
      case ENOMEM:
      case EMFILE:
      case ENOSPC:
        error.code = Code::kNoMemory;
        break;
      default:
        break;
    }
    return error;
  }

  static Error from_request(const wd_request& request) {
    Error error{Code::kSystem, request.done, request.fault_address, wd_strstatus(request.status)};
    switch (request.status) {
      case TANDEM_STATUS_FAULT:
        error.code = Code::kFault;
        break;
      case TANDEM_STATUS_UNKNOWN_OPCODE:
        error.code = Code::kUnsupported;
        break;
      case TANDEM_STATUS_BAD_DESCRIPTOR:
      case TANDEM_STATUS_BAD_RANGE:
        error.code = Code::kInvalid;
        break;
      case TANDEM_STATUS_OUTPUT_TOO_SMALL:
        error.code = Code::kShortOutput;
        break;
      case TANDEM_STATUS_CORRUPT_INPUT:
        error.code = Code::kCorrupt;
        break;
      case TANDEM_STATUS_TRUNCATED_INPUT:
        error.code = Code::kTruncated;
        break;
      case TANDEM_STATUS_NEEDS_STAGING:
        error.code = Code::kNoMemory;
        break;
      case TANDEM_STATUS_CANCELLED:
        error.code = Code::kCancelled;
        break;
      case TANDEM_STATUS_DEVICE_LOST:
        error.code = Code::kDeviceLost;
        break;
      case TANDEM_STATUS_UNKNOWN_ID:
        error.code = Code::kUnknownId;
        break;
      case TANDEM_STATUS_WRONG_TURN:
        error.code = Code::kWrongTurn;
        break;
      case TANDEM_STATUS_ILLEGAL_CELL:
        error.code = Code::kIllegalCell;
        break;
      case TANDEM_STATUS_UNKNOWN_AGENT:
        error.code = Code::kUnsupported;
        break;
      case TANDEM_STATUS_NO_ROOM:
        error.code = Code::kNoMemory;
        break;
      case TANDEM_STATUS_WOULD_BLOCK:
        error.code = Code::kBusy;
        break;
      default:
        break;
    }
    return error;
  }
};

/// What an operation came to.
struct Done {
  std::size_t value = 0;     ///< bytes produced; operations without output: bytes read
  std::uint64_t result = 0;  ///< checksum, offset of a difference, …: see enum tandem_opcode
  Path path = Path::kAuto;   ///< where it ran
  std::string_view device;   ///< on which device; lives as long as the queue
  bool zero_copy = false;    ///< all operands were reached in place
  bool stream_end = false;   ///< a stream came to its end
};

}  // namespace tandem::wd
