// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "tandem/base/cpu.hpp"
#include "tandem/base/field.hpp"
#include "tandem/iommu/iommu.hpp"

namespace tandem::iommu::detail {

/// Sizes of pages that a first stage has, smallest first: 4 KiB, 64 KiB (Svnapot), 2 MiB, 4 MiB
/// (Sv32), 1 GiB, 512 GiB, 256 TiB.
inline constexpr std::array<std::uint8_t, 7> kPageClasses{12, 16, 21, 22, 30, 39, 48};

/// The largest of kPageClasses that a page of 2^log2_size bytes holds.
unsigned page_class(unsigned log2_size) noexcept;

/// Whose tables made a translation, as IOTINVAL names them: an address space of the host, or, with
/// a second stage, one of a guest.
struct AddressSpaceId {
  std::optional<std::uint32_t> gscid;
  std::uint32_t pscid = 0;
};

/// What invalidations have done, so that no cache of the IOMMU has to be searched.
///
/// Counters that only grow *speak for* what is cached: those of its device, of its device and
/// process, of its domain (the host, or a guest), of its address space, of its page in that. An
/// entry carries a Stamp: which counters, and their sum when it was made. An invalidation raises
/// the counters of what it names, so that the stamp of every such entry, cached or about to be, no
/// longer holds: the sum differs as soon as one counter does. Counters are shared by hashing: a
/// collision invalidates too much, never too little.
///
/// Fill against invalidation. A Snapshot reads each counter (F1) before anything that it speaks for
/// is read (F2), be it a table or another cache whose entry's stamp holds. The invalidator, whose
/// caller changed the tables before, raises the counter (I).
///   * F1 sees I: then F2 sees the new tables, and no cached entry that I has voided.
///   * F1 does not see I: then the stamp is void once I is done.
/// One invalidation may raise several counters (I), those of larger pages first; so who sees the
/// one of a page sees those of the larger pages that hold it.
///
/// Thread safety: any thread; nothing waits.
class Generations {
 public:
  /// Which counters speak for an entry, and what they added up to.
  using Stamp = iommu::Stamp;
  class Snapshot;
  class LeafSnapshot;

  /// Whether nothing that the stamp's counters speak for was invalidated since it was made.
  bool holds(const Stamp& stamp) const noexcept { return sum_of(stamp.which) == stamp.sum; }

  /// Each: when it returns, no stamp holds that names it and was made before.
  void invalidate_all() noexcept;
  void invalidate_device(DeviceId device) noexcept;
  void invalidate_process(DeviceId device, std::uint32_t process) noexcept;
  /// Of the host, or of a guest: what its page tables made.
  void invalidate_domain(std::optional<std::uint32_t> gscid) noexcept;
  void invalidate_all_guests() noexcept;
  void invalidate_address_space(AddressSpaceId space) noexcept;
  /// The pages that meet the naturally aligned range of 2^log2_size bytes around `at`.
  void invalidate_range(AddressSpaceId space, Iova at, unsigned log2_size) noexcept;

 private:
  using Counter = std::atomic<std::uint64_t>;  // invalidators raise, all read

  /// Indices of an entry's counters; 0 is nobody's and stays 0.
  struct Which {
    using Device = Field<7, 0>;
    using Domain = Field<15, 8>;
    using Process = Field<31, 16>;
    using Space = Field<47, 32>;
    using Page = Field<63, 48>;
  };
  static constexpr std::size_t kDevices = 128;
  static constexpr std::size_t kDomains = 128;  // the first is the host's
  static constexpr std::size_t kOthers = 1024;
  static_assert(kDevices <= Which::Device::kMax && kDomains <= Which::Domain::kMax);
  static_assert(kOthers <= Which::Process::kMax);

  static std::uint64_t mix(std::uint64_t value) noexcept {
    return (value * 0x9e37'79b9'7f4a'7c15) >> 40;
  }
  static std::uint64_t device_index(DeviceId device) noexcept;
  static std::uint64_t process_index(DeviceId device, std::uint32_t process) noexcept;
  static std::uint64_t domain_index(std::optional<std::uint32_t> gscid) noexcept;
  /// The domain and the process-soft-context id, in one word.
  static std::uint64_t space_key(AddressSpaceId space) noexcept {
    const std::uint64_t domain = space.gscid ? std::uint64_t{*space.gscid} + 1 : 0;
    return domain << kPasidBits | space.pscid;
  }
  static std::uint64_t space_index(std::uint64_t space_key) noexcept;
  static std::uint64_t page_index(std::uint64_t space_key, unsigned page_class,
                                  std::uint64_t page) noexcept {
    return 1 + mix(page * 31 + (space_key << 3 | page_class)) % kOthers;
  }
  static void raise(Counter& counter) noexcept;
  static std::uint64_t load(const Counter& counter) noexcept {
    return counter.load(std::memory_order_acquire);
  }
  std::uint64_t sum_of(std::uint64_t which) const noexcept;
  /// What a planted fault stamps with: the counters as they are now.
  Stamp late(const Stamp& stamp) const noexcept;

  alignas(kCacheLine) std::array<Counter, kDevices + 1> device_{};
  std::array<Counter, kDomains + 1> domain_{};
  std::array<Counter, kOthers + 1> process_{};
  std::array<Counter, kOthers + 1> space_{};
  std::array<Counter, kOthers + 1> page_{};
};

/// What a translation in the making will be stamped with. Take each step before anything is read
/// that the counters named by it speak for.
class Generations::Snapshot {
 public:
  /// Before the directories.
  Snapshot(const Generations& generations, DeviceId device, std::uint32_t process) noexcept;
  /// Before what the second stage maps, the process directory with it.
  void add_domain(std::optional<std::uint32_t> gscid) noexcept;
  /// Before the first stage's tables.
  void add_space(AddressSpaceId space, Iova at) noexcept;

  Stamp of_device_context() const noexcept { return device_; }
  Stamp of_process_context() const noexcept { return process_; }
  /// `leaf_log2_size`: of the first stage's page, which is larger than the translation's where the
  /// second stage maps it in pieces: whoever invalidates may name any address of it.
  Stamp of_translation(unsigned leaf_log2_size) const noexcept;

 private:
  const Generations& generations_;
  Stamp device_;
  Stamp process_;  // with add_domain(): and what it needs of the second stage
  Stamp space_;
  // Of the page of each size, from add_space() on; not cleared before that, which would take long.
  std::array<std::uint64_t, kPageClasses.size()> pages_;
  std::array<std::uint64_t, kPageClasses.size()> page_sums_;
};

/// The same for a translation that begins at a cached table of leaves. What speaks for the table
/// speaks for the translation, but in place of the range that the table maps the page alone: the
/// translation outlives an invalidation of its neighbours.
class Generations::LeafSnapshot {
 public:
  explicit LeafSnapshot(const Generations& generations) : generations_(generations) {}
  /// Before the leaf of `at` is read. `table`: the stamp of the table. Returns: whether it holds;
  /// the rest is for who was told so.
  [[nodiscard]] bool take(const Stamp& table, AddressSpaceId space, Iova at) noexcept;
  /// Whether it still does: what was read elsewhere meanwhile is of the same time as the table.
  bool table_holds() const noexcept { return generations_.holds(table_); }
  Stamp of_translation(unsigned leaf_log2_size) const noexcept;

 private:
  static constexpr std::size_t kClasses = 2;  // 4 KiB and 64 KiB: larger leaves are in other tables
  static_assert(kPageClasses[kClasses] > 16);

  const Generations& generations_;
  Stamp table_;
  Stamp above_;  // of the table, without its page
  std::array<std::uint64_t, kClasses> pages_{};
  std::array<std::uint64_t, kClasses> page_sums_{};
};

inline std::uint64_t Generations::sum_of(std::uint64_t which) const noexcept {
  return load(device_.data()[Which::Device::get(which)]) +
         load(domain_.data()[Which::Domain::get(which)]) +
         load(process_.data()[Which::Process::get(which)]) +
         load(space_.data()[Which::Space::get(which)]) +
         load(page_.data()[Which::Page::get(which)]);
}

/// An invalidation of the page may be one of the table, too, because an entry above was changed. It
/// raises the table's counter first (I). So those of the page are read before the table's (F1): who
/// sees that the page was invalidated sees that the table was.
[[gnu::always_inline]] inline bool Generations::LeafSnapshot::take(const Stamp& table,
                                                                   AddressSpaceId space,
                                                                   Iova at) noexcept {
  const std::uint64_t key = space_key(space);
  for (unsigned i = 0; i < kClasses; ++i) {
    const std::uint64_t page = page_index(key, i, at.value >> kPageClasses.data()[i]);
    pages_.data()[i] = Which::Page::make(page);
    page_sums_.data()[i] = load(generations_.page_.data()[page]);  // (F1)
  }
  const std::uint64_t of_table = load(generations_.page_.data()[Which::Page::get(table.which)]);
  table_ = table;
  above_ = {Which::Page::set(table.which, 0), table.sum - of_table};
  return generations_.holds(above_);
}

}  // namespace tandem::iommu::detail
