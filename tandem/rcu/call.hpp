// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "tandem/rcu/callback_head.hpp"
#include "tandem/rcu/rcu.hpp"

/// Callbacks after a grace period, the kernel's way.
///
/// A call costs about a nanosecond: the object goes to a queue of the calling thread, nothing that
/// another thread writes is touched. In exchange rcu_barrier() inside a section does not wait for
/// what is scheduled here; outside sections it does.
///
/// Spec: Linux kernel documentation, "RCU API": call_rcu, kvfree_rcu, kfree_rcu_mightsleep.
namespace tandem::rcu {

/// Has `function(&head)` called once every section that began before the call has ended.
///
/// `head`, a base or a member of the object, belongs to the domain until then. `bytes`, the size of
/// what is freed then, counts against the limit from which threads are slowed down. Never blocks
/// for memory and never fails.
///
/// Thread safety: as rcu_obj_base::retire(). Not from signal handlers.
inline void call(callback_head& head, void (*function)(callback_head*) noexcept,
                 std::size_t bytes = sizeof(callback_head),
                 rcu_domain& dom = rcu_default_domain()) noexcept {
  head.run = function;
  const auto word = reinterpret_cast<std::uintptr_t>(&head);
  if (!detail::DomainAccess::push<1>(dom, {word}, bytes)) detail::DomainAccess::spill(dom, word);
}

/// Deletes `p` after a grace period. Where T has the base callback_head, this never blocks for
/// memory and never fails. Otherwise pointers are gathered in pages, 16 bytes each, and if there is
/// no memory for a page this waits for the grace period itself, so call it outside sections.
///
/// Thread safety: as call().
template <class T>
void free(T* p, rcu_domain& dom = rcu_default_domain()) noexcept {
  if (p == nullptr) return;
  if constexpr (std::is_base_of_v<callback_head, T>) {
    call(
        *p, [](callback_head* head) noexcept { delete static_cast<T*>(head); }, sizeof(T), dom);
  } else {
    const auto address = reinterpret_cast<std::uintptr_t>(p);
    TANDEM_CHECK((address & detail::kTags) == 0);  // what operator new gives is aligned
    static constexpr detail::Operation kDelete{
        [](void* object) noexcept { delete static_cast<T*>(object); },
        /*stamped=*/false};
    if (!detail::DomainAccess::push<2>(
            dom, {address | detail::kBare, reinterpret_cast<std::uintptr_t>(&kDelete)},
            sizeof(T))) {
      rcu_synchronize(dom);
      delete p;
    }
  }
}

/// As free(p) for a T that has a callback_head as its member: `free<&Route::rcu>(route)`. Never
/// blocks for memory and never fails.
template <auto Member, class T>
void free(T* p, rcu_domain& dom = rcu_default_domain()) noexcept {
  static_assert(std::is_same_v<decltype(Member), callback_head T::*>);
  if (p == nullptr) return;
  call(
      p->*Member,
      [](callback_head* head) noexcept {
        alignas(T) static std::array<std::byte, sizeof(T)> shape;
        const auto* const like = reinterpret_cast<const T*>(shape.data());
        const auto offset = reinterpret_cast<const std::byte*>(&(like->*Member)) - shape.data();
        delete reinterpret_cast<T*>(reinterpret_cast<std::byte*>(head) - offset);
      },
      sizeof(T), dom);
}

/// Runs, on this thread and now, what it has scheduled and what is ready; never waits. For threads
/// whose callbacks are not offloaded (offload.hpp), in their slack. Returns: how many ran.
///
/// Thread safety: any thread outside sections and deleters; elsewhere it does nothing.
std::size_t run_callbacks(rcu_domain& dom = rcu_default_domain()) noexcept;

}  // namespace tandem::rcu
