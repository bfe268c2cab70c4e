// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "tandem/base/cpu.hpp"
#include "tandem/base/field.hpp"
#include "tandem/iommu/iommu.hpp"

namespace tandem::iommu::detail {

/// Whose translation: one word, compared as a whole.
struct IotlbContext {
  std::uint64_t word = 0;

  using Device = Field<23, 0>;
  using Process = Field<43, 24>;
  using HasPasid = Field<44>;
  using Privileged = Field<45>;
  using TranslationRequest = Field<46>;  ///< answers to ATS: EN_ATS has been checked
  using Translated = Field<47>;          ///< may use translated requests: likewise
  using SizeClass = Field<50, 48>;
  using Valid = Field<63>;

  static IotlbContext untranslated(DeviceId device, const Requester& requester) {
    const bool has = requester.pasid.has_value();
    return {Device::make(device.value) | Process::make(has ? requester.pasid->value : 0) |
            HasPasid::make(has) | Privileged::make(has && requester.privileged) | Valid::make(1)};
  }
  static IotlbContext translation_request(DeviceId device, const Requester& requester) {
    return {untranslated(device, requester).word | TranslationRequest::make(1)};
  }
  static IotlbContext translated(DeviceId device, const Requester& requester) {
    return {untranslated(device, requester).word | Translated::make(1)};
  }
};

/// Whose tables made a translation, as IOTINVAL names them: an address space of the host, or, with
/// a second stage, one of a guest.
struct AddressSpaceId {
  std::optional<std::uint32_t> gscid;
  std::uint32_t pscid = 0;
};

/// The cache of translations: a hit takes no lock and writes nothing.
///
/// Each translation sits in the one entry that (context, page) selects, under the size class of its
/// page; a lookup probes the classes that have been filled. An entry carries a *stamp*: the sum of
/// the counters that speak for it (everything; its process; its guest; its address space; its
/// address space and address) at the time it was made. An invalidation raises one counter, so every
/// entry it names, filled or about to be, has a stamp that no longer equals the sum. Counters only
/// grow, hence the sum differs as soon as one does. Counters are shared by hashing: a collision
/// invalidates too much, never too little. Nothing is ever scanned.
///
/// Fill against invalidation. The filler reads the *epoch* (F1), the tables (F2), the counters (F3)
/// and the epoch again (F4), and drops its result unless both epochs agree. The invalidator, whose
/// caller changed the tables before, raises the epoch (I1) and then the counter (I2).
///   * F1 sees I1: then F2 sees the new tables, and the entry is right.
///   * F1 and F4 do not see I1: then F3 did not see I2 (had it, F4 would see I1, which precedes
///   it),
///     so the stamp is old and void once I2 is done.
///   * Otherwise the epochs differ and nothing is filled.
///
/// Entry: a sequence lock of atomic words. A writer takes the odd number by compare-exchange, or
/// gives up its fill; a reader that meets an odd or changed number misses. It never waits.
class Iotlb {
 public:
  static constexpr std::size_t kEntries = 4096;

  enum Need : std::uint8_t { kNeedRead = 1, kNeedWrite = 2, kNeedExecute = 4 };

  Iotlb();

  /// A hit, packed in one word so that it travels in a register; empty on a miss.
  struct Hit {
    std::uint64_t data = 0;
    explicit operator bool() const { return data != 0; }
    Translation translation(Iova at) const noexcept;
  };

  /// Finds a translation of `at` that allows all of `need` (not 0); a cached one that does not is
  /// no hit, since the tables may allow it (or set D) by now. Thread safety: any thread; lock-free,
  /// wait-free.
  Hit lookup(IotlbContext context, Iova at, unsigned need) const noexcept;

  /// (F1): what fill() must be given to prove that nothing was invalidated since.
  std::uint64_t epoch() const noexcept { return epoch_.load(std::memory_order_acquire); }

  /// Remembers `translation` of `at`, made from tables read after `epoch` was. `leaf_log2_size`: of
  /// the first stage's page, which is larger where the second stage maps it in pieces. Whoever
  /// invalidates may name any address of it.
  void fill(std::uint64_t epoch, IotlbContext context, AddressSpaceId space, Iova at,
            const Translation& translation, unsigned leaf_log2_size) noexcept;

  /// Each: when it returns, no lookup that happens after finds what it names.
  void invalidate_all() noexcept;
  void invalidate_process(DeviceId device, std::uint32_t process) noexcept;
  void invalidate_guest(std::uint32_t gscid) noexcept;
  void invalidate_address_space(AddressSpaceId space) noexcept;
  void invalidate_address(AddressSpaceId space, Iova at) noexcept;

 private:
  /// Page sizes, smallest first: 4 KiB, 64 KiB (Svnapot), 2 MiB, 1 GiB, 512 GiB, 256 TiB.
  static constexpr std::array<unsigned, 6> kClassShift{12, 16, 21, 30, 39, 48};
  static constexpr std::size_t kCounters = 1024;

  using Counter = std::atomic<std::uint64_t>;
  using CounterArray = std::array<Counter, kCounters>;

  struct alignas(kCacheLine) Entry {
    Counter sequence{0};  // odd: being written
    Counter context{0};   // IotlbContext with SizeClass
    Counter page{0};      // IOVA >> class shift
    Counter data{0};      // Data
    Counter stamp{0};     // sum of the counters
    Counter counters{0};  // Which
  };
  struct Data {
    using Ppn = Field<43, 0>;
    using Readable = Field<44>;
    using Writable = Field<45>;
    using Executable = Field<46>;
    using Permissions = Field<46, 44>;  // as Need
    using Global = Field<47>;
    using Log2Size = Field<53, 48>;
    using Type = Field<55, 54>;  // MemoryType
    using Msi = Field<56>;
  };
  struct Which {  // indices of an entry's counters
    using Process = Field<15, 0>;
    using Space = Field<31, 16>;
    using Address = Field<47, 32>;
    using Guest = Field<63, 48>;
  };

  static std::size_t process_index(std::uint64_t device, std::uint64_t process) noexcept;
  static unsigned class_of(unsigned log2_size) noexcept;
  static std::size_t guest_index(std::optional<std::uint32_t> gscid) noexcept;
  static std::size_t space_index(AddressSpaceId space) noexcept;
  static std::size_t address_index(AddressSpaceId space, unsigned size_class, Iova at) noexcept;
  static constexpr std::uint64_t mix(std::uint64_t value) {
    return (value * 0x9e3779b97f4a7c15) >> 32;
  }
  Entry& entry(std::uint64_t context, std::uint64_t page) const noexcept {
    return (*entries_)[(page + mix(context)) % kEntries];
  }
  std::uint64_t stamp(std::uint64_t which) const noexcept;
  void raise(Counter& counter) noexcept;
  Hit probe(std::uint64_t context, unsigned size_class, Iova at, unsigned need) const noexcept;

  std::unique_ptr<std::array<Entry, kEntries>> entries_;  // fillers write, lookups read
  std::atomic<std::uint32_t> classes_{0};                 // bit: the class was ever filled
  alignas(kCacheLine) Counter epoch_{0};                  // invalidators write, fillers read
  alignas(kCacheLine) Counter everything_{0};             // invalidators write, all read
  CounterArray process_{};
  CounterArray guest_{};  // the first is nobody's: of translations without a second stage
  CounterArray space_{};
  CounterArray address_{};
};

// The hit path, inline.

inline std::uint64_t Iotlb::stamp(std::uint64_t which) const noexcept {
  return everything_.load(std::memory_order_acquire) +
         process_[Which::Process::get(which) % kCounters].load(std::memory_order_acquire) +
         guest_[Which::Guest::get(which) % kCounters].load(std::memory_order_acquire) +
         space_[Which::Space::get(which) % kCounters].load(std::memory_order_acquire) +
         address_[Which::Address::get(which) % kCounters].load(std::memory_order_acquire);
}

inline Translation Iotlb::Hit::translation(Iova at) const noexcept {
  const auto log2_size = static_cast<unsigned>(Data::Log2Size::get(data));
  return {PhysAddr{(Data::Ppn::get(data) << kPageShift) |
                   (at.value & ((std::uint64_t{1} << log2_size) - 1))},
          static_cast<std::uint8_t>(log2_size),
          Data::Readable::get(data) != 0,
          Data::Writable::get(data) != 0,
          Data::Executable::get(data) != 0,
          Data::Global::get(data) != 0,
          static_cast<MemoryType>(Data::Type::get(data)),
          Data::Msi::get(data) != 0};
}

/// Ordering: (A) the acquire loads of the words keep the second load of the sequence after them;
///           each pairs with the release store (B) in fill(), so that a word of a newer writer
///           brings that writer's odd number with it.
inline Iotlb::Hit Iotlb::probe(std::uint64_t context, unsigned size_class, Iova at,
                               unsigned need) const noexcept {
  const std::uint64_t page = at.value >> kClassShift[size_class];
  const std::uint64_t key = context | IotlbContext::SizeClass::make(size_class);
  const Entry& candidate = entry(key, page);
  const std::uint64_t sequence = candidate.sequence.load(std::memory_order_acquire);
  if (candidate.context.load(std::memory_order_acquire) != key) return {};  // (A)
  if (candidate.page.load(std::memory_order_acquire) != page) return {};
  const std::uint64_t data = candidate.data.load(std::memory_order_acquire);
  const std::uint64_t made = candidate.stamp.load(std::memory_order_acquire);
  const std::uint64_t which = candidate.counters.load(std::memory_order_acquire);
  if ((sequence & 1) != 0 || candidate.sequence.load(std::memory_order_relaxed) != sequence) {
    return {};
  }
  if ((Data::Permissions::get(data) & need) != need || made != stamp(which)) return {};
  return {data};
}

inline Iotlb::Hit Iotlb::lookup(IotlbContext context, Iova at, unsigned need) const noexcept {
  std::uint32_t classes = classes_.load(std::memory_order_relaxed);
  while (classes != 0) {
    const auto size_class = static_cast<unsigned>(__builtin_ctz(classes));
    if (const Hit hit = probe(context.word, size_class, at, need)) return hit;
    classes &= classes - 1;
  }
  return {};
}

}  // namespace tandem::iommu::detail
