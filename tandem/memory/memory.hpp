// SPDX-License-Identifier: Apache-2.0
/// Physical memory as devices, the IOMMU and its driver see it.
///
/// A Memory is a 56-bit physical address space made of regions. *Host RAM* is a range of this
/// process's memory; *I/O regions* answer reads and writes through callbacks (an aperture onto
/// another process's memory is one); an *alias* is a window onto other addresses or onto another
/// region. Where regions overlap, the one with the highest priority decodes the address.
///
/// Regions are added and removed while accesses run: the flat view is published by RCU, an access
/// holds a reader section while it looks up and copies host RAM, and remove() returns only when no
/// access can still touch the region.
///
/// Host RAM may be *poisoned*, as memory with an uncorrectable error is: reads of it fault.
///
/// Left out: pages smaller than 4 KiB; atomic accesses to I/O regions; poison of memory that a
/// device works on in place (pcie::Window) reaches it with its next access only.
#pragma once

#include <atomic>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>

#include "tandem/base/mutex.hpp"
#include "tandem/base/result.hpp"
#include "tandem/rcu/checked.hpp"

namespace tandem::memory {

/// A physical address, in bytes. At most 56 bits are decodable.
struct PhysAddr {
  std::uint64_t value = 0;
  constexpr PhysAddr plus(std::uint64_t bytes) const { return {value + bytes}; }
  friend constexpr auto operator<=>(PhysAddr, PhysAddr) = default;
};

inline constexpr unsigned kPhysAddrBits = 56;

/// Memory is poisoned, and poison cleared, in naturally aligned granules of so many bytes.
inline constexpr std::uint64_t kPoisonBytes = 8;

/// Why an access stopped.
enum class Fault : std::uint8_t {
  kNone,
  kNoRegion,    ///< nothing decodes the address
  kReadOnly,    ///< a write to a read-only region
  kRefused,     ///< the I/O region refused: the memory behind it is not accessible
  kMisaligned,  ///< an atomic access that is not naturally aligned, or not to host RAM
  kAccessSize,  ///< no access that the I/O region takes begins here: see AccessSizes
  kPoisoned,    ///< the data are known to be corrupt
};

/// What an access achieved: the bytes before the first fault.
struct [[nodiscard]] Outcome {
  std::size_t done_bytes = 0;
  Fault fault = Fault::kNone;
  bool ok() const { return fault == Fault::kNone; }
};

/// Which accesses an I/O region takes: from `min_bytes` to `max_bytes` (0: any number) long, and,
/// if `aligned`, a power of two long and naturally aligned. Both are powers of two. A longer access
/// is split, in ascending order, into the longest that are taken; it ends with kAccessSize where
/// none is.
struct AccessSizes {
  std::uint32_t min_bytes = 1;
  std::uint32_t max_bytes = 0;
  bool aligned = false;
};

/// Memory behind callbacks. Calls may come from any thread at once and may block; no reader section
/// is held around them, but a reference to the region is.
class IoRegion {
 public:
  virtual ~IoRegion() = default;
  /// Asked once, when the region is added.
  virtual AccessSizes access_sizes() const { return {}; }
  /// Whether who takes away what is behind the region looks after the accesses under way, so that
  /// no invalidation of a translation has to wait for them: for one that may block for long. Asked
  /// once, when the region is added.
  virtual bool looks_after_accesses() const { return false; }
  /// Reads `to.size()` bytes at `offset` from the region's base. The range lies inside the region.
  virtual Outcome read(std::uint64_t offset, std::span<std::byte> to) = 0;
  virtual Outcome write(std::uint64_t offset, std::span<const std::byte> from) = 0;
};

enum class RegionId : std::uint64_t {};

namespace detail {
class Layers;
class PoisonMap;
struct Region;
struct View;
}  // namespace detail

/// An I/O region found by Memory::resolve() and held: remove() waits until it is gone, so the
/// memory behind a physical address stays the one that was looked up. Use it outside reader
/// sections.
class IoPin {
 public:
  IoPin() = default;
  IoPin(IoPin&& other) noexcept
      : region_(std::exchange(other.region_, nullptr)), offset_(other.offset_) {}
  IoPin& operator=(IoPin&& other) noexcept {
    std::swap(region_, other.region_);
    std::swap(offset_, other.offset_);
    return *this;
  }
  ~IoPin();
  explicit operator bool() const noexcept { return region_ != nullptr; }
  /// IoRegion::looks_after_accesses()
  bool looks_after_accesses() const;
  /// Accesses `to.size()` bytes from the resolved address on; not past Target::length.
  Outcome read(std::span<std::byte> to) const;
  Outcome write(std::span<const std::byte> from) const;

 private:
  friend class Memory;
  detail::Region* region_ = nullptr;
  std::uint64_t offset_ = 0;
};

/// What decodes a physical address: host RAM, an I/O region, or (fault) nothing.
struct Target {
  Fault fault = Fault::kNone;
  std::byte* host = nullptr;  ///< host RAM
  IoPin io;                   ///< otherwise
  std::size_t length = 0;     ///< bytes from the address on that the region holds, at most asked

  /// Copies into host RAM, at most `length` bytes, and takes the poison from what is now good. Who
  /// writes through `host` leaves it.
  void store(std::span<const std::byte> from) const;

 private:
  friend class Memory;
  detail::PoisonMap* poison_ = nullptr;
  std::uint64_t offset_ = 0;  // of `host` in the region
};

/// The address space.
///
/// Thread safety: all calls, from any thread, beside each other. Adding a region waits for no
///                access; remove() and set_poison() do. The destructor alone: no access runs, no
///                IoPin is left; regions that were not removed go with it.
class Memory {
 public:
  Memory();
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  /// Makes `host` appear at `base`. Where regions overlap, the highest `priority` is what is seen.
  ///
  /// Ownership: the caller keeps `host` alive until remove() has returned.
  /// Errors:    EEXIST when the range overlaps a region of the same priority, EINVAL when empty,
  ///            past 2^56, or `base` or the size are not page-aligned, or `host` is not 8-byte
  ///            aligned.
  Result<RegionId> add_host_ram(PhysAddr base, std::span<std::byte> host, bool writable = true,
                                int priority = 0);
  /// Makes `region` answer for [base, base + size_bytes). Errors as above; EINVAL also when it
  /// declares access sizes that are none.
  Result<RegionId> add_io(PhysAddr base, std::uint64_t size_bytes, std::shared_ptr<IoRegion> region,
                          int priority = 0);
  /// Makes a window onto [of, of + size_bytes), whatever decodes that when it is accessed. A chain
  /// of more than eight windows decodes nothing. Errors as above.
  Result<RegionId> add_alias(PhysAddr base, std::uint64_t size_bytes, PhysAddr of,
                             bool writable = true, int priority = 0);
  /// Makes a window onto `size_bytes` of the region `of`, from `offset` on, wherever that one is
  /// and whatever hides it; while the window exists it cannot be removed. Of a region that is a
  /// window itself, it is one onto what that shows, which goes on when that is removed.
  /// Errors: as above; ENOENT; EINVAL when the range is not in the region.
  Result<RegionId> add_alias(PhysAddr base, std::uint64_t size_bytes, RegionId of,
                             std::uint64_t offset, bool writable = true, int priority = 0);
  /// Removes a region; when it returns no access reaches it any more, except that one to an I/O
  /// region that came through an alias is waited for by the removal of that region. Not from inside
  /// an access to the region or a reader section.
  /// Errors: ENOENT; EBUSY when an alias of the region exists.
  Result<void> remove(RegionId id);

  /// Poisons the granules of [at, at + length) as an uncorrectable error does: when it returns,
  /// reads and atomic updates of any of their bytes fault with kPoisoned. Writing a whole granule
  /// takes its poison away; writing a part stores it and leaves the poison.
  /// Thread safety: any thread; waits for a grace period, so not in a reader section.
  /// Errors: kNoRegion, kMisaligned where the range is not host RAM; nothing was done then.
  Result<void, Fault> set_poison(PhysAddr at, std::uint64_t length);
  /// Takes the poison from the granules of [at, at + length); the data are what they are. Errors as
  /// above.
  Result<void, Fault> clear_poison(PhysAddr at, std::uint64_t length);

  /// Copies from or to physical memory, across region borders, in pieces of at most 64 KiB of host
  /// RAM per reader section.
  /// Thread safety: any thread. Blocks only if an I/O region does.
  Outcome read(PhysAddr at, std::span<std::byte> to) const;
  Outcome write(PhysAddr at, std::span<const std::byte> from) const;

  /// Many of the following accesses in one reader section: reader.hpp.
  class Reader;

  /// Naturally aligned atomic accesses to host RAM, little-endian.
  ///
  /// Ordering: `order` is one that std::atomic's load() or store() takes; compare_exchange64() and
  ///           set_bits64() are acquire and release, an exchange that stores nothing acquire.
  /// Errors:   kMisaligned, also in an I/O region; kNoRegion; kReadOnly for all but the loads;
  ///           kPoisoned for all but store64(), which takes the poison, and store32(), which stores
  ///           and leaves it. Else nothing was done.
  Result<std::uint64_t, Fault> load64(PhysAddr at, std::memory_order order) const;
  Result<std::uint32_t, Fault> load32(PhysAddr at, std::memory_order order) const;
  Result<void, Fault> store64(PhysAddr at, std::uint64_t value, std::memory_order order) const;
  Result<void, Fault> store32(PhysAddr at, std::uint32_t value, std::memory_order order) const;
  /// Replaces `expected` by `desired`; returns what was there (equal to `expected` on success).
  Result<std::uint64_t, Fault> compare_exchange64(PhysAddr at, std::uint64_t expected,
                                                  std::uint64_t desired) const;
  /// Sets `bits`.
  Result<void, Fault> set_bits64(PhysAddr at, std::uint64_t bits) const;

  /// Finds what decodes [at, at + length) or its beginning. `write`: for writing, with
  /// Target::store(); a read-only region is a fault then. For reading, Target::length ends before
  /// the first poisoned byte.
  ///
  /// Call it inside a reader section of rcu_default_domain(): Target::host is good while it lasts,
  /// Target::io until it is destroyed.
  Target resolve(PhysAddr at, std::size_t length, bool write) const;

  /// The host address of [at, at + length) if one writable host-RAM region holds all of it and none
  /// of it is poisoned, else nullptr.
  ///
  /// The pointer is good while a reader section of rcu_default_domain() entered before the call
  /// lasts, or until whoever may remove the region has ordered its removal after the use (this is
  /// what pcie's in-flight slots do).
  std::byte* host_pointer(PhysAddr at, std::size_t length) const;

  /// Changes whenever a region is removed or hidden, or memory poisoned: a cached host pointer with
  /// an older version is void.
  std::uint64_t version() const noexcept { return version_.load(std::memory_order_acquire); }

 private:
  Result<RegionId> insert(std::unique_ptr<detail::Region> region);
  Result<RegionId> insert_locked(std::unique_ptr<detail::Region> region) TANDEM_REQUIRES(mutex_);
  /// Publishes the view in which [first, end) is as the layers say.
  void refresh_locked(std::uint64_t first, std::uint64_t end) TANDEM_REQUIRES(mutex_);
  template <class Use>
  Result<void, Fault> for_host_ram_locked(PhysAddr at, std::uint64_t length, Use use)
      TANDEM_REQUIRES(mutex_);

  Mutex mutex_;
  std::unordered_map<std::uint64_t, std::unique_ptr<detail::Region>> regions_
      TANDEM_GUARDED_BY(mutex_);  // by RegionId
  std::unique_ptr<detail::Layers> layers_ TANDEM_GUARDED_BY(mutex_);
  std::uint64_t next_id_ TANDEM_GUARDED_BY(mutex_) = 1;
  rcu::rcu_ptr<detail::View> view_;        // written under mutex_, read in reader sections
  std::atomic<std::uint64_t> version_{1};  // written under mutex_, read by anyone
};

}  // namespace tandem::memory
