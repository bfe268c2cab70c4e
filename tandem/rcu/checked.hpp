// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <concepts>
#include <mutex>
#include <span>
#include <type_traits>
#include <utility>

#include "tandem/base/mutex.hpp"
#include "tandem/rcu/rcu.hpp"

/// Pointers that readers may follow only inside a section, or with the updaters' lock held.
///
///     rcu_ptr<Table> table;  // assigned under mutex_
///
///     const std::scoped_lock section(rcu_default_domain());
///     use(*dereference(table));                                 // reader
///     use(*dereference(table, held(mutex_)));                   // reader or updater
///     Table* old = dereference_protected(table, held(mutex_));  // updater
///     table.assign(fresh);
///
/// In a checking build each access asks whether the thread is in a section of the domain or the
/// condition holds, and reports it with its stack if neither is so; the access is made all the
/// same. In other builds the condition is not evaluated and nothing but the load is left.
///
/// A build checks when TANDEM_RCU_CHECK is defined as 1 (the CMake option of that name), and where
/// the macro is not defined, when NDEBUG is not. Do not mix both kinds in one program: the same
/// inline functions would have two definitions.
///
/// Spec: Linux, Documentation/RCU/lockdep.rst, "RCU and lockdep checking".
namespace tandem::rcu {

#if defined(TANDEM_RCU_CHECK)
inline constexpr bool kChecking = TANDEM_RCU_CHECK != 0;
#elif defined(NDEBUG)
inline constexpr bool kChecking = false;
#else
inline constexpr bool kChecking = true;
#endif

/// Where a call stands: std::source_location, which clang 14 lacks.
struct call_site {
  const char* file;
  unsigned line;
  const char* function;
  static constexpr call_site current(const char* at_file = __builtin_FILE(),
                                     unsigned at_line = __builtin_LINE(),
                                     const char* in = __builtin_FUNCTION()) noexcept {
    return {at_file, at_line, in};
  }
};

/// An access that nothing protected.
struct check_report {
  const char* what;  ///< the rule that was broken
  call_site where;
  std::span<void* const> stack;  ///< return addresses, innermost first; good during the call
};

/// Called on the thread that made the access, each time, before the access. May return.
using check_handler = void (*)(const check_report& report) noexcept;

/// Has `handler` called from now on; nullptr brings the default back, which writes each call site
/// once to standard error ("suspicious RCU usage", then the stack).
///
/// Returns:       the one before, nullptr for the default.
/// Thread safety: any thread. Fork: a child inherits the handler.
check_handler set_check_handler(check_handler handler) noexcept;

/// What may stand for a section: a bool, or what is called, in checking builds only, to get one.
template <class C>
concept check_condition = std::convertible_to<C, bool> || std::is_invocable_r_v<bool, const C&>;

/// A condition: the calling thread holds `which`, a std::mutex or a tandem::Mutex.
class held {
 public:
  explicit held(const Mutex& which) noexcept : ours_(&which) {}
  explicit held(std::mutex& which) noexcept : standard_(&which) {}
  bool operator()() const noexcept {
    return ours_ != nullptr ? ours_->held() : held_by_this_thread(*standard_);
  }

 private:
  const Mutex* ours_ = nullptr;
  std::mutex* standard_ = nullptr;
};

namespace detail {
void report_unprotected(const char* what, const call_site& where) noexcept;

template <check_condition C>
bool holds(const C& condition) noexcept {
  if constexpr (std::is_invocable_r_v<bool, const C&>) {
    return condition();
  } else {
    return static_cast<bool>(condition);
  }
}

/// Reports unless the thread is in a section of `domain` or `condition` holds.
template <check_condition C>
void check_reader([[maybe_unused]] const rcu_domain& domain, [[maybe_unused]] const C& condition,
                  [[maybe_unused]] const call_site& where) noexcept {
  if constexpr (kChecking) {
    if (!domain.in_section() && !holds(condition)) [[unlikely]] {
      report_unprotected("dereference outside a section, and the condition does not hold", where);
    }
  }
}

/// Reports unless `condition` holds.
template <check_condition C>
void check_updater([[maybe_unused]] const C& condition,
                   [[maybe_unused]] const call_site& where) noexcept {
  if constexpr (kChecking) {
    if (!holds(condition)) [[unlikely]] {
      report_unprotected("update-side dereference, and the condition does not hold", where);
    }
  }
}
}  // namespace detail

/// A pointer that updaters replace while readers follow it. Not owning.
///
/// Thread safety: any thread; updaters serialize themselves.
template <class T>
class rcu_ptr {
 public:
  constexpr rcu_ptr() noexcept = default;
  explicit constexpr rcu_ptr(T* p) noexcept : pointer_(p) {}
  rcu_ptr(const rcu_ptr&) = delete;
  rcu_ptr& operator=(const rcu_ptr&) = delete;

  /// Publishes `p`. Ordering: (A) release; pairs with dereference().
  void assign(T* p) noexcept { pointer_.store(p, std::memory_order_release); }
  /// Publishes `p`; returns what was there, to be retired. Ordering: acq_rel; (A).
  T* exchange(T* p) noexcept { return pointer_.exchange(p, std::memory_order_acq_rel); }
  /// The value, not to be followed: for comparison with null and printing. No ordering, no check.
  T* access() const noexcept { return pointer_.load(std::memory_order_relaxed); }

 private:
  template <class U, check_condition C>
  friend U* dereference(const rcu_ptr<U>& p, const C& condition, const rcu_domain& domain,
                        call_site where) noexcept;

  std::atomic<T*> pointer_{nullptr};
};

/// The pointer, good while the section lasts or `condition` holds.
///
/// Ordering: (A) acquire; pairs with rcu_ptr::assign(). Errors: see the module overview.
template <class T, check_condition C>
[[nodiscard]] inline T* dereference(const rcu_ptr<T>& p, const C& condition,
                                    const rcu_domain& domain,
                                    call_site where = call_site::current()) noexcept {
  detail::check_reader(domain, condition, where);
  return p.pointer_.load(std::memory_order_acquire);  // (A)
}

template <class T, check_condition C>
[[nodiscard]] inline T* dereference(const rcu_ptr<T>& p, const C& condition,
                                    call_site where = call_site::current()) noexcept {
  return dereference(p, condition, rcu_default_domain(), where);
}

template <class T>
[[nodiscard]] inline T* dereference(const rcu_ptr<T>& p, const rcu_domain& domain,
                                    call_site where = call_site::current()) noexcept {
  return dereference(p, false, domain, where);
}

template <class T>
[[nodiscard]] inline T* dereference(const rcu_ptr<T>& p,
                                    call_site where = call_site::current()) noexcept {
  return dereference(p, false, rcu_default_domain(), where);
}

/// The pointer for who keeps every updater away, as `condition` says: no ordering is needed.
template <class T, check_condition C>
[[nodiscard]] inline T* dereference_protected(const rcu_ptr<T>& p, const C& condition,
                                              call_site where = call_site::current()) noexcept {
  detail::check_updater(condition, where);
  return p.access();
}

}  // namespace tandem::rcu
