// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

#include "tandem/base/mutex.hpp"
#include "tandem/iommu/detail/command_queue.hpp"
#include "tandem/iommu/detail/config.hpp"
#include "tandem/iommu/detail/context_cache.hpp"
#include "tandem/iommu/detail/deadline.hpp"
#include "tandem/iommu/detail/debug_translation.hpp"
#include "tandem/iommu/detail/generations.hpp"
#include "tandem/iommu/detail/interrupts.hpp"
#include "tandem/iommu/detail/iotlb.hpp"
#include "tandem/iommu/detail/performance_monitor.hpp"
#include "tandem/iommu/detail/record_queue.hpp"
#include "tandem/iommu/detail/sharded_counter.hpp"
#include "tandem/iommu/detail/table_cache.hpp"
#include "tandem/iommu/detail/walk.hpp"
#include "tandem/iommu/iommu.hpp"

namespace tandem::iommu {

namespace detail {

/// One inbound transaction with an address.
struct Transaction {
  TransactionType type = TransactionType::kNone;
  DeviceId device;
  Requester requester;
  Iova at;
  Access access = Access::kRead;
  bool wants_write = false;
  Mrif* mrif = nullptr;    ///< where to put the interrupt file found in memory, if asked for
  bool for_debug = false;  ///< of the translation-request registers
};

/// A PASID that no prefix can carry must not alias one that it can.
inline bool pasid_exists(const Requester& requester) {
  return !requester.pasid || requester.pasid->value >> kPasidBits == 0;
}

/// What a transaction's fault record says.
FaultRecord make_fault_record(Cause cause, TransactionType type, DeviceId device,
                              const Requester& requester, std::uint64_t iotval,
                              std::uint64_t iotval2 = 0);

/// Whether a fault of this cause is reported although DTF is set. Spec: §4.2, table "Fault record
/// CAUSE field encodings".
bool reported_despite_dtf(Cause cause);

}  // namespace detail

struct Iommu::State {
  State(const memory::Memory& physical_memory, const Options& options)
      : memory(physical_memory),
        config(options),
        ddtp(Ddtp::make(options.reset_mode)),
        interrupts(config),
        monitor(config, interrupts),
        faults(physical_memory, config, interrupts, Interrupt::kFaultQueue),
        page_requests(physical_memory, config, interrupts, Interrupt::kPageRequestQueue),
        commands(physical_memory, config, generations, ddtp, interrupts, deadline) {}

  /// §3.3 "Process to translate an IOVA" after an IOTLB miss; fills the IOTLB. Leaves the refusal
  /// to the caller. (translate.cpp)
  Result<Translation, TransactionFault> translate(const detail::Transaction& transaction,
                                                  detail::IotlbContext context, Leftover& left);
  /// The same where its last table is cached, and nothing but a translation comes of it.
  /// (translate.cpp)
  std::optional<Translation> translate_from_table(detail::TableReader& reader,
                                                  const detail::Transaction& transaction,
                                                  detail::IotlbContext context,
                                                  detail::WalkCounts& counts, Stamp& stamp);
  Result<Translation, TransactionFault> translate_counted(detail::TableReader& reader,
                                                          const detail::Transaction& transaction,
                                                          detail::IotlbContext context,
                                                          detail::WalkCounts& counts, Stamp& stamp);
  /// Step 17: through the first stage. `last`: the table of the leaf, where there is one.
  /// (translate.cpp)
  Result<Translation, detail::WalkFault> walk_first(detail::TableReader& reader,
                                                    const detail::Transaction& transaction,
                                                    const detail::Walk& walk,
                                                    std::optional<detail::LastTable>& last);
  /// Step 18: `found`, what the first stage found, to an interrupt file. (translate.cpp)
  Result<void, detail::WalkFault> reach_interrupt_file(detail::TableReader& reader,
                                                       const detail::Transaction& transaction,
                                                       const ExtendedDeviceContext& device,
                                                       Translation& found);
  /// Step 19: `found`, what the first stage found, through the second. (translate.cpp)
  Result<void, detail::WalkFault> walk_second(detail::TableReader& reader,
                                              const detail::Transaction& transaction,
                                              const ExtendedDeviceContext& device,
                                              const detail::SecondStage& stage, Translation& found);
  /// The address as it is, if there is such an address. (translate.cpp)
  Result<Translation, detail::WalkFault> pass(detail::TableReader& reader,
                                              const detail::Transaction& transaction);
  /// Steps 1 to 6: `to` becomes the device context of a device, by `pointer`, which is ddtp as
  /// loaded after `snapshot` was taken. (translate.cpp)
  Result<void, Cause> locate_device(detail::TableReader& reader,
                                    const detail::Generations::Snapshot& snapshot,
                                    std::uint64_t pointer, DeviceId device,
                                    ExtendedDeviceContext& to);
  /// The same in a section of its own. Where to put, if asked for: `loads`, what was loaded;
  /// `used`, that ddtp. (translate.cpp)
  Result<ExtendedDeviceContext, Cause> device_context(DeviceId device, detail::TableLoads* loads,
                                                      std::uint64_t* used = nullptr);
  /// Steps 10 to 16: `to`, which is Bare, becomes the first stage. (translate.cpp)
  Result<void, detail::WalkFault> select_first_stage(detail::TableReader& reader,
                                                     const detail::Generations::Snapshot& snapshot,
                                                     const detail::Transaction& transaction,
                                                     const DeviceContext& device,
                                                     detail::FirstStage& to, detail::EventIds& ids);
  /// Steps 14 and 15: `to` becomes the process context. (translate.cpp)
  Result<void, detail::WalkFault> locate_process(detail::TableReader& reader,
                                                 const detail::Generations::Snapshot& snapshot,
                                                 const detail::Transaction& transaction,
                                                 const DeviceContext& device, std::uint32_t process,
                                                 ProcessContext& to);
  /// Queues a fault record unless DTF forbids, and raises its interrupt. (fault_queue.cpp)
  void report(const TransactionFault& fault, TransactionType type, DeviceId device,
              const Requester& requester, std::uint64_t iotval);
  /// §3.7 "PCIe ATS Page Request handling". (page_request_queue.cpp)
  void page_request(DeviceId device, DeviceCallbacks& callbacks, const PageRequest& request);

  /// Signals that a bit of ipsr rose. Call with no lock held. (interrupts.cpp)
  void signal(Interrupt interrupt);
  void signal_if(bool raised, Interrupt interrupt) {
    if (raised) signal(interrupt);
  }
  void signal_all(detail::Interrupts::Edges edges);
  /// Returns: the edges that came of it.
  [[nodiscard]] detail::Interrupts::Edges send(
      const std::optional<detail::Interrupts::Message>& message);
  /// Stores a message; one that reaches nothing is reported. (interrupts.cpp)
  void store_message(PhysAddr at, std::uint32_t data);
  void write_ipsr(std::uint32_t value);

  /// Counts a request, or what was walked. An overflow is left to be signalled outside of sections.
  void count_request(HpmEvent event, DeviceId device, const Requester& requester, Leftover& left) {
    if (monitor.counts(event)) [[unlikely]] {
      if (monitor.count(event, {device, requester.pasid})) left.overflowed = true;
    }
  }
  void count_walks(const detail::WalkCounts& counts, Leftover& left) {
    if (monitor.counts_any()) [[unlikely]]
      count_walks_slow(counts, left);
  }
  /// (performance_monitor.cpp)
  void count_walks_slow(const detail::WalkCounts& counts, Leftover& left);
  /// Signals and reports what is left. Not inside a section.
  void finish(const Leftover& left, DeviceId device, const Requester& requester) {
    signal_if(left.overflowed, Interrupt::kPmu);
    if (!left.refusal) return;
    const auto& [fault, type, at] = *left.refusal;
    report(fault, type, device, requester, at.value);
  }
  void poll_monitor() { signal_if(monitor.poll(), Interrupt::kPmu); }
  /// After a write that may let iohpmcycles overflow sooner.
  void tell_overflow() {
    if (const auto when = monitor.next_overflow()) deadline.tell(*when);
  }

  struct Register;  // a row of the table of registers (registers.cpp)
  std::uint64_t read_register(std::uint32_t offset, unsigned size_bytes);
  void write_register(std::uint32_t offset, std::uint64_t value, unsigned size_bytes);
  void write_fctl(std::uint32_t value);
  void write_qosid(std::uint32_t value);
  /// §5 "Debug support". (debug_translation.cpp)
  void translate_for_debug(const detail::DebugTranslation::Request& request);
  /// Busy as long as what was in flight when it was turned off.
  std::uint64_t read_ddtp();
  /// `mask`: what of `value` is written.
  void write_ddtp(std::uint64_t value, std::uint64_t mask);
  /// §6.2 "Reset behavior". (reset.cpp)
  void reset();

  const memory::Memory& memory;
  detail::Config config;
  detail::Generations generations;
  detail::Iotlb iotlb{generations};
  detail::ContextCache contexts{generations};
  detail::TableCache tables;
  std::atomic<std::uint64_t> ddtp;  // written under ddtp_mutex, read by every transaction
  Mutex ddtp_mutex;
  unsigned turning_off TANDEM_GUARDED_BY(ddtp_mutex) = 0;  // writes of Off in a grace period
  detail::HeldAccesses::Earlier before_off TANDEM_GUARDED_BY(ddtp_mutex);
  detail::Deadline deadline;
  detail::Interrupts interrupts;
  detail::PerformanceMonitor monitor;
  detail::RecordQueue faults;
  detail::RecordQueue page_requests;
  detail::CommandQueue commands;

  detail::DebugTranslation debug;
  std::atomic<std::uint32_t> qosid{0};  // iommu_qosid

  detail::ShardedCounter iotlb_hits;
  detail::ShardedCounter iotlb_misses;
  detail::ShardedCounter walks;
  std::atomic<std::uint64_t> page_requests_seen{0};
  std::atomic<std::uint64_t> faults_seen{0};
};

}  // namespace tandem::iommu
