// SPDX-License-Identifier: Apache-2.0
/// What a Host and its Mms share.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

#include "tandem/base/mutex.hpp"
#include "tandem/rcu/index_map.hpp"
#include "tandem/rcu/rcu.hpp"
#include "tandem/uacce/detail/aperture.hpp"
#include "tandem/uacce/detail/client_memory.hpp"
#include "tandem/uacce/detail/host.hpp"
#include "tandem/uacce/detail/iommu_driver.hpp"
#include "tandem/uacce/detail/known_mappings.hpp"
#include "tandem/uacce/detail/mapping_kind.hpp"
#include "tandem/uacce/detail/page_table.hpp"
#include "tandem/uacce/detail/pasid_allocator.hpp"
#include "tandem/uacce/detail/reserved_memory.hpp"
#include "tandem/uacce/detail/table_memory.hpp"

namespace tandem::uacce::detail {

/// Lock order: Mm::State's unbind_mutex_ → its mutex_ → IommuDriver's locks; mutex_ here, and those
/// of the parts, are innermost.
struct Host::State {
  State();
  ~State();

  /// Takes no lock: every page request asks.
  std::shared_ptr<Mm::State> find(iommu::Pasid pasid) const;
  iommu::PageResponse::Code serve(const iommu::PageRequestRecord& record);

  const std::shared_ptr<PhysicalSpace> physical;
  iommu::Iommu iommu;
  TableMemory tables;
  MappingClassifier classifier;
  const std::shared_ptr<Aperture> aperture;
  memory::RegionId aperture_region{};  // constant after create()
  PasidAllocator pasids;
  IommuDriver driver;

  struct Space : rcu::rcu_obj_base<Space> {
    explicit Space(std::weak_ptr<Mm::State> of) : state(std::move(of)) {}
    const std::weak_ptr<Mm::State> state;
  };
  rcu::index_map<Space> spaces;  // by PASID, from bind() to unbind(); owning

  mutable Mutex mutex_;
  /// What quarantined spaces could reach, by PASID; kept until they are reclaimed.
  std::unordered_map<std::uint32_t, std::vector<std::shared_ptr<ReservedMemory>>> quarantined
      TANDEM_GUARDED_BY(mutex_);
};

struct Mm::State {
  State(std::shared_ptr<Host::State> host_state, iommu::Pasid id,
        std::shared_ptr<ClientMemory> client_memory, PageTable page_table)
      : host(std::move(host_state)),
        pasid(id),
        client(std::move(client_memory)),
        table(std::move(page_table)) {}

  /// [start, end) of the space is `memory`.
  struct Attachment {
    std::uint64_t start = 0;
    std::uint64_t end = 0;
    std::shared_ptr<ReservedMemory> memory;
  };

  Result<void> attach(const std::shared_ptr<ReservedMemory>& memory, std::uint64_t address);
  Result<void> detach(const ReservedMemory& memory);
  void forget(const ReservedMemory& memory);
  AddressKind classify(std::uint64_t address);
  void revoke_page(std::uint64_t address, bool refuse);
  bool unbind();
  bool reclaim();
  std::vector<PageTable::Step> walk(std::uint64_t address) const;

  /// Answers a page request: makes `address`, and what is cheap to make with it, accessible.
  iommu::PageResponse::Code serve(std::uint64_t address, bool read, bool write);

  const std::shared_ptr<Host::State> host;
  const iommu::Pasid pasid;
  const std::shared_ptr<ClientMemory> client;  // none: reserved memory only
  std::atomic<std::uint64_t> faults_served{0};
  std::atomic<std::uint64_t> faults_refused{0};
  std::atomic<bool> condemned{false};  // set by anyone, read by unbind()

 private:
  using Code = iommu::PageResponse::Code;

  Code serve_checked(std::uint64_t address, bool read, bool write);
  const Attachment* attachment_at_locked(std::uint64_t address) const TANDEM_REQUIRES(mutex_);
  /// Whether some page of [first, last) is reserved memory or refused.
  bool special_locked(std::uint64_t first, std::uint64_t last) const TANDEM_REQUIRES(mutex_);
  Code map_reserved_locked(const Attachment& attachment, std::uint64_t address)
      TANDEM_REQUIRES(mutex_);
  Code map_aperture_locked(const Vma& vma, std::uint64_t address) TANDEM_REQUIRES(mutex_);
  /// Maps a page of at most 1 GiB around `address`, or leaf pages around it, all inside
  /// [first, last), where `first` translates to `to_first`.
  Result<void> map_around_locked(std::uint64_t address, std::uint64_t first, std::uint64_t last,
                                 memory::PhysAddr to_first, PageRights rights)
      TANDEM_REQUIRES(mutex_);
  Result<void> map_in_window_locked(const Vma& vma, std::uint64_t address) TANDEM_REQUIRES(mutex_);
  /// Makes room when tables or windows have reached a limit: forgets every translation. Those in
  /// use come back by page requests.
  void prune_locked() TANDEM_REQUIRES(mutex_);
  std::vector<WindowNumber> all_windows_locked() const TANDEM_REQUIRES(mutex_);
  Result<WindowNumber> window_locked(std::uint64_t address) TANDEM_REQUIRES(mutex_);
  /// Order of a change: the entries are written; invalidates, fences, then frees.
  /// Returns: false when a device did not complete.
  bool commit_locked(PageTable::Change& change) TANDEM_REQUIRES(mutex_);
  void release_locked() TANDEM_REQUIRES(mutex_);
  void quarantine_locked() TANDEM_REQUIRES(mutex_);

  Mutex unbind_mutex_;
  mutable Mutex mutex_;
  bool bound TANDEM_GUARDED_BY(mutex_) = true;
  bool is_quarantined TANDEM_GUARDED_BY(mutex_) = false;
  PageTable table TANDEM_GUARDED_BY(mutex_);
  std::map<std::uint64_t, Attachment> attachments TANDEM_GUARDED_BY(mutex_);  // by start
  /// Detached, but an access may not have ended.
  std::vector<std::shared_ptr<ReservedMemory>> lingering TANDEM_GUARDED_BY(mutex_);
  std::set<std::uint64_t> refused_pages TANDEM_GUARDED_BY(mutex_);
  KnownMappings known_mappings TANDEM_GUARDED_BY(mutex_);
  std::unordered_map<std::uint64_t, WindowNumber> windows TANDEM_GUARDED_BY(mutex_);  // by GiB
  struct Pruned {
    std::chrono::steady_clock::time_point since;
    std::vector<WindowNumber> windows;
  };
  /// Windows without translations; oldest first. An access that found one before may reach it yet.
  std::vector<Pruned> pruned TANDEM_GUARDED_BY(mutex_);
};

}  // namespace tandem::uacce::detail
