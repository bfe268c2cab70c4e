// SPDX-License-Identifier: Apache-2.0
/// A PCIe endpoint with PASID, ATS and PRI, as the author of a device model uses it.
///
/// `Endpoint::space(pasid)` is the address space of one process (or, without a PASID, the device's
/// own): a cheap value whose read(), write() and map() take the process's virtual addresses. Behind
/// it: an address translation cache (ATC) → translation request to the IOMMU → on "not present" a
/// page request, answered by the operating system → retry. An address that the process may not use
/// ends the access with the address and the bytes done before it.
///
/// Concurrency: any number of threads access while others invalidate. A hit takes no lock and
/// writes no shared line. When an ATS invalidation completes, no access through an old translation
/// can still run: short host-RAM copies run inside RCU sections, and a Window (a longer mapping) or
/// an access to an I/O region (which may block, and does not look after its accesses itself) holds
/// an in-flight slot of its (endpoint, PASID).
/// An invalidation waits for the matching slots only, and blocks no thread: it completes when the
/// last of them is given back, from the thread that does so, which may then go on with the IOMMU's
/// commands. If that takes too long the invalidation times out
/// (iommu::Iommu::Options::invalidation_timeout). Where the IOMMU translates each request (no ATS),
/// its fences wait likewise. An I/O region that waits for an invalidation of the very translation
/// by which it is accessed waits for the time-out; one that only starts it waits for nothing. Page
/// requests are made under no window, and no access to an I/O region is (asserted, refused).
///
/// Configuration: which messages an endpoint may send is what its PASID, ATS and Page Request
/// capabilities say and software enabled; see Endpoint::config_write(). A Board (board.hpp) finds
/// functions by bus, device and function number.
///
/// Interrupts: send_msi() stores a message of the MSI capability, through the IOMMU as any write.
///
/// Left out: links, bridges, power management, expansion ROMs and MSI-X; AtomicOps.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "tandem/base/result.hpp"
#include "tandem/iommu/iommu.hpp"
#include "tandem/memory/memory.hpp"

namespace tandem::pcie {

using iommu::Access;
using iommu::DeviceId;
using iommu::Iova;
using iommu::Pasid;
using iommu::Requester;

/// Why a DMA stopped, and where.
struct DmaFault {
  enum class Reason : std::uint8_t {
    kNotPermitted,  ///< page request answered "invalid request": no mapping, or no permission
    kNoService,     ///< page request answered "response failure" or not at all, or not enabled
    kBlocked,       ///< the IOMMU refused the endpoint or the PASID (not bound, revoked)
    kMemory,       ///< the translation led to memory that refused (unmapped or protected meanwhile)
    kPoisoned,     ///< the memory's data are known to be corrupt (memory::Fault::kPoisoned)
    kWraps,        ///< address + length is not a valid range
    kNotMappable,  ///< map() only: readable, but not one run of host RAM; use read()/write()
    kDisabled,     ///< software has not enabled the function to send it, or reset it meanwhile;
                   ///< or what is asked for takes a PASID or a capability that is not there
  };
  Reason reason = Reason::kNotPermitted;
  Iova address;  ///< first byte that could not be accessed
};

struct [[nodiscard]] DmaResult {
  std::size_t done_bytes = 0;
  std::optional<DmaFault> fault;
  bool ok() const { return !fault; }
};

/// One of the PCIe messages that may carry a PASID, for tracing. A memory read or write is shown
/// after it was done.
struct Message {
  enum class Kind : std::uint8_t {
    kMemoryRead,
    kMemoryWrite,
    kTranslationRequest,
    kTranslationCompletion,
    kPageRequest,
    kPageResponse,
    kInvalidationRequest,
    kInvalidationCompletion,
  };
  Kind kind = Kind::kMemoryRead;
  DeviceId device;
  std::optional<Pasid> pasid;
  Iova address;
  std::uint64_t size_bytes = 0;             ///< of the access, translation or invalidation
  std::uint64_t physical_address = 0;       ///< translation completions
  bool readable = false, writable = false;  ///< asked for, or granted
  bool executable = false;                  ///< likewise
  bool privileged = false;                  ///< of a privileged requester
  bool last = true;                         ///< of its group: page requests
  std::uint16_t tag = 0;                    ///< PRGI or ITAG
  std::uint8_t status = 0;                  ///< AtsCompletion::Status or PageResponse::Code

  void set_requester(const Requester& from) {
    pasid = from.pasid;
    privileged = from.privileged;
  }
};

struct EndpointStats {
  std::uint64_t translations = 0;  ///< pages or superpages looked up in the ATC
  std::uint64_t atc_hits = 0;
  std::uint64_t page_requests = 0;
  std::uint64_t invalidations = 0;
};

/// Who a function says it is.
/// Spec: PCI Express Base Specification, "Type 0 Configuration Space Header".
struct Identity {
  std::uint16_t vendor_id = 0x1234;  ///< assigned to nobody; what emulators use
  std::uint16_t device_id = 0x0001;
  std::uint8_t revision = 0;
  std::uint32_t class_code = 0x12'00'00;  ///< 24 bits; 12h is a processing accelerator
  std::uint16_t subsystem_vendor_id = 0;
  std::uint16_t subsystem_id = 0;
  bool multi_function = false;  ///< the device has more functions than 0
};

/// A memory range of a device that software places with a base address register.
struct Bar {
  std::uint64_t size_bytes = 4096;  ///< a power of two, at least a page
  std::shared_ptr<memory::IoRegion> region;
  bool is_64_bit = true;  ///< takes two registers
  bool prefetchable = false;
};

class Endpoint;
class AddressSpace;
namespace detail {
struct EndpointState;
}

/// A run of host RAM that a device works on in place. While it lives, an invalidation of its PASID
/// does not complete. Not copyable; destroy it on the thread that made it, promptly.
class Window {
 public:
  Window() = default;
  Window(Window&& other) noexcept
      : endpoint_(std::exchange(other.endpoint_, nullptr)),
        slot_(other.slot_),
        bytes_(other.bytes_) {}
  Window& operator=(Window&& other) noexcept {
    std::swap(endpoint_, other.endpoint_);
    std::swap(slot_, other.slot_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Window();
  std::span<std::byte> bytes() const { return bytes_; }

 private:
  friend class AddressSpace;
  Endpoint* endpoint_ = nullptr;
  std::uint32_t slot_ = 0;
  std::span<std::byte> bytes_;
};

/// One address space of an endpoint: (device, PASID). A value; good as long as its endpoint.
///
/// Thread safety: all calls, from any thread.
class AddressSpace {
 public:
  /// Copies from the space into `to`. Faults are data; bytes before the fault have been copied.
  DmaResult read(Iova at, std::span<std::byte> to) const;
  DmaResult write(Iova at, std::span<const std::byte> from) const;
  /// As read(), of instructions: the pages have to be executable, and the function to be enabled to
  /// ask for that (PASID capability, Execute Permission).
  DmaResult fetch(Iova at, std::span<std::byte> to) const;
  /// Copies inside the space, as memmove does and without a buffer between, at most 64 KiB whose
  /// translations are cached and lead to host RAM: what small operations repeat.
  /// Returns: false, and nothing was done, where it is not so: read() and write() always work.
  bool copy_cached(Iova from, Iova to, std::size_t length) const;
  /// Maps [at, at + length) if it is one run of host RAM that allows `access`, taking page faults
  /// first. `length` > 0. Only an endpoint with ATS maps, and only a
  /// bounded number of windows at once. Errors: as read(), and kNotMappable.
  Result<Window, DmaFault> map(Iova at, std::size_t length, Access access) const;
  /// Asks for the pages of [at, at + length) in groups of page requests, and waits until the
  /// operating system has made them present for `access`, or says why not.
  /// What an access does by itself, a page at a time. Not with a Window (kNotMappable).
  Result<void, DmaFault> request_pages(Iova at, std::size_t length, Access access) const;
  /// Tells the operating system that no page request of this space follows those made before: for
  /// when the device stops using the PASID. No response comes.
  /// Returns: false without a PASID, or if page requests are not enabled.
  bool send_stop_marker() const;
  std::optional<Pasid> pasid() const { return requester_.pasid; }
  bool privileged() const { return requester_.privileged; }
  Endpoint& endpoint() const { return *endpoint_; }

 private:
  friend class Endpoint;
  AddressSpace(Endpoint& endpoint, const Requester& requester)
      : endpoint_(&endpoint), requester_(requester) {}
  Endpoint* endpoint_;
  Requester requester_;
};

class Endpoint final : private iommu::DeviceCallbacks {
 public:
  struct Options {
    bool pasid = true;                                      ///< has the PASID capability
    bool ats = true;                                        ///< has the ATS capability
    bool pri = true;                                        ///< has the Page Request capability
    std::chrono::milliseconds page_request_timeout{10000};  ///< how long to wait for a response
    std::uint32_t page_request_capacity = 512;              ///< Outstanding Page Request Capacity
    /// Called on the requester's thread when its page request is sent, before it waits for the
    /// response: who answers page requests may do so here.
    std::function<void(const iommu::PageRequest&)> page_request_sent = {};

    /// Whether bus mastering and every capability are enabled, as firmware leaves them; false: as
    /// reset leaves them, for software to enable through the configuration space.
    bool enabled = true;
    Identity identity = {};
    unsigned pasid_bits = iommu::kPasidBits;  ///< Max PASID Width, at most 20
    bool execute = false;                     ///< PASID capability: Execute Permission Supported
    bool privileged = false;                  ///< PASID capability: Privileged Mode Supported
    unsigned msi_vectors = 0;  ///< MSI capability: 1, 2, 4, … 32 of them; 0: it has none
    std::vector<Bar> bars = {};
    memory::Memory* bar_memory = nullptr;  ///< where the BARs appear; outlives the endpoint
    /// How long a function-level reset waits for windows and I/O accesses.
    std::chrono::milliseconds reset_timeout{100};
    /// Called in a function-level reset when no operation can begin any more, before those under
    /// way are waited for: the device drops its work and its windows. From the thread that writes
    /// the register; it may read the configuration space, not write it.
    std::function<void()> on_reset = {};
  };

  /// Attaches device `id` to `iommu`, which must outlive the endpoint.
  /// Errors: EEXIST when the id is taken; EINVAL when pri is asked for without ats, when a BAR's
  ///         size or region is none, or six registers do not hold them, or there is no capability
  ///         for as many MSI vectors.
  static Result<std::unique_ptr<Endpoint>> create(iommu::Iommu& iommu, DeviceId id,
                                                  Options options);
  /// Detaches the device; when it returns, the IOMMU calls it no more. By then its operations have
  /// ended, and its windows: one that lives is a failed check, which ends the process.
  ~Endpoint() override;

  /// The space of `pasid`; without one, requests carry no PASID prefix.
  AddressSpace space(std::optional<Pasid> pasid) { return {*this, {pasid}}; }
  /// The same as a supervisor sees it: requests ask for Privileged Mode, which the function has to
  /// be enabled for (PASID capability).
  AddressSpace supervisor_space(Pasid pasid) { return {*this, {pasid, true}}; }
  DeviceId id() const;

  /// Reads or writes the configuration space, as software does: `size_bytes` 1, 2 or 4, naturally
  /// aligned, below 4096; other reads give ones and other writes do nothing. The registers are in
  /// spec.hpp.
  ///
  /// A write takes effect before it returns. What takes a permission away (bus mastering, PASID,
  /// ATS) or resets the function first ends every operation that is under way: the ATC is emptied,
  /// page requests are aborted, sections, windows and I/O accesses are waited for, and what began
  /// before ends with kDisabled at the first byte that it had not yet accessed. If windows do not
  /// come back in time, nothing is enabled until they have and software writes again; Device
  /// Status says "transactions pending" meanwhile.
  ///
  /// Thread safety: any thread, but neither inside a reader section, under a window of one's own,
  ///                nor, for writes, from an access to the function's own BARs.
  std::uint32_t config_read(std::uint32_t offset, unsigned size_bytes) const;
  void config_write(std::uint32_t offset, std::uint32_t value, unsigned size_bytes);
  /// A function-level reset, as bit 15 of Device Control starts it: config_write().
  /// Returns: whether all windows and I/O accesses ended in time.
  bool reset();

  /// Interrupts the software: stores the message of `vector`, as a write without a PASID that the
  /// IOMMU translates; or notes it as pending while software masks the vector, to be stored when it
  /// is unmasked, and while a permission is being taken away other than to master the bus, to be
  /// stored when that is done. A function that was given fewer vectors than it has shares them,
  /// modulo. The message may reach an interrupt file in memory (MRIF). One that is on its way may
  /// arrive after software has masked it.
  /// Thread safety: any thread, in no reader section, and not while it holds a Window: the
  ///                message, or the notice of an MRIF, is stored to an I/O region, which may wait
  ///                for the window.
  /// Errors: kDisabled where software enabled no MSI or no bus mastering; kNotMappable with a
  ///         Window; those of AddressSpace::write().
  Result<void, DmaFault> send_msi(unsigned vector);

  EndpointStats stats() const;
  /// Lookups, hits and page requests made for one PASID's accesses by the calling thread since it
  /// started; the difference over an operation is that operation's own.
  static EndpointStats thread_stats() noexcept;

  using Tap = std::function<void(const Message&)>;
  /// Shows every message to `tap` (empty: none). For listings, not for speed. It is called from the
  /// thread that sends or receives, and uses neither the endpoint nor the IOMMU.
  /// Thread safety: any thread. Several may be in `tap` at once, and in the one before it when this
  ///                has returned.
  void set_tap(Tap tap);

 private:
  friend class AddressSpace;
  friend class Window;
  explicit Endpoint(std::unique_ptr<detail::EndpointState> state);
  iommu::InvalidationReply invalidate(const iommu::AtsInvalidation& request) override;
  void page_response(const iommu::PageResponse& response) override;
  std::unique_ptr<detail::EndpointState> state_;
};

/// The classic spelling: one DMA of `buffer` at `va` of (endpoint, pasid); kRead and kExecute fill
/// the buffer.
inline DmaResult dma_rw(Endpoint& device, std::optional<Pasid> pasid, Iova va,
                        std::span<std::byte> buffer, Access direction) {
  const AddressSpace space = device.space(pasid);
  switch (direction) {
    case Access::kWrite:
      return space.write(va, buffer);
    case Access::kExecute:
      return space.fetch(va, buffer);
    case Access::kRead:
      break;
  }
  return space.read(va, buffer);
}

}  // namespace tandem::pcie
