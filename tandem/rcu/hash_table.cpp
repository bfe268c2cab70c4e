// SPDX-License-Identifier: Apache-2.0
// Updates and resizes of the hash table.
//
// An update locks the key's bucket, a bit of the bucket's own line, and changes slots or chain in
// place. A resize makes new buckets, says so in `future` of the old ones, and copies bucket by
// bucket: under the lock of an old bucket its elements are added to the new ones, through their
// other link, and the bucket is marked as migrated. Then the new buckets are published, and the old
// ones are retired.
//
// Readers look at the one set of buckets that they found published and never at two. So between the
// two moments an update of a migrated bucket is made twice: first in the new bucket, where it is
// decided, then in the old one, which readers still use. Locks are taken old before new.
//
// An updater may have found the old buckets and be late: the new ones are published and others
// update these alone. What it then does to the old bucket is in vain but harmless: readers of the
// old buckets entered their sections before the publication, hence before any retire that follows
// an update of the new ones alone. It is never late by more than one resize, since it is in a
// section itself, and a resize needs the links that the old chains use: it begins only after a
// grace period has passed since the last publication.
#include "tandem/rcu/hash_table.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <mutex>
#include <new>

#include "tandem/base/check.hpp"
#include "tandem/base/futex.hpp"
#include "tandem/base/planted_fault.hpp"

namespace tandem::rcu::detail {
namespace {

constexpr std::size_t kGrowAt = 4;  // elements a bucket
constexpr int kSpins = 64;
constexpr std::chrono::microseconds kNap{50};

void set_tag(std::uint64_t& control, unsigned slot, std::uint64_t tag) noexcept {
  const unsigned shift = slot * 8;
  control = (control & ~(std::uint64_t{0xFF} << shift)) | tag << shift;
}

unsigned first_slot(std::uint64_t matches) noexcept {
  return static_cast<unsigned>(std::countr_zero(matches)) / 8;
}

}  // namespace

HashBuckets::HashBuckets(std::size_t count, unsigned link)
    : mask(count - 1),
      buckets(std::make_unique<HashBucket[]>(count)),
      parity(link),
      drained(std::make_shared<std::atomic<bool>>(false)) {}

void HashBucketsDeleter::operator()(HashBuckets* buckets) const noexcept {
  buckets->drained->store(true, std::memory_order_release);
  delete buckets;
}

HashCore::HashCore(const hash_options& options, rcu_domain& domain)
    : options_(options),
      domain_(domain),
      current_(new HashBuckets(std::bit_ceil(std::max<std::size_t>(options.buckets, 1)), 0)) {}

HashCore::~HashCore() { delete current_.load(std::memory_order_relaxed); }

/// Critical sections last some ten nanoseconds. A holder that was preempted gets the processor by
/// our sleep, also where we are of a higher real-time priority.
HashCore::Place HashCore::lock(HashBuckets& buckets, std::uint64_t hash) noexcept {
  HashBucket& bucket = buckets.at(hash);
  std::uint64_t control = bucket.control.load(std::memory_order_relaxed);
  for (int spins = 0;; ++spins) {
    control &= ~HashBucket::kLocked;
    if (bucket.control.compare_exchange_weak(control, control | HashBucket::kLocked,
                                             std::memory_order_acquire,
                                             std::memory_order_relaxed)) {
      return {&buckets, &bucket, control};
    }
    if (spins < kSpins) {
      cpu_pause();
    } else {
      nap(kNap);
    }
  }
}

/// Ordering: (A) readers acquire a tag, then its slot.
void HashCore::unlock(const Place& place) noexcept {
  place.bucket->control.store(place.control, std::memory_order_release);
}

void HashCore::add(Place& place, hash_node& node) noexcept {
  const std::uint64_t free = HashBucket::match(place.control, 0);
  if (free != 0) {
    const unsigned slot = first_slot(free);
    place.bucket->slots[slot].store(&node, std::memory_order_release);  // (A)
    set_tag(place.control, slot, tag(node.hash_));
    return;
  }
  node.next_[place.buckets->parity].store(place.bucket->chain.load(std::memory_order_relaxed),
                                          std::memory_order_relaxed);
  place.bucket->chain.store(&node, std::memory_order_release);  // (A)
}

bool HashCore::substitute(Place& place, hash_node& old, hash_node& fresh) noexcept {
  HashBucket& bucket = *place.bucket;
  for (std::uint64_t matches = HashBucket::match(place.control, tag(old.hash_)); matches != 0;
       matches &= matches - 1) {
    auto& slot = bucket.slots[first_slot(matches)];
    if (slot.load(std::memory_order_relaxed) != &old) continue;
    slot.store(&fresh, std::memory_order_release);  // (A)
    return true;
  }
  const unsigned parity = place.buckets->parity;
  for (auto* link = &bucket.chain; hash_node* node = link->load(std::memory_order_relaxed);
       link = &node->next_[parity]) {
    if (node != &old) continue;
    fresh.next_[parity].store(old.next_[parity].load(std::memory_order_relaxed),
                              std::memory_order_relaxed);
    link->store(&fresh, std::memory_order_release);  // (A)
    return true;
  }
  return false;
}

/// An element keeps its link, for readers that are at it.
bool HashCore::remove(Place& place, hash_node& node) noexcept {
  HashBucket& bucket = *place.bucket;
  for (std::uint64_t matches = HashBucket::match(place.control, tag(node.hash_)); matches != 0;
       matches &= matches - 1) {
    const unsigned index = first_slot(matches);
    auto& slot = bucket.slots[index];
    if (slot.load(std::memory_order_relaxed) != &node) continue;
    slot.store(nullptr, std::memory_order_relaxed);
    set_tag(place.control, index, 0);
    return true;
  }
  const unsigned parity = place.buckets->parity;
  for (auto* link = &bucket.chain; hash_node* at = link->load(std::memory_order_relaxed);
       link = &at->next_[parity]) {
    if (at != &node) continue;
    link->store(node.next_[parity].load(std::memory_order_relaxed), std::memory_order_release);
    return true;
  }
  return false;
}

hash_node* HashCore::find(const Place& place, std::uint64_t hash, Equal equal, const void* key,
                          const void* context) noexcept {
  for (std::uint64_t matches = HashBucket::match(place.control, tag(hash)); matches != 0;
       matches &= matches - 1) {
    hash_node* const node =
        place.bucket->slots[first_slot(matches)].load(std::memory_order_relaxed);
    if (node->hash_ == hash && equal(*node, key, context)) return node;
  }
  for (hash_node* node = place.bucket->chain.load(std::memory_order_relaxed); node != nullptr;
       node = node->next_[place.buckets->parity].load(std::memory_order_relaxed)) {
    if (node->hash_ == hash && equal(*node, key, context)) return node;
  }
  return nullptr;
}

/// Calls `operation(place, copy)` with the key's bucket locked; `copy` is null unless a resize has
/// copied the bucket, and then the old bucket.
template <class Operation>
auto HashCore::update(std::uint64_t hash, Operation operation) noexcept {
  const std::scoped_lock section(domain_);
  HashBuckets& buckets = *current_.load(std::memory_order_acquire);  // (B)
  Place place = lock(buckets, hash);
  if ((place.control & HashBucket::kMigrated) == 0) [[likely]] {
    const auto result = operation(place, static_cast<Place*>(nullptr));
    unlock(place);
    return result;
  }
  Place target = lock(*buckets.future.load(std::memory_order_relaxed), hash);
  TANDEM_CHECK((target.control & HashBucket::kMigrated) == 0);
  Place* const copy = planted_fault("rcu-hash-skip-copy") ? nullptr : &place;
  const auto result = operation(target, copy);
  unlock(target);
  unlock(place);
  return result;
}

void HashCore::insert(hash_node& node, std::uint64_t hash) noexcept {
  node.hash_ = hash;
  update(hash, [&](Place& place, Place* copy) noexcept {
    add(place, node);
    if (copy != nullptr) add(*copy, node);
    return true;
  });
  count(hash, 1);
}

hash_node* HashCore::insert_new(hash_node& node, std::uint64_t hash, Equal equal, const void* key,
                                const void* context, bool replace) noexcept {
  node.hash_ = hash;
  hash_node* const found = update(hash, [&](Place& place, Place* copy) noexcept {
    hash_node* const old = find(place, hash, equal, key, context);
    if (old == nullptr) {
      add(place, node);
      if (copy != nullptr) add(*copy, node);
    } else if (replace) {
      substitute(place, *old, node);
      if (copy != nullptr) substitute(*copy, *old, node);
    }
    return old;
  });
  if (found == nullptr) count(hash, 1);
  return found;
}

hash_node* HashCore::insert_unique(hash_node& node, std::uint64_t hash, Equal equal,
                                   const void* key, const void* context) noexcept {
  return insert_new(node, hash, equal, key, context, /*replace=*/false);
}

hash_node* HashCore::insert_or_replace(hash_node& node, std::uint64_t hash, Equal equal,
                                       const void* key, const void* context) noexcept {
  return insert_new(node, hash, equal, key, context, /*replace=*/true);
}

bool HashCore::erase(hash_node& node) noexcept {
  const std::uint64_t hash = node.hash_;
  const bool erased = update(hash, [&](Place& place, Place* copy) noexcept {
    const bool removed = remove(place, node);
    if (copy != nullptr) remove(*copy, node);
    return removed;
  });
  if (erased) count(hash, -1);
  return erased;
}

hash_node* HashCore::erase(std::uint64_t hash, Equal equal, const void* key,
                           const void* context) noexcept {
  hash_node* const erased = update(hash, [&](Place& place, Place* copy) noexcept {
    hash_node* const node = find(place, hash, equal, key, context);
    if (node != nullptr) {
      remove(place, *node);
      if (copy != nullptr) remove(*copy, *node);
    }
    return node;
  });
  if (erased != nullptr) count(hash, -1);
  return erased;
}

/// One counter in eight is looked at: it has about an eighth of the elements.
void HashCore::count(std::uint64_t hash, int change) noexcept {
  std::atomic<std::int64_t>& counter = counters_[hash >> 32 & (kCounters - 1)].value;
  const std::int64_t share = counter.fetch_add(change, std::memory_order_relaxed) + change;
  if (!options_.automatic) return;
  const auto estimate = static_cast<std::uint64_t>(std::max<std::int64_t>(share, 0)) * kCounters;
  bool due = false;
  {
    const std::scoped_lock section(domain_);
    const std::size_t now = bucket_count();
    due = change > 0 ? estimate > now * kGrowAt && now < options_.max_buckets
                     : estimate < now / 2 && now > options_.min_buckets;
  }
  if (due) [[unlikely]]
    resize_if_due();
}

std::size_t HashCore::size() const noexcept {
  std::int64_t total = 0;
  for (const Counter& counter : counters_) total += counter.value.load(std::memory_order_relaxed);
  return static_cast<std::size_t>(std::max<std::int64_t>(total, 0));
}

void HashCore::resize_if_due() noexcept {
  if (!resizing_.try_lock()) return;
  if (!drained_ || drained_->load(std::memory_order_acquire)) {
    const std::size_t now = current_.load(std::memory_order_relaxed)->mask + 1;
    const std::size_t elements = size();
    if (elements > now * kGrowAt && now < options_.max_buckets) {
      // Without memory the table stays as it is, and slower.
      (void)resize_to_locked(now * 2);
    } else if (elements < now / 2 && now > options_.min_buckets) {
      (void)resize_to_locked(now / 2);
    }
  }
  resizing_.unlock();
}

Result<void> HashCore::resize(std::size_t count) {
  const MutexLock lock(resizing_);
  count = std::bit_ceil(std::max<std::size_t>(count, 1));
  if (current_.load(std::memory_order_relaxed)->mask + 1 == count) return {};
  if (drained_ && !drained_->load(std::memory_order_acquire)) rcu_synchronize(domain_);
  if (!resize_to_locked(count)) return errno_error(ENOMEM);
  return {};
}

bool HashCore::resize_to_locked(std::size_t count) noexcept {
  HashBuckets& from = *current_.load(std::memory_order_relaxed);
  HashBuckets* to = nullptr;
  try {
    to = new HashBuckets(count, from.parity ^ 1);
  } catch (const std::bad_alloc&) {
    return false;
  }
  from.future.store(to, std::memory_order_release);
  migrate(from, *to);
  drained_ = from.drained;
  current_.store(to, std::memory_order_release);  // (B) the buckets' contents
  if (planted_fault("rcu-hash-resize-no-grace")) {
    for (std::size_t i = 0; i <= from.mask; ++i) {
      from.buckets[i].control.store(0);
      for (auto& slot : from.buckets[i].slots) slot.store(nullptr);
      from.buckets[i].chain.store(nullptr);
    }
  } else {
    from.retire({}, domain_);
  }
  return true;
}

void HashCore::migrate(HashBuckets& from, HashBuckets& to) noexcept {
  const auto copy = [&to](hash_node& node) {
    Place target = lock(to, node.hash_);
    add(target, node);
    unlock(target);
  };
  for (std::size_t i = 0; i <= from.mask; ++i) {
    Place place = lock(from, i);
    for (const auto& slot : place.bucket->slots) {
      if (hash_node* const node = slot.load(std::memory_order_relaxed)) copy(*node);
    }
    for (hash_node* node = place.bucket->chain.load(std::memory_order_relaxed); node != nullptr;
         node = node->next_[from.parity].load(std::memory_order_relaxed)) {
      copy(*node);
    }
    place.control |= HashBucket::kMigrated;
    unlock(place);
  }
}

}  // namespace tandem::rcu::detail
