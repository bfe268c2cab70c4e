// SPDX-License-Identifier: Apache-2.0
/// The part of hash_table.hpp that does not depend on the element's type. Private: hash_table.hpp
/// alone includes it from outside the module.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "tandem/base/cpu.hpp"
#include "tandem/base/mutex.hpp"
#include "tandem/base/result.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::rcu::detail {
class HashCore;
struct HashBucket;
struct HashBuckets;
}  // namespace tandem::rcu::detail

namespace tandem::rcu {

/// Base of an element of a hash_table. Copying copies no links.
class hash_node {
 public:
  hash_node() = default;
  hash_node(const hash_node&) noexcept {}
  hash_node& operator=(const hash_node&) noexcept { return *this; }

 protected:
  ~hash_node() = default;

 private:
  friend class detail::HashCore;
  friend struct detail::HashBuckets;

  std::uint64_t hash_ = 0;  // constant while readers may hold the element
  /// One link for the buckets that are read now, one for those that a resize fills.
  std::array<std::atomic<hash_node*>, 2> next_{};
};

/// When a hash table changes its number of buckets.
struct hash_options {
  std::size_t buckets = 16;      ///< at first; rounded up to a power of two
  std::size_t min_buckets = 16;  ///< automatic resizing stays in [min, max]
  std::size_t max_buckets = std::size_t{1} << 40;
  /// The insert that finds more than four elements a bucket doubles the table, the erase that finds
  /// less than one in two buckets halves it; both do all the copying. Else only resize() does.
  bool automatic = true;
};

}  // namespace tandem::rcu

namespace tandem::rcu::detail {

/// A cache line: six elements by tag, and a chain of those that found no room.
///
/// Byte i < 6 of `control` is the tag of slots[i], 0 while the slot is empty; byte 6 has the flags.
/// An element never moves within a bucket, so one pass finds what is there throughout.
struct alignas(kCacheLine) HashBucket {
  static constexpr unsigned kSlots = 6;
  static constexpr std::uint64_t kOnes = 0x0000'0101'0101'0101;
  static constexpr std::uint64_t kHigh = kOnes << 7;
  static constexpr std::uint64_t kLocked = std::uint64_t{1} << 48;    // an updater is at it
  static constexpr std::uint64_t kMigrated = std::uint64_t{1} << 49;  // its elements are copied

  /// 0x80 in the byte of each slot whose tag is `tag`. Tags have the high bit set.
  static constexpr std::uint64_t match(std::uint64_t control, std::uint64_t tag) noexcept {
    const std::uint64_t difference = control ^ (tag * kOnes);
    return ~(((difference & ~kHigh) + (kHigh - kOnes)) | difference) & kHigh;
  }

  std::atomic<std::uint64_t> control{0};                // updaters write under kLocked
  std::array<std::atomic<hash_node*>, kSlots> slots{};  // likewise, before the tag
  std::atomic<hash_node*> chain{nullptr};               // likewise
};
static_assert(sizeof(HashBucket) == kCacheLine);

/// Says that no reader is left in buckets that were replaced.
struct HashBucketsDeleter {
  void operator()(HashBuckets* buckets) const noexcept;
};

/// The buckets between two resizes.
struct HashBuckets : rcu_obj_base<HashBuckets, HashBucketsDeleter> {
  HashBuckets(std::size_t count, unsigned link);

  HashBucket& at(std::uint64_t hash) noexcept { return buckets[hash & mask]; }
  const HashBucket& at(std::uint64_t hash) const noexcept { return buckets[hash & mask]; }
  hash_node* next(const hash_node& node) const noexcept {
    return node.next_[parity].load(std::memory_order_acquire);  // (A)
  }

  const std::uint64_t mask;
  const std::unique_ptr<HashBucket[]> buckets;
  const unsigned parity;                             // which of an element's links chains use
  std::atomic<HashBuckets*> future{nullptr};         // set before the first kMigrated
  const std::shared_ptr<std::atomic<bool>> drained;  // no reader is left
};

/// Thread safety: any thread, except where stated.
class HashCore {
 public:
  /// Whether `node` has the key; `context` is the table.
  using Equal = bool (*)(const hash_node& node, const void* key, const void* context);

  HashCore(const hash_options& options, rcu_domain& domain);
  ~HashCore();
  HashCore(const HashCore&) = delete;
  HashCore& operator=(const HashCore&) = delete;

  static std::uint64_t mix(std::uint64_t hash) noexcept {
    __extension__ using Wide = unsigned __int128;
    const Wide product = Wide{hash} * 0x9E37'79B9'7F4A'7C15U;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
  }
  static std::uint64_t tag(std::uint64_t hash) noexcept { return hash >> 56 | 0x80; }
  static std::uint64_t hash_of(const hash_node& node) noexcept { return node.hash_; }

  const HashBuckets& buckets() const noexcept {
    return *current_.load(std::memory_order_acquire);  // (B)
  }
  rcu_domain& domain() const noexcept { return domain_; }

  void insert(hash_node& node, std::uint64_t hash) noexcept;
  hash_node* insert_unique(hash_node& node, std::uint64_t hash, Equal equal, const void* key,
                           const void* context) noexcept;
  hash_node* insert_or_replace(hash_node& node, std::uint64_t hash, Equal equal, const void* key,
                               const void* context) noexcept;
  bool erase(hash_node& node) noexcept;
  hash_node* erase(std::uint64_t hash, Equal equal, const void* key, const void* context) noexcept;

  std::size_t size() const noexcept;
  std::size_t bucket_count() const noexcept { return buckets().mask + 1; }
  Result<void> resize(std::size_t count) TANDEM_EXCLUDES(resizing_);

 private:
  /// Where an update happens: a locked bucket, and its copy in the making if there is one.
  struct Place {
    HashBuckets* buckets;
    HashBucket* bucket;
    std::uint64_t control;  // stored on unlock
  };

  template <class Operation>
  auto update(std::uint64_t hash, Operation operation) noexcept;
  hash_node* insert_new(hash_node& node, std::uint64_t hash, Equal equal, const void* key,
                        const void* context, bool replace) noexcept;
  static Place lock(HashBuckets& buckets, std::uint64_t hash) noexcept;
  static void unlock(const Place& place) noexcept;
  static void add(Place& place, hash_node& node) noexcept;
  static bool remove(Place& place, hash_node& node) noexcept;
  static bool substitute(Place& place, hash_node& old, hash_node& fresh) noexcept;
  static hash_node* find(const Place& place, std::uint64_t hash, Equal equal, const void* key,
                         const void* context) noexcept;

  void count(std::uint64_t hash, int change) noexcept;
  void resize_if_due() noexcept TANDEM_EXCLUDES(resizing_);
  bool resize_to_locked(std::size_t count) noexcept TANDEM_REQUIRES(resizing_);
  static void migrate(HashBuckets& from, HashBuckets& to) noexcept;

  struct alignas(kCacheLine) Counter {
    std::atomic<std::int64_t> value{0};
  };
  static constexpr std::size_t kCounters = 8;

  const hash_options options_;
  rcu_domain& domain_;
  std::atomic<HashBuckets*> current_;  // written under resizing_, read in sections
  std::array<Counter, kCounters> counters_{};
  mutable Mutex resizing_;
  /// Of the buckets that were replaced last; until then their chains' links are in use.
  std::shared_ptr<const std::atomic<bool>> drained_ TANDEM_GUARDED_BY(resizing_);
};

}  // namespace tandem::rcu::detail
