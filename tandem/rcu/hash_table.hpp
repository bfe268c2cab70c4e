// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>

#include "tandem/rcu/checked.hpp"
#include "tandem/rcu/detail/hash_core.hpp"
#include "tandem/rcu/rcu.hpp"

/// A hash table whose readers never wait, not even while it is resized.
///
///     struct Flow : hash_node, rcu_obj_base<Flow> { std::uint64_t id; … };
///     struct FlowId { std::uint64_t operator()(const Flow& flow) const { return flow.id; } };
///     hash_table<Flow, FlowId> flows;
///
///     { const std::scoped_lock section(rcu_default_domain());
///       if (Flow* flow = flows.find(id)) use(*flow); }
///
///     if (Flow* old = flows.erase(id)) old->retire();
///
/// A bucket is a cache line with six elements by a byte of their hashes, so that a look-up costs
/// two lines, the bucket's and the element's; a seventh element and further ones are chained.
/// Updaters lock single buckets; no update allocates, except one that resizes. Elements are not
/// owned; an erased one is neither freed nor inserted again before a grace period has passed, nor
/// does its key change.
///
/// Memory: 64 bytes a bucket (both old and new ones during a resize), three words an element.
/// Fork:   usable in a child if no thread of the parent was in an update.
/// After:  Triplett, McKenney, Walpole, "Resizable, Scalable, Concurrent Hash Tables via
///         Relativistic Programming" (2011), of which it keeps that readers look into one table;
///         Herbert Xu's two chains of links for the copy.
namespace tandem::rcu {

/// `KeyOf` gives an element's key, `Hash` and `Equal` work on keys; none of them throws.
template <class T, class KeyOf,
          class Hash = std::hash<std::remove_cvref_t<std::invoke_result_t<KeyOf, const T&>>>,
          class Equal = std::equal_to<>>
class hash_table {
 public:
  using key_type = std::remove_cvref_t<std::invoke_result_t<KeyOf, const T&>>;

  /// Errors: std::bad_alloc.
  explicit hash_table(const hash_options& options = {}, rcu_domain& domain = rcu_default_domain(),
                      KeyOf key_of = KeyOf(), Hash hash = Hash(), Equal equal = Equal())
      : core_(options, domain),
        key_of_(std::move(key_of)),
        hash_(std::move(hash)),
        equal_(std::move(equal)) {
    static_assert(std::derived_from<T, hash_node>);
  }

  rcu_domain& domain() const noexcept { return core_.domain(); }

  /// An element with `key`, or nullptr. What is there throughout is found.
  ///
  /// Thread safety: in a section of domain(), or `condition` holds (checked, see checked.hpp).
  ///                Wait-free but for the length of a chain.
  /// Ordering:      what the inserter did to the element before is visible.
  template <check_condition C = bool>
  T* find(const key_type& key, const C& condition = false,
          call_site where = call_site::current()) const noexcept {
    detail::check_reader(core_.domain(), condition, where);
    const std::uint64_t hash = hash_key(key);
    const detail::HashBuckets& buckets = core_.buckets();
    const detail::HashBucket& bucket = buckets.at(hash);
    const std::uint64_t control = bucket.control.load(std::memory_order_acquire);
    std::uint64_t matches = detail::HashBucket::match(control, detail::HashCore::tag(hash));
    while (matches != 0) {
      const auto slot = static_cast<unsigned>(std::countr_zero(matches)) / 8;
      hash_node* const node = bucket.slots[slot].load(std::memory_order_acquire);
      if (node != nullptr && has_key(*node, key)) [[likely]]
        return static_cast<T*>(node);
      matches &= matches - 1;
    }
    hash_node* node = bucket.chain.load(std::memory_order_acquire);
    while (node != nullptr) [[unlikely]] {
        if (has_key(*node, key)) return static_cast<T*>(node);
        node = buckets.next(*node);
      }
    return nullptr;
  }

  /// Adds `element`, whether or not its key is there. Which of several find() gives is left open.
  ///
  /// Thread safety: this and the updates below: any thread, inside or outside sections; may spin
  ///                for another update of the bucket. May resize, see hash_options.
  void insert(T& element) noexcept { core_.insert(element, hash_key(key_of_(element))); }

  /// Adds `element` unless its key is there. Returns: nullptr, or who is there; that is good in a
  /// section entered before the call.
  T* insert_unique(T& element) noexcept {
    const key_type& key = key_of_(element);
    return cast(core_.insert_unique(element, hash_key(key), equal, &key, this));
  }

  /// Adds `element` in the place of who has its key: readers find one of the two at any time.
  /// Returns: nullptr, or who was there, to be retired.
  T* insert_or_replace(T& element) noexcept {
    const key_type& key = key_of_(element);
    return cast(core_.insert_or_replace(element, hash_key(key), equal, &key, this));
  }

  /// Takes out an element that is there and is not freed meanwhile. Returns: false when another
  /// thread did. Who gets true retires it.
  bool erase(T& element) noexcept { return core_.erase(element); }

  /// Takes out an element with `key`. Returns: it, to be retired, or nullptr.
  T* erase(const key_type& key) noexcept {
    return cast(core_.erase(hash_key(key), equal, &key, this));
  }

  /// Calls `fn(element)` for each, in no order: once for each that is there throughout. Of those
  /// that come or go meanwhile it gets some.
  ///
  /// Thread safety: as find().
  template <check_condition C, class Fn>
  void for_each(const C& condition, Fn fn, call_site where = call_site::current()) const {
    detail::check_reader(core_.domain(), condition, where);
    const detail::HashBuckets& buckets = core_.buckets();
    for (std::size_t i = 0; i <= buckets.mask; ++i) {
      const detail::HashBucket& bucket = buckets.buckets[i];
      for (const auto& slot : bucket.slots) {
        if (hash_node* const node = slot.load(std::memory_order_acquire))
          fn(static_cast<T&>(*node));
      }
      for (hash_node* node = bucket.chain.load(std::memory_order_acquire); node != nullptr;
           node = buckets.next(*node)) {
        fn(static_cast<T&>(*node));
      }
    }
  }

  /// Exact while nobody updates. Thread safety: any thread.
  std::size_t size() const noexcept { return core_.size(); }
  /// Thread safety: as find().
  std::size_t bucket_count() const noexcept { return core_.bucket_count(); }

  /// Grows or shrinks to `buckets`, rounded up to a power of two, while others read and update.
  ///
  /// Thread safety: any thread outside sections of domain(): waits for a grace period when the last
  ///                resize was just now. Concurrent resizes wait for each other.
  /// Errors:        ENOMEM; nothing is changed.
  Result<void> resize(std::size_t buckets) { return core_.resize(buckets); }

 private:
  std::uint64_t hash_key(const key_type& key) const noexcept {
    return detail::HashCore::mix(static_cast<std::uint64_t>(hash_(key)));
  }
  bool has_key(const hash_node& node, const key_type& key) const noexcept {
    return equal_(key_of_(static_cast<const T&>(node)), key);
  }
  static bool equal(const hash_node& node, const void* key, const void* table) noexcept {
    return static_cast<const hash_table*>(table)->has_key(node, *static_cast<const key_type*>(key));
  }
  static T* cast(hash_node* node) noexcept { return static_cast<T*>(node); }

  detail::HashCore core_;
  [[no_unique_address]] KeyOf key_of_;
  [[no_unique_address]] Hash hash_;
  [[no_unique_address]] Equal equal_;
};

}  // namespace tandem::rcu
