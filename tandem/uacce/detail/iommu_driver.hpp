// SPDX-License-Identifier: Apache-2.0
/// Drives the IOMMU as its specification tells software to: directories, queues, commands.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <tuple>
#include <vector>

#include "tandem/base/mutex.hpp"
#include "tandem/base/result.hpp"
#include "tandem/iommu/iommu.hpp"
#include "tandem/uacce/detail/page_table.hpp"
#include "tandem/uacce/detail/table_memory.hpp"

namespace tandem::uacce::detail {

/// One IOMMU: a three-level device directory, one process directory that all devices share (a PASID
/// means the same address space to each of them; PSCID = PASID), three queues.
///
/// A page request is served on the thread that made it, with no lock held, so a service that blocks
/// holds up its own requester and nobody else. An interrupt, on whichever thread, only takes
/// records from the queue to where their requesters look for them.
///
/// Lock order: directory_mutex_ → command_mutex_; queue_mutex_ alone. Device callbacks run under
/// command_mutex_ (and the IOMMU's own), or on the thread that ends the last window that an
/// invalidation waited for, so they must not call back here.
class IommuDriver {
 public:
  /// For the IOMMU's Options: how long a device may hold the command queue.
  static constexpr std::chrono::milliseconds kInvalidationTimeout{1};

  using Service = std::function<iommu::PageResponse::Code(const iommu::PageRequestRecord&)>;

  IommuDriver(memory::Memory& memory, iommu::Iommu& iommu, TableMemory& tables)
      : memory_(memory), iommu_(iommu), tables_(tables) {}
  ~IommuDriver();
  IommuDriver(const IommuDriver&) = delete;
  IommuDriver& operator=(const IommuDriver&) = delete;

  /// Checks the capabilities and switches everything on. `service` answers page requests.
  /// Errors: ENOTSUP a capability is missing, ENOMEM, ENOSPC, EIO a register did not take.
  Result<void> start(Service service);

  /// Makes a device context that allows PASID, ATS and PRI, for an id that is not in use.
  Result<iommu::DeviceId> add_device();
  void remove_device(iommu::DeviceId device);

  /// Makes `pasid` mean the page table at `root` to every device. Errors: ENOMEM, ENOSPC.
  Result<void> set_process(iommu::Pasid pasid, memory::PhysAddr root);

  /// [[nodiscard]] results below: false when a device did not complete its ATS invalidation within
  /// a second, during which other spaces have the queue but for kInvalidationTimeout at a time. The
  /// IOMMU itself has forgotten everything either way, the fence is complete. Do not call them with
  /// a Window of that space: they would wait for it.

  /// Makes `pasid` mean nothing, everywhere.
  [[nodiscard]] bool clear_process(iommu::Pasid pasid);
  /// Makes everyone forget the translations of [first, last) of `pasid`.
  [[nodiscard]] bool invalidate(iommu::Pasid pasid, std::uint64_t first, std::uint64_t last,
                                bool tables_unlinked);

  /// Serves a page request that `device` has just sent; call it on the thread that waits for the
  /// response (pcie::Endpoint::Options::page_request_sent).
  void serve_page_request(iommu::DeviceId device, const iommu::PageRequest& request);
  /// Serves what is left of `pasid`, which means nothing any more.
  void serve_left_of(iommu::Pasid pasid);

  /// The entries that the IOMMU reads to find `pasid`'s context.
  std::vector<PageTable::Step> walk_directory(iommu::Pasid pasid) const;
  std::uint64_t faults_recorded() const;

 private:
  struct Queue {
    memory::PhysAddr base;
    std::uint32_t entries = 0;
  };

  Result<Queue> start_queue(std::uint32_t base, std::uint32_t csr, std::uint64_t enable,
                            std::uint64_t on, std::uint32_t entry_bytes);
  void on_interrupt(iommu::Iommu::Interrupt interrupt);
  void collect_page_requests();
  struct Taken {
    iommu::PageRequestRecord record;
    iommu::PageResponse::Code before;  // the worst answer to those before it in its group
  };
  Taken take_locked(const iommu::PageRequestRecord& record) TANDEM_REQUIRES(queue_mutex_);
  void serve(const Taken& taken);
  void drain_faults();

  /// Runs the commands that `make` makes, and a fence, until every device has completed them.
  /// Returns: false when one has not in kDeviceTimeout.
  template <class Make>
  bool run_until_complete(Make make) TANDEM_EXCLUDES(command_mutex_);
  /// Runs `commands` and a fence, one command per known device for each that asks for it.
  /// Returns: false after an ATS time-out.
  bool run_locked(std::span<const iommu::Command> commands) TANDEM_REQUIRES(command_mutex_);
  void append_locked(const iommu::Command& command) TANDEM_REQUIRES(command_mutex_);
  bool kick_locked() TANDEM_REQUIRES(command_mutex_);
  Result<memory::PhysAddr> child_locked(memory::PhysAddr entry) TANDEM_REQUIRES(directory_mutex_);
  memory::PhysAddr device_entry_locked(iommu::DeviceId device) const
      TANDEM_REQUIRES(directory_mutex_);
  std::uint64_t load(memory::PhysAddr at) const;
  void store(memory::PhysAddr at, std::uint64_t value);

  memory::Memory& memory_;
  iommu::Iommu& iommu_;
  TableMemory& tables_;
  Service service_;                    // constant after start()
  memory::PhysAddr device_directory_;  // likewise
  memory::PhysAddr process_directory_;
  Queue page_requests_, faults_, commands_;

  mutable Mutex directory_mutex_;
  std::uint32_t next_device_ TANDEM_GUARDED_BY(directory_mutex_) = 0x100;
  std::vector<iommu::DeviceId> free_devices_ TANDEM_GUARDED_BY(directory_mutex_);

  Mutex command_mutex_;
  std::uint32_t command_tail_ TANDEM_GUARDED_BY(command_mutex_) = 0;
  std::vector<iommu::DeviceId> devices_ TANDEM_GUARDED_BY(command_mutex_);

  mutable Mutex queue_mutex_;
  /// Device, PASID and PRGI.
  using Group = std::tuple<std::uint32_t, std::optional<std::uint32_t>, std::uint16_t>;
  static Group group_of(const iommu::PageRequestRecord& record) {
    return {record.device_id(), record.process_id(), record.group()};
  }
  /// Taken from the queue, and not by their requesters yet.
  std::multimap<Group, iommu::PageRequestRecord> waiting_ TANDEM_GUARDED_BY(queue_mutex_);
  /// The worst answer so far of groups whose last request has not come yet.
  std::map<Group, iommu::PageResponse::Code> open_groups_ TANDEM_GUARDED_BY(queue_mutex_);
  std::uint64_t faults_recorded_ TANDEM_GUARDED_BY(queue_mutex_) = 0;
};

}  // namespace tandem::uacce::detail
