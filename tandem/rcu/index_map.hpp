// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <type_traits>

#include "tandem/rcu/checked.hpp"
#include "tandem/rcu/detail/index_core.hpp"
#include "tandem/rcu/rcu.hpp"

/// A sparse map of 64-bit indices to objects whose readers never wait.
///
///     index_map<Session> sessions;
///     const auto id = sessions.allocate(*session, 1, 0xFFFF);  // the lowest one that is free
///
///     { const std::scoped_lock section(rcu_default_domain());
///       if (Session* found = sessions.load(*id)) use(*found); }
///
///     if (Session* old = sessions.erase(*id)) old->retire();
///
/// A radix tree of nodes of 64 slots, as high as the highest index asks for: a look-up costs one
/// line for each 6 bits of it. Nodes are freed by the domain when they become empty. Updaters are
/// serialized by the map's own lock. Elements are not owned; an erased one is not freed before a
/// grace period has passed.
///
/// Fork: a child may update the map if no thread of the parent did at the fork.
/// Spec: Linux, Documentation/core-api/xarray.rst, "XArray".
namespace tandem::rcu {

template <class T>
class index_map {
 public:
  struct entry {
    std::uint64_t index;
    T* element;
  };

  explicit index_map(rcu_domain& domain = rcu_default_domain()) noexcept : core_(domain) {}

  rcu_domain& domain() const noexcept { return core_.domain(); }

  /// The element at `index`, or nullptr. Wait-free.
  ///
  /// Thread safety: in a section of domain(), or `condition` holds (checked, see checked.hpp).
  /// Ordering:      what the storer did to the element before is visible.
  template <check_condition C = bool>
  T* load(std::uint64_t index, const C& condition = false,
          call_site where = call_site::current()) const noexcept {
    detail::check_reader(core_.domain(), condition, where);
    return static_cast<T*>(core_.load(index));
  }

  /// The element with the lowest index from `from` on. Thread safety: as load().
  template <check_condition C = bool>
  std::optional<entry> next(std::uint64_t from, const C& condition = false,
                            call_site where = call_site::current()) const noexcept {
    detail::check_reader(core_.domain(), condition, where);
    const auto found = core_.next(from);
    if (!found) return std::nullopt;
    return entry{found->index, static_cast<T*>(found->element)};
  }

  /// Calls `fn(index, element)` in ascending order: once for each that is there throughout. Of
  /// those that come or go meanwhile it gets some.
  ///
  /// Thread safety: as load().
  template <check_condition C, class Fn>
  void for_each(const C& condition, Fn fn, call_site where = call_site::current()) const {
    detail::check_reader(core_.domain(), condition, where);
    const auto typed = [&fn](std::uint64_t index, void* element) {
      fn(index, *static_cast<T*>(element));
    };
    core_.visit(typed);
  }

  /// Puts `element` at `index`. Returns: nullptr, or who was there, to be retired.
  ///
  /// Thread safety: this and the updates below: any thread, inside or outside sections; they take a
  ///                lock. Allocates.
  /// Errors:        ENOMEM; nothing is changed.
  Result<T*> store(std::uint64_t index, T& element) {
    const auto before = core_.store(index, erased(element));
    if (!before) return Unexpected{before.error()};
    return static_cast<T*>(*before);
  }

  /// Takes out what is at `index`. Returns: it, to be retired, or nullptr.
  T* erase(std::uint64_t index) noexcept { return static_cast<T*>(core_.erase(index)); }

  /// Puts `element` at the lowest index of [first, last] that is free. Returns: the index.
  /// Errors: ENOSPC, ENOMEM.
  Result<std::uint64_t> allocate(T& element, std::uint64_t first = 0,
                                 std::uint64_t last = ~std::uint64_t{0}) {
    return core_.allocate(erased(element), first, last);
  }

 private:
  static void* erased(T& element) noexcept {
    return const_cast<std::remove_const_t<T>*>(std::addressof(element));
  }

  detail::IndexCore core_;
};

}  // namespace tandem::rcu
