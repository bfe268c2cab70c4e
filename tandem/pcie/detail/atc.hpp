// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "tandem/base/cpu.hpp"
#include "tandem/base/seqlock.hpp"
#include "tandem/iommu/iommu.hpp"

namespace tandem::pcie::detail {

/// Which address space of an endpoint: 0 is the one without a PASID, else PASID + 1.
class SpaceKey {
 public:
  static constexpr unsigned kBits = iommu::kPasidBits + 1;

  constexpr explicit SpaceKey(std::optional<iommu::Pasid> pasid)
      : value_(pasid ? pasid->value + 1 : 0) {}
  constexpr std::uint32_t value() const { return value_; }
  constexpr bool has_pasid() const { return value_ != 0; }
  friend constexpr bool operator==(SpaceKey, SpaceKey) = default;

 private:
  std::uint32_t value_;
};

/// Permissions of a translation, as bits.
inline constexpr unsigned kReadable = 1;
inline constexpr unsigned kWritable = 2;
inline constexpr unsigned kExecutable = 4;
/// Beside them: `physical` is a guest's, which a translated request takes to the IOMMU.
inline constexpr unsigned kGuestAddress = 8;
/// And whose they are: a privileged requester's, which are told apart from a user's of the page.
inline constexpr unsigned kPrivileged = 1 << 7;

/// A translation as the ATC keeps it: 2^log2_size bytes from `iova`, both ends naturally aligned.
struct CachedTranslation {
  std::uint64_t iova = 0;
  unsigned log2_size = 12;
  unsigned permissions = 0;
  std::uint64_t physical = 0;
  std::byte* host = nullptr;  ///< host RAM behind all of it, else nullptr
  std::uint64_t version = 0;  ///< of Memory, when `host` was found

  std::uint64_t offset(std::uint64_t at) const { return at - iova; }
  /// Bytes from `at` to the end.
  std::uint64_t reach(std::uint64_t at) const {
    return (std::uint64_t{1} << log2_size) - offset(at);
  }
  bool covers(std::uint64_t at) const { return at >= iova && (at - iova) >> log2_size == 0; }
};

/// An address translation cache: set-associative, lock-free, shared by all threads of an endpoint.
///
/// A *hit* reads: one control line of its space, one or two entries. It writes nothing. An entry is
/// a sequence lock; readers that see a change treat it as a miss.
///
/// *No stale entry survives an invalidation.* A fill takes a Ticket before it asks the IOMMU. It
/// then (F1) makes the entry's sequence odd, (F2) compares the space's generation with the
/// ticket's, and writes only if they agree. An invalidation (I1) advances the generation, then (I2)
/// looks at the entries in range. All four are seq_cst, so either the fill sees the new generation
/// and gives up, or the invalidation sees the odd sequence, waits and drops what was written. A
/// range too long to probe advances the space's *epoch* instead, which every entry carries: all
/// entries of the space are void at once, and a fill under way writes an entry that is void
/// already.
///
/// Spaces share controls by hash; the only effect is a miss too many.
///
/// Thread safety: all calls, from any thread. lookup() and current() count as an access that an
/// invalidation must wait for: call them, and use what they say, inside one reader section.
class Atc {
 public:
  struct Ticket {
    std::uint64_t generation = 0;
    std::uint64_t epoch = 0;
  };

  Atc();

  /// Finds a translation of `at` that has all of `permissions` and, where it caches a host address,
  /// is of Memory version `version`.
  bool lookup(SpaceKey space, std::uint64_t at, unsigned permissions, std::uint64_t version,
              CachedTranslation& found) const {
    const std::uint64_t tag = make_tag(space, control(space).epoch.load(std::memory_order_acquire));
    for (std::uint64_t sizes = sizes_.load(std::memory_order_acquire); sizes != 0;
         sizes &= sizes - 1) {
      const auto log2_size = static_cast<unsigned>(__builtin_ctzll(sizes));
      const std::uint64_t where = make_where(at, log2_size, permissions);
      for (Entry& entry : set_for(space, at, log2_size).ways) {
        if (entry.load(where, tag, found) && (found.permissions & permissions) == permissions &&
            (found.host == nullptr || found.version == version)) {
          found.iova = at & ~size_mask(log2_size);
          found.log2_size = log2_size;
          return true;
        }
      }
    }
    return false;
  }

  /// To be taken before the IOMMU is asked.
  Ticket ticket(SpaceKey space) const {
    const Control& of = control(space);
    return {of.generation.load(std::memory_order_seq_cst),
            of.epoch.load(std::memory_order_seq_cst)};
  }
  /// Whether nothing was invalidated since `ticket`: its translation may be used in this section.
  bool current(SpaceKey space, const Ticket& ticket) const {
    return control(space).generation.load(std::memory_order_seq_cst) == ticket.generation;
  }
  /// Keeps `translation` unless an invalidation came since `ticket`, or the entry is busy.
  void fill(SpaceKey space, const Ticket& ticket, const CachedTranslation& translation);

  /// Drops what translates any of [first, first + size_bytes); 0 bytes are 2^64.
  void invalidate(SpaceKey space, std::uint64_t first, std::uint64_t size_bytes);
  /// Drops the translations of every space that has a PASID.
  void invalidate_all_pasids();

 private:
  static constexpr std::size_t kSets = 2048;
  static constexpr std::size_t kWays = 2;
  static constexpr std::size_t kControls = 256;
  static constexpr std::uint64_t kMaxProbes = 512;
  static constexpr std::uint64_t kValid = 1 << 6;  // in `where`, above the 6 bits of log2_size
  static_assert(kPrivileged > kValid, "in `where`, too");

  /// Words of an entry.
  enum Word : std::uint8_t {
    kWhere,     // IOVA | kPrivileged or not | kValid | log2 of the size
    kTag,       // epoch << SpaceKey::kBits | space
    kPhysical,  // | permissions
    kHost,
    kVersion,
    kWords
  };
  struct Entry : Seqlock<kWords> {
    bool load(std::uint64_t wanted_where, std::uint64_t wanted_tag, CachedTranslation& found) {
      const std::uint64_t begun = begin();
      if (word(kWhere) != wanted_where || word(kTag) != wanted_tag) return false;
      const std::uint64_t physical = word(kPhysical);
      found.permissions = static_cast<unsigned>(physical & 0xfff);
      found.physical = physical & ~std::uint64_t{0xfff};
      found.host = reinterpret_cast<std::byte*>(word(kHost));
      found.version = word(kVersion);
      return ended(begun);
    }
  };
  struct Set {
    std::array<Entry, kWays> ways;
  };
  /// Written by invalidations, read by everyone.
  struct alignas(kCacheLine) Control {
    std::atomic<std::uint64_t> epoch{0};
    std::atomic<std::uint64_t> generation{0};
  };

  static constexpr std::uint64_t size_mask(unsigned log2_size) {
    return (std::uint64_t{1} << log2_size) - 1;
  }
  static constexpr std::uint64_t make_where(std::uint64_t at, unsigned log2_size,
                                            unsigned permissions) {
    return (at & ~size_mask(log2_size)) | (permissions & kPrivileged) | kValid | log2_size;
  }
  static constexpr std::uint64_t make_tag(SpaceKey space, std::uint64_t epoch) {
    return epoch << SpaceKey::kBits | space.value();
  }
  static std::size_t set_index(SpaceKey space, std::uint64_t at, unsigned log2_size) {
    const std::uint64_t name = space.value() | std::uint64_t{log2_size} << 32;
    const std::uint64_t spread = (name * kGolden) >> 40;
    return static_cast<std::size_t>((at >> log2_size) + spread) % kSets;
  }
  static constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15;

  Set& set_for(SpaceKey space, std::uint64_t at, unsigned log2_size) const {
    return sets_[set_index(space, at, log2_size)];
  }
  const Control& control(SpaceKey space) const { return controls_[control_index(space)]; }
  Control& control(SpaceKey space) { return controls_[control_index(space)]; }
  static std::size_t control_index(SpaceKey space) {
    return space.has_pasid() ? space.value() % kControls : kControls;
  }
  /// `where`: of either privilege.
  static void drop(Entry& entry, SpaceKey space, std::uint64_t where);

  std::unique_ptr<Set[]> sets_;
  std::array<Control, kControls + 1> controls_;  // the last: the space without a PASID
  std::atomic<std::uint64_t> sizes_{0};          // bit n: an entry of 2^n bytes may exist
};

}  // namespace tandem::pcie::detail
