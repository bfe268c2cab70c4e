// SPDX-License-Identifier: Apache-2.0
/// The RISC-V IOMMU as a device, a driver and a board see it.
///
/// A driver programs it as the specification says: registers through mmio_read()/mmio_write(),
/// device directory, process directories and page tables in Memory, commands in the command queue.
/// A device reaches it through the Port of its device id: an untranslated request is translated
/// (`translate`), a translation request answered (`ats_translate`), a page request logged. What the
/// IOMMU sends to the device (ATS invalidation, page-request-group response) arrives at the
/// DeviceCallbacks given to attach().
///
/// Life of one request: IOTLB → (a hit: translation), or device directory → (device context) →
/// process directory → (process context) → walk of the first and the second stage → translation;
/// contexts are cached, too, and where tables of leaves are. Every failure is a Cause, recorded in
/// the fault queue where the specification says so.
///
/// When an invalidation is over: IOFENCE.C waits for the accesses that use translations made before
/// the IOTINVAL and IODIR commands ahead of it. It knows them by their reader sections of
/// rcu_default_domain(): a device translates and copies inside one section. Hence nobody writes
/// cqb, cqt, cqcsr or ddtp, attaches or detaches inside a section. An access that may block, to an
/// I/O region, outlasts the section, which begins a Hold for it. The fence waits for those holds
/// whose translations are void, and for the ATS invalidations ahead of it, but blocks no thread for
/// either: the queue stands at the fence until they are over or time out, and only then cqh passes
/// it. PR and PW order accesses to memory; to I/O regions only those whose translations are void.
///
/// Lock order: command_mutex_ → fault_mutex_, command_mutex_ → page_request_mutex_; under each,
/// innermost, those of Interrupts, of the ITAGs and of held accesses, the last also under that of
/// ddtp; else those of ddtp, of the monitor and of debug requests are taken alone. No lock is held
/// while a device callback runs except command_mutex_, when the callback is the work of a command;
/// such a callback must not write the command queue of the same IOMMU, nor attach or detach. The
/// same holds for an I/O region that an IOFENCE.C stores to. Messages go out, and handlers of
/// interrupts are called, with no lock held.
///
/// Edition: see docs/spec/iommu.md.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "tandem/base/result.hpp"
#include "tandem/iommu/spec.hpp"
#include "tandem/memory/memory.hpp"

namespace tandem::iommu {

using memory::PhysAddr;

/// A device's 24-bit id (segment-less: bus, device, function).
struct DeviceId {
  std::uint32_t value = 0;
  friend constexpr auto operator<=>(DeviceId, DeviceId) = default;
};

/// A 20-bit process address space id. Requests carry std::optional<Pasid>: PASID 0 is a PASID.
struct Pasid {
  std::uint32_t value = 0;
  friend constexpr auto operator<=>(Pasid, Pasid) = default;
};
inline constexpr unsigned kPasidBits = 20;

/// An I/O virtual address, in bytes.
struct Iova {
  std::uint64_t value = 0;
  constexpr Iova plus(std::uint64_t bytes) const { return {value + bytes}; }
  friend constexpr auto operator<=>(Iova, Iova) = default;
};

enum class Access : std::uint8_t { kRead, kWrite, kExecute };

/// Who asks, as a transaction's PASID prefix says.
struct Requester {
  std::optional<Pasid> pasid;
  bool privileged = false;
};

/// What a page table says of a page's memory beside what the platform does. Spec: Privileged
/// specification, "Svpbmt".
enum class MemoryType : std::uint8_t { kPma = 0, kNc = 1, kIo = 2 };

/// A memory-resident interrupt file, which takes the place of an interrupt controller's while the
/// guest does not run, and the notice that says that an MSI was stored there.
struct Mrif {
  PhysAddr file;    ///< of 512 bytes
  PhysAddr notice;  ///< where the notice goes
  std::uint32_t notice_data = 0;
  bool hides_faults = false;  ///< tc.DTF
};

/// A translation and how far it reaches: the naturally aligned range of 2^log2_size bytes that
/// holds the requested address.
struct Translation {
  PhysAddr address;             ///< of the requested byte
  std::uint8_t log2_size = 12;  ///< ≥ 12
  bool readable = false;
  bool writable = false;
  bool executable = false;
  bool global = false;
  MemoryType memory_type = MemoryType::kPma;
  bool msi : 1 = false;   ///< an interrupt file's page, found through an MSI page table
  bool mrif : 1 = false;  ///< in memory: `address` is nobody's, Port::write_msi() stores
  /// `address` is a guest physical address (tc.T2GPA), for Port::translated(). Part of no message.
  bool guest_address : 1 = false;
};
static_assert(sizeof(Translation) == 16);  // a hit travels in registers

/// What an ATS translation request asks for beside reading.
struct AtsRequest {
  bool no_write = false;  ///< NW: the device is not going to write; D stays as it is
  bool execute = false;   ///< Execute Requested, which a PASID prefix carries: ignored without one
  bool cxl = false;       ///< the requester is a CXL device of type 1 or 2
};

/// An ATS translation completion. Its N and AMA fields are always 0.
///
/// Success with neither R nor W set means that a page request may help (§3.6).
struct AtsCompletion {
  enum class Status : std::uint8_t { kSuccess, kUnsupportedRequest, kCompleterAbort };
  Status status = Status::kSuccess;
  Translation translation;
  bool privileged = false;         ///< Priv: whose permissions these are
  bool untranslated_only = false;  ///< U: the translation is not for translated requests
  bool cxl_io = false;             ///< CXL.io: not for CXL.cache
};

/// A PCIe Page Request message.
struct PageRequest {
  Iova address;  ///< page-aligned
  std::optional<Pasid> pasid;
  bool privileged = false;
  bool execute = false;
  bool read = false;
  bool write = false;
  bool last = true;         ///< last of its group
  std::uint16_t group = 0;  ///< PRGI, 9 bits
};

/// An ATS Invalidation Request message.
struct AtsInvalidation {
  std::optional<Pasid> pasid;
  bool global = false;              ///< all PASIDs; only with pasid set
  Iova address;                     ///< start of the naturally aligned range
  std::uint64_t size_bytes = 4096;  ///< 2^64 is written as 0
  std::uint8_t itag = 0;            ///< 5 bits; Port::complete_invalidation() names it
  /// Tells requests with the same ITAG apart, as on a wire only time does. Part of no message.
  std::uint32_t sequence = 0;
};

/// What a device answers an invalidation request at once.
enum class InvalidationReply : std::uint8_t {
  kCompleted,
  kTimedOut,  ///< it never will
  kPending,   ///< Port::complete_invalidation() follows, unless the request times out
};

/// A PCIe Page Request Group Response message.
struct PageResponse {
  enum class Code : std::uint8_t { kSuccess = 0, kInvalidRequest = 1, kResponseFailure = 15 };
  std::optional<Pasid> pasid;
  std::uint16_t group = 0;
  Code code = Code::kSuccess;
};

/// What a device does with messages the IOMMU sends it. Called from the thread that makes the IOMMU
/// process commands.
class DeviceCallbacks {
 public:
  virtual ~DeviceCallbacks() = default;
  /// Drops cached translations, and completes when no access through one of them can still run,
  /// which is what the Invalidate Completion says. It does not wait for what may last: the command
  /// queue stands still meanwhile.
  virtual InvalidationReply invalidate(const AtsInvalidation& request) {
    return ats_invalidate(request) ? InvalidationReply::kCompleted : InvalidationReply::kTimedOut;
  }
  /// The same for a device that is done when it returns; one that caches nothing overrides neither.
  /// Returns: false when the device did not complete in time (ATS time-out).
  virtual bool ats_invalidate(const AtsInvalidation& /*request*/) { return true; }
  virtual void page_response(const PageResponse& response) = 0;
};

struct Stats {
  std::uint64_t translations = 0;  ///< untranslated and translation requests
  std::uint64_t iotlb_hits = 0;
  std::uint64_t walks = 0;
  std::uint64_t page_requests = 0;
  std::uint64_t invalidations = 0;
  std::uint64_t faults = 0;
};

class Iommu;

/// What resource controllers (caches, memory) know a request by: whose allocation it uses, and who
/// monitors it. Spec: §9.1 "Quality-of-Service (QoS) Identifiers Extension".
struct QosIds {
  std::uint16_t rcid = 0;
  std::uint16_t mcid = 0;
  friend constexpr auto operator<=>(const QosIds&, const QosIds&) = default;
};

/// Why a transaction stopped, and whether its device context hides such faults (tc.DTF).
struct TransactionFault {
  Cause cause{};
  bool hides = false;
  std::uint64_t iotval2 = 0;
  bool guest_addresses = false;  ///< tc.T2GPA of that context
};

/// What speaks for a translation: invalidations of it void its stamp. Opaque.
struct Stamp {
  std::uint64_t which = 0;
  std::uint64_t sum = 0;
  /// Of what both speak for, where that is of different kinds.
  friend constexpr Stamp operator+(const Stamp& a, const Stamp& b) {
    return {a.which | b.which, a.sum + b.sum};
  }
};

/// What requests made in a reader section leave to be done after it: Port::finish().
struct Leftover {
  /// A fault that is not recorded yet.
  struct Refusal {
    TransactionFault fault;
    TransactionType type = TransactionType::kNone;
    Iova at;
  };
  std::optional<Refusal> refusal;
  bool overflowed = false;  ///< a counter of the performance monitor, whose interrupt is due
  Stamp stamp;              ///< of the translation made last, for Port::hold()
  bool is_due() const { return overflowed || refusal.has_value(); }
};

class Port;
namespace detail {
class HeldAccesses;
}

/// An access that outlasts the section in which it was translated, as one to an I/O region does,
/// which may block. Behind an invalidation of that translation no IOFENCE.C passes while it lives:
/// the command queue stands there, at most for Options::invalidation_timeout, and blocks no thread.
///
/// End it outside of sections, with no lock held that a device callback takes: what waited for it
/// in the command queue runs before the destructor returns, or the assignment that ends it.
/// Takes no memory: an access that may be made can be held.
class Hold {
 public:
  Hold() = default;
  Hold(Hold&& other) noexcept { take(other); }
  Hold& operator=(Hold&& other) noexcept {
    const Hold ends(std::move(*this));
    take(other);
    return *this;
  }
  ~Hold();

 private:
  friend class Port;
  friend class detail::HeldAccesses;
  /// One in the list of those that run.
  struct Access {
    enum class State : std::uint8_t { kRunning, kWaitedFor, kGivenUp };
    State state = State::kRunning;
    Stamp stamp;
    std::chrono::steady_clock::time_point deadline;  // where it is waited for
    std::uint64_t serial = 0;                        // in the order of their beginnings, from 1
    Access* previous = nullptr;
    Access* next = nullptr;
  };
  void take(Hold& other) noexcept;
  Iommu* iommu_ = nullptr;  // none: no access
  Access access_;
};

/// One device's way to the IOMMU. Thread safety: all calls, from any thread.
class Port {
 public:
  ~Port();
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;

  /// Translates an untranslated request. A fault is recorded in the fault queue.
  /// Where an interrupt file in memory is found, `mrif` is set to it.
  Result<Translation, Cause> translate(const Requester& requester, Iova at, Access access,
                                       Mrif* mrif = nullptr);
  /// The same for who is in a reader section, where an interrupt may do what a section forbids:
  /// `left` is set to what finish() has to do after the section.
  Result<Translation, Cause> translate_in_section(const Requester& requester, Iova at,
                                                  Access access, Leftover& left,
                                                  Mrif* mrif = nullptr);
  /// Answers a PCIe ATS translation request.
  AtsCompletion ats_translate(const Requester& requester, Iova at, const AtsRequest& request);
  AtsCompletion ats_translate(const Requester& requester, Iova at, bool no_write) {
    return ats_translate(requester, at, AtsRequest{.no_write = no_write});
  }
  /// Checks a translated request (AT = translated): the device context must allow ATS and, if the
  /// request carries a PASID, hold a process directory that has room for it. With tc.T2GPA `at` is
  /// a guest physical address, which the second stage translates; else it comes back as it is.
  /// A fault is recorded.
  Result<Translation, Cause> translated(const Requester& requester, PhysAddr at, Access access);
  /// The same for who is in a reader section: as translate_in_section().
  Result<Translation, Cause> translated_in_section(const Requester& requester, PhysAddr at,
                                                   Access access, Leftover& left);
  /// Begins an access through the translation made last that `left` was given to. In the section of
  /// that translation.
  Hold hold(const Leftover& left) const;
  /// Interrupts for, and records, what requests of `requester` in a section have left. Outside of
  /// it; to be called wherever `left` is not as it was constructed.
  void finish(const Requester& requester, const Leftover& left);
  /// Performs an untranslated write of the four bytes `data`, as a little-endian word, to the page
  /// `mrif` that translate() gave for `at`: marks the interrupt as pending there by an atomic or,
  /// and sends the notice. What is no MSI (an offset other than 0, an identity above 2047) is
  /// discarded. A fault is recorded in the fault queue.
  /// Errors: kWriteAddressMisaligned, not recorded; kMrifAccessFault, kMsiMrifCorrupt.
  /// Spec:   AIA, "MSI PTE, MRIF mode". MSIs in big-endian order (offset 4) are not supported.
  Result<void, Cause> write_msi(const Requester& requester, const Mrif& mrif, Iova at,
                                std::uint32_t data);
  /// The two halves of it, for who found `mrif` in a reader section: what marks the interrupt goes
  /// into that section; after it the notice, which may reach an I/O region, or the record.
  /// Returns: whether there was an MSI to store, and so a notice is due. Errors: as write_msi().
  Result<bool, Cause> store_msi_in_section(const Mrif& mrif, Iova at, std::uint32_t data);
  void finish_msi(const Requester& requester, const Mrif& mrif, Iova at,
                  const Result<bool, Cause>& stored);
  /// The ids that go with the device's requests once they are translated: those of its context, or
  /// of iommu_qosid where ddtp is Bare; 0 without the capability. They are the same for all its
  /// addresses, so translations do not carry them.
  /// Errors: why there is no device context. Not recorded.
  Result<QosIds, Cause> qos_ids() const;
  /// Delivers a page request. A request that cannot be queued is answered at once as the
  /// specification says (§3.7): the response arrives at the callbacks before the call returns.
  void page_request(const PageRequest& request);
  /// Receives an Invalidate Completion for the request `itag`, the first or another of `count` (1
  /// to 8) that the device sends for it. A late one, a second one, one of another device's request
  /// is ignored; give the request's `sequence` to be safe from a tag that is in use again. What
  /// waited for it in the command queue runs before the call returns (in a reader section: later,
  /// see Iommu::advance()), with the device callbacks this entails. Thread safety: also from a
  /// callback; with no lock held that a callback takes. Spec: PCIe, "Invalidate Completion".
  void complete_invalidation(std::uint8_t itag, unsigned count = 1,
                             std::optional<std::uint32_t> sequence = std::nullopt);
  /// The memory behind the IOMMU.
  const memory::Memory& memory() const;
  DeviceId id() const { return id_; }

 private:
  friend class Iommu;
  Port(Iommu& iommu, DeviceId id, DeviceCallbacks& callbacks)
      : iommu_(iommu), id_(id), callbacks_(callbacks) {}
  Result<Translation, Cause> translate_any(const Requester& requester, Iova at, Access access,
                                           Leftover& left, Mrif* mrif);
  Result<Translation, Cause> translate_and_finish(const Requester& requester, Iova at,
                                                  Access access, Mrif* mrif);
  Result<Translation, Cause> translate_missing(const Requester& requester, Iova at, Access access,
                                               Leftover& left, Mrif* mrif);
  Result<Translation, Cause> translate_missing_here(const Requester& requester, Iova at,
                                                    Access access, Leftover& left, Mrif* mrif);
  AtsCompletion answer(const Requester& requester, Iova at, const AtsRequest& request,
                       Leftover& left);
  Iommu& iommu_;
  DeviceId id_;
  DeviceCallbacks& callbacks_;
};

/// A host's IOMMU: one stage of translation, ATS and PRI, interrupts by wire.
inline constexpr std::uint64_t kHostCapabilities =
    Capabilities::Version::make(0x10) | Capabilities::Sv39::make(1) | Capabilities::Sv48::make(1) |
    Capabilities::Sv57::make(1) | Capabilities::AmoHwad::make(1) | Capabilities::Ats::make(1) |
    Capabilities::Igs::make(Capabilities::kIgsWsi) | Capabilities::Pas::make(56) |
    Capabilities::Pd8::make(1) | Capabilities::Pd17::make(1) | Capabilities::Pd20::make(1);

/// Everything this model can do: also a hypervisor's second stage.
inline constexpr std::uint64_t kAllCapabilities =
    (kHostCapabilities & ~Capabilities::Igs::kMask) |
    Capabilities::Igs::make(Capabilities::kIgsBoth) | Capabilities::Svrsw60t59b::make(1) |
    Capabilities::Svpbmt::make(1) | Capabilities::Sv39x4::make(1) | Capabilities::Sv48x4::make(1) |
    Capabilities::Sv57x4::make(1) | Capabilities::T2gpa::make(1) | Capabilities::MsiFlat::make(1) |
    Capabilities::MsiMrif::make(1) | Capabilities::AmoMrif::make(1) | Capabilities::Hpm::make(1) |
    Capabilities::Dbg::make(1) | Capabilities::Qosid::make(1) | Capabilities::Nl::make(1) |
    Capabilities::S::make(1) | Capabilities::Sv32::make(1) | Capabilities::Sv32x4::make(1) |
    Capabilities::End::make(1);

/// The IOMMU itself.
///
/// Thread safety: all calls, from any thread, beside each other and the requests of devices, but
///                where one says otherwise. The destructor alone: every Port is gone by then, and
///                neither a call nor a handler runs.
class Iommu {
 public:
  /// Interrupt causes as numbered by ipsr: command queue, fault queue, performance monitor, page
  /// request queue.
  enum class Interrupt : std::uint8_t {
    kCommandQueue = 0,
    kFaultQueue = 1,
    kPmu = 2,
    kPageRequestQueue = 3
  };
  using InterruptHandler = std::function<void(Interrupt)>;
  using WireHandler = std::function<void(unsigned vector, bool level)>;
  using TimePoint = std::chrono::steady_clock::time_point;
  using DeadlineHandler = std::function<void(TimePoint when)>;

  /// What the specification leaves to an implementation. What cannot be is a failed check.
  struct Options {
    /// What the register of that name says: kAllCapabilities or less, but with the same version and
    /// PAS; any IGS. With IGS = BOTH fctl.WSI is 1 after a reset.
    std::uint64_t capabilities = kHostCapabilities;
    /// fctl.BE after a reset; for good unless capabilities.END is 1.
    bool big_endian = false;
    Ddtp::ModeValue reset_mode = Ddtp::ModeValue::kOff;  ///< of ddtp: Off or Bare
    /// How long a device may take to complete an ATS invalidation, and a fence may wait for an
    /// access to an I/O region: then it reports cmd_to, and what it waited for is waited for no
    /// more.
    std::chrono::nanoseconds invalidation_timeout = std::chrono::seconds(1);
    unsigned counters = 31;      ///< iohpmctr1 to this one, in [1, 31]
    unsigned counter_bits = 64;  ///< of each counter, in [32, 64]
    unsigned rcid_bits = 12;     ///< of QoS ids, at most 12
    unsigned mcid_bits = 12;     ///< likewise
    unsigned vector_bits = 4;    ///< of each field of icvec, at most 4: 2^vector_bits vectors
  };

  /// A reset IOMMU before `memory`, which must outlive it.
  Iommu(const memory::Memory& memory, const Options& options);
  explicit Iommu(const memory::Memory& memory, std::uint64_t capabilities = kHostCapabilities);
  ~Iommu();
  Iommu(const Iommu&) = delete;
  Iommu& operator=(const Iommu&) = delete;

  /// Reads or writes a register (§6 "Memory-mapped register interface"); `size_bytes` 4 or 8,
  /// naturally aligned. Other accesses and reserved offsets read 0 and ignore writes. Threads that
  /// write halves of one register, or registers that have to agree, need a lock of their own. A
  /// write to cqt processes the commands before it returns, up to the first that waits for devices;
  /// commands processed so by one thread complete in order.
  /// ddtp that was turned off reads as busy while accesses to I/O regions last that began before,
  /// at most for Options::invalidation_timeout: no thread blocks for them.
  std::uint64_t mmio_read(std::uint32_t offset, unsigned size_bytes);
  void mmio_write(std::uint32_t offset, std::uint64_t value, unsigned size_bytes);
  /// Whether the calling thread is running a command of this IOMMU, in a device callback or in an
  /// I/O region that a fence stores to; or is in one that a message of this IOMMU is stored to. A
  /// board refuses such stores to registers: those of the command queue are not for a command, and
  /// a message that clears its own interrupt's bit while the condition lasts would be sent for
  /// ever.
  bool is_storing() const;

  /// Lets time pass: ATS invalidations whose Options::invalidation_timeout is over have timed out,
  /// which the fence behind them reports; and the command queue goes on where a device completed
  /// an invalidation inside a reader section. Reading a register of a queue that waits does the
  /// same. An overflow of iohpmcycles interrupts here, or where ipsr or a register of the monitor
  /// is read. Not inside a section.
  void advance(TimePoint now = std::chrono::steady_clock::now());
  /// When advance() has something to do at the latest, as things are: so that a driver that sleeps
  /// until it is interrupted is, the owner of an IOMMU sees to it that somebody calls it by then.
  /// (A pcie::Board does.) None: nothing is outstanding.
  std::optional<TimePoint> next_deadline() const;
  /// Called when there is a new deadline, from the thread that made it, maybe inside a reader
  /// section or a command: it notes the time, and calls nothing of the IOMMU.
  void on_deadline(DeadlineHandler handler);

  /// Called once per rising edge of an ipsr bit, from the thread that raised it, with no lock held
  /// but command_mutex_ when a device callback caused it, and in no reader section of the IOMMU or
  /// of who makes requests in sections as Port says. The same holds for the handler of wires, and
  /// for an I/O region that an entry of msi_cfg_tbl names. A handler takes the place of the one
  /// before, of which a call may still be under way.
  void on_interrupt(InterruptHandler handler);
  /// Called when the wire of a vector changes its level (fctl.WSI = 1), one call at a time. The
  /// thread is the one that changed it or one that is just calling; the handler may access
  /// registers.
  void on_wire(WireHandler handler);

  /// Resets the IOMMU: registers, queues, caches; devices stay attached. When it returns, no access
  /// through an earlier translation runs any more (but one to an I/O region that has lasted for
  /// Options::invalidation_timeout), no command, and no message is on its way; a
  /// handler of wires may still be told, by a thread that is telling, that levels have fallen. No
  /// fence waits later for an access that outlasted that time.
  /// Not from a handler, a device callback or an I/O region that the IOMMU stores to, nor inside a
  /// reader section or a Hold. Where registers are written meanwhile, either comes first.
  /// Spec: §6.2 "Reset behavior"; what it leaves UNSPECIFIED is 0, fctl as at the construction.
  void reset();

  /// Makes `callbacks` the device `id` until the port is destroyed, which must happen before the
  /// IOMMU is. When the port's destructor returns, no callback runs.
  /// Errors: EEXIST when attached already; EINVAL when the id has more than 24 bits.
  Result<std::unique_ptr<Port>> attach(DeviceId id, DeviceCallbacks& callbacks);

  Stats stats() const;

 private:
  friend class Port;
  friend class Hold;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tandem::iommu
