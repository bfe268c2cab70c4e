// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "tandem/base/field.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/base/seqlock.hpp"
#include "tandem/iommu/detail/generations.hpp"
#include "tandem/iommu/detail/lazy_array.hpp"
#include "tandem/iommu/iommu.hpp"

namespace tandem::iommu::detail {

/// Whose translation: one word, compared as a whole.
struct IotlbContext {
  std::uint64_t word = 0;

  using HasPasid = Field<0>;
  using Privileged = Field<1>;
  using TranslationRequest = Field<2>;  ///< answers to ATS: EN_ATS has been checked
  using Translated = Field<3>;          ///< may use translated requests: likewise
  using Device = Field<27, 4>;
  using Process = Field<47, 28>;
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

/// What is cached of a translation beside its address, as a word: not 0. Never one to an interrupt
/// file in memory. Its bytes are those that follow the address in a Translation, so that a hit is
/// one as it is.
using Attributes = std::uint64_t;
struct AttributeBytes {
  std::uint8_t log2_size;
  bool readable, writable, executable, global;
  MemoryType memory_type;
  std::uint8_t flags;  // the bit fields
  std::uint8_t unused = 0;

  static constexpr std::uint8_t kMsi = 1 << 0;
  static constexpr std::uint8_t kGuestAddress = 1 << 2;
};
static_assert(sizeof(AttributeBytes) == sizeof(Attributes));
static_assert(sizeof(Translation) == sizeof(PhysAddr) + sizeof(Attributes));
static_assert(offsetof(Translation, log2_size) == sizeof(PhysAddr));
static_assert(offsetof(Translation, memory_type) ==
              sizeof(PhysAddr) + offsetof(AttributeBytes, memory_type));
static_assert(std::endian::native == std::endian::little, "whose first bit field is the lowest");
constexpr Attributes attributes_of(const Translation& from) {
  const int flags = (from.msi ? AttributeBytes::kMsi : 0) |
                    (from.guest_address ? AttributeBytes::kGuestAddress : 0);
  return std::bit_cast<Attributes>(AttributeBytes{from.log2_size, from.readable, from.writable,
                                                  from.executable, from.global, from.memory_type,
                                                  static_cast<std::uint8_t>(flags)});
}

/// The cache of translations: a hit takes no lock and writes nothing.
///
/// Each translation sits in the one entry that (context, page) selects, under the class of its
/// page's size; a lookup probes the classes that have been filled. What is invalidated stays where
/// it is: its stamp does not hold any more. Thread safety: any thread; lock-free, wait-free.
class Iotlb {
 public:
  static constexpr std::size_t kEntries = std::size_t{1} << kLog2CacheEntries;

  static constexpr Attributes kNeedRead =
      attributes_of({.address = {}, .log2_size = 0, .readable = true});
  static constexpr Attributes kNeedWrite =
      attributes_of({.address = {}, .log2_size = 0, .writable = true});
  static constexpr Attributes kNeedExecute =
      attributes_of({.address = {}, .log2_size = 0, .executable = true});

  explicit Iotlb(const Generations& generations) : generations_(generations) {}

  /// A hit, in two words so that it travels in registers.
  struct Hit {
    std::uint64_t offset = 0;  // from the IOVA to the address, modulo 2^64
    Attributes attributes = 0;
    Translation translation(Iova at) const noexcept {
      return std::bit_cast<Translation>(std::array{at.value + offset, attributes});
    }
  };

  /// Finds a translation of `at` that allows all of `need`; a cached one that does not is no hit,
  /// since the tables may allow it (or set D) by now. Sets `stamp` with a hit.
  std::optional<Hit> lookup(IotlbContext context, Iova at, Attributes need,
                            Generations::Stamp& stamp) const noexcept {
    const auto hit = lookup_smallest(context, at, need, stamp);
    return hit ? hit : lookup_larger(context, at, need, stamp);
  }
  /// Its two halves: among pages of the smallest size, inline and in few registers; and among all
  /// larger ones.
  std::optional<Hit> lookup_smallest(IotlbContext context, Iova at, Attributes need,
                                     Generations::Stamp& stamp) const noexcept;
  std::optional<Hit> lookup_larger(IotlbContext context, Iova at, Attributes need,
                                   Generations::Stamp& stamp) const noexcept {
    const std::uint32_t classes = classes_.load(std::memory_order_relaxed) & ~std::uint32_t{1};
    return classes == 0 ? std::nullopt : lookup_in(classes, context, at, need, stamp);
  }

  /// Remembers `translation` of `at`.
  void fill(IotlbContext context, Iova at, const Translation& translation,
            const Generations::Stamp& stamp) noexcept;

 private:
  /// Words of an entry.
  enum Word : std::uint8_t {
    kContext,
    kPage,  // page_key()
    kOffset,
    kAttributes,
    kWhich,  // Generations::Stamp
    kSum,
    kWords
  };
  using Entry = Seqlock<kWords>;

  /// Where the entries of a context begin. PASIDs in a row, and pages in a row of one, have entries
  /// of their own; devices in a row are far apart, and so are the kinds of request of one.
  static constexpr std::uint64_t spread(IotlbContext context) noexcept {
    constexpr unsigned kShift = 16;
    constexpr unsigned kProcessShift = 4 + IotlbContext::Device::kWidth;
    static_assert(IotlbContext::Process::make(1) == std::uint64_t{1} << kProcessShift);
    // One multiplication: of the process by the factor's low part, modulo kEntries, and of what is
    // below it in the word by the high one.
    constexpr std::uint64_t kFactor = (kGolden << IotlbContext::Device::kWidth | kGolden) << kShift;
    return (context.word * kFactor) >> (kProcessShift + kShift);
  }
  static constexpr std::size_t index(std::uint64_t spread, unsigned page_class,
                                     std::uint64_t page) noexcept {
    return (spread + page + page_class * kGolden) % kEntries;
  }
  static constexpr std::uint64_t page_key(unsigned page_class, std::uint64_t page) noexcept {
    return page << 3 | page_class;
  }

  std::optional<Hit> lookup_in(std::uint32_t classes, IotlbContext context, Iova at,
                               Attributes need, Generations::Stamp& stamp) const noexcept;
  /// Looks for a page of one class. `from`: spread(context).
  std::optional<Hit> probe(IotlbContext context, std::uint64_t from, unsigned page_class, Iova at,
                           Attributes need, Generations::Stamp& stamp) const noexcept;

  const Generations& generations_;
  std::atomic<std::uint32_t> classes_{0};  // bit: the class was ever filled
  LazyArray<Entry, kEntries> entries_;     // fillers write, lookups read
};
// The hit path, inline.

[[gnu::always_inline]] inline std::optional<Iotlb::Hit> Iotlb::lookup_smallest(
    IotlbContext context, Iova at, Attributes need, Generations::Stamp& stamp) const noexcept {
  return probe(context, spread(context), 0, at, need, stamp);
}

[[gnu::always_inline]] inline std::optional<Iotlb::Hit> Iotlb::probe(
    IotlbContext context, std::uint64_t from, unsigned page_class, Iova at, Attributes need,
    Generations::Stamp& to) const noexcept {
  const std::uint64_t page = at.value >> kPageClasses.data()[page_class];
  Entry& entry = entries_[index(from, page_class, page)];
  const std::uint64_t begun = entry.begin();
  const std::uint64_t differs =
      (entry.word(kContext) ^ context.word) | (entry.word(kPage) ^ page_key(page_class, page));
  if (differs != 0) [[unlikely]]
    return std::nullopt;
  const Hit hit{entry.word(kOffset), entry.word(kAttributes)};
  const Generations::Stamp stamp{entry.word(kWhich), entry.word(kSum)};
  if (!entry.ended(begun)) [[unlikely]]
    return std::nullopt;
  if ((hit.attributes & need) != need) [[unlikely]]
    return std::nullopt;
  if (!generations_.holds(stamp) && !planted_fault("iommu-stale-translation")) [[unlikely]]
    return std::nullopt;
  to = stamp;
  return hit;
}

}  // namespace tandem::iommu::detail
