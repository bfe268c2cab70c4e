// SPDX-License-Identifier: Apache-2.0
/// Golden vectors: what was done to the specification's reference model, and what it answered.
/// README.md has the format, byte by byte.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tandem/iommu/iommu.hpp"

namespace tandem::iommu::golden {

/// Physical memory of every world: RAM, read-only RAM, I/O memory that takes 4-byte writes alone.
inline constexpr std::uint64_t kPageBytes = 4096;
inline constexpr std::uint64_t kRamBase = 0x8000'0000, kRamBytes = 512 * kPageBytes;
inline constexpr std::uint64_t kReadOnlyBase = 0x4000'0000, kReadOnlyBytes = 8 * kPageBytes;
inline constexpr std::uint64_t kIoBase = 0x2400'0000, kIoBytes = kPageBytes;
/// One after the other in the image.
inline constexpr std::uint64_t kImageBytes = kRamBytes + kReadOnlyBytes + kIoBytes;

/// The offset of a physical address in the image.
std::uint64_t image_offset(std::uint64_t address);

struct World {
  std::uint64_t seed = 0;
  Iommu::Options options;
  bool flushes = false;         ///< caches are dropped before each request, else only as told
  std::uint64_t ram_pages = 0;  ///< that the hash covers
  std::vector<DeviceId> devices;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> words;  ///< image offset, value; else 0
};

enum class RequestKind : std::uint8_t { kUntranslated = 0, kAts = 1, kTranslated = 2 };

/// How the contexts of a request that succeeded were set up: for the count of what was reached.
struct Context {
  using FirstMode = Field<3, 0>;   // iosatp.MODE
  using SecondMode = Field<7, 4>;  // iohgatp.MODE
  using Sxl = Field<8>;
  using Sbe = Field<9>;
  using Gxl = Field<10>;
  using Be = Field<11>;
  using Pdtv = Field<12>;
  using Napot = Field<13>;
  using PdtpMode = Field<15, 14>;
};

struct Request {
  std::size_t device = 0;  // index
  RequestKind kind{};
  Requester requester;
  Access access = Access::kRead;  // not of ATS
  AtsRequest ats;
  Iova at;
};
struct Response {
  std::uint8_t status = 0;  ///< of a completion: 0, 1 Unsupported Request, 4 Completer Abort
  Cause cause{};            ///< where the status is not 0
  bool readable = false, writable = false, executable = false, privileged = false, global = false;
  bool untranslated_only = false, cxl_io = false, msi = false, mrif = false;
  std::uint8_t memory_type = 0;
  std::uint16_t context = 0;
  std::uint64_t address = 0;
  unsigned log2_size = 12;     ///< as the model has it
  unsigned largest_log2 = 12;  ///< that may be claimed
  std::uint64_t mrif_file = 0;
  std::uint32_t notice_data = 0;
};

/// What a device does about an invalidation.
enum class Answer : std::uint8_t { kNow = 0, kLate = 1, kNever = 2 };

/// What the IOMMU sends to a device.
struct Message {
  bool is_response = false;  ///< a page response, else an invalidation
  std::size_t device = 0;    // index
  std::optional<Pasid> pasid;
  bool global = false;
  Answer answer{};
  std::uint64_t address = 0, size_bytes = 0;  // invalidation
  std::uint16_t group = 0;                    // response
  std::uint8_t code = 0;
};

inline constexpr std::array<std::uint32_t, 10> kQueueRegisters = {
    reg::kCqh, reg::kCqt,   reg::kFqh,   reg::kFqt,   reg::kPqh,
    reg::kPqt, reg::kCqcsr, reg::kFqcsr, reg::kPqcsr, reg::kIpsr};

/// What something that was done has brought about.
struct Effects {
  std::vector<std::pair<std::size_t, std::uint32_t>> registers;  ///< of kQueueRegisters: new values
  std::vector<std::array<std::uint64_t, 4>> fault_records;       ///< the last of their queue
  std::vector<std::array<std::uint64_t, 2>> page_records;
  std::vector<Message> messages;
};

struct DebugResponse {
  bool fault = false;
  std::uint8_t memory_type = 0;
  std::uint64_t address = 0;  ///< of the page that tr_req_iova names
  unsigned log2_size = 12, largest_log2 = 12;
};

/// The memory and all registers that have changed since the last checkpoint.
struct Checkpoint {
  std::uint64_t memory_hash = 0;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> registers;  ///< offset, value
};

/// Registers that say what only an implementation can know.
constexpr bool is_compared(std::uint32_t offset) {
  return offset / 8 * 8 != reg::kIohpmcycles && offset / 8 * 8 != reg::kTrResponse;
}

class Visitor {
 public:
  virtual ~Visitor() = default;
  virtual void begin(const World& world) = 0;
  virtual void write(std::uint32_t offset, unsigned size_bytes, std::uint64_t value,
                     const Effects& effects) = 0;
  virtual void read(std::uint32_t offset, unsigned size_bytes, std::uint64_t expected) = 0;
  /// Software stores, little-endian.
  virtual void store(std::uint64_t address, unsigned size_bytes, std::uint64_t value) = 0;
  /// Likewise, a command.
  virtual void command(std::uint64_t address, const std::array<std::uint64_t, 2>& words) = 0;
  virtual void request(const Request& request, const Response& expected,
                       const Effects& effects) = 0;
  virtual void page_request(std::size_t device, const PageRequest& request,
                            const Effects& effects) = 0;
  virtual void flush() = 0;
  virtual void poison(std::uint64_t address, std::uint64_t size_bytes, bool set) = 0;
  virtual void reset(const Effects& effects) = 0;
  /// None: the device has no context.
  virtual void qos_ids(std::size_t device, std::optional<QosIds> expected) = 0;
  virtual void debug(const DebugResponse& expected) = 0;
  virtual void checkpoint(const Checkpoint& expected) = 0;
};

/// Reads a file of vectors and tells the visitor what is in it, in order. A file that is damaged
/// is a failed check.
void visit(const std::string& path, Visitor& visitor);

}  // namespace tandem::iommu::golden
