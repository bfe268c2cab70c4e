// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <iterator>
#include <utility>

#include "tandem/base/check.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/rcu/checked.hpp"
#include "tandem/rcu/rcu.hpp"

/// A doubly linked list whose readers never wait.
///
///     struct Probe : list_link<>, rcu_obj_base<Probe> { … };
///     rcu_list<Probe> probes;  // changed under mutex_
///
///     { const std::scoped_lock section(rcu_default_domain());
///       for (Probe& probe : traverse(probes)) probe.fire(); }
///
///     { const MutexLock lock(mutex_);
///       probes.erase(probe); }
///     probe.retire();
///
/// Updaters serialize themselves: one lock of the owner's around every call but for_each(),
/// traverse() and empty(). Elements are not owned. An erased one keeps its forward link, so that a
/// reader at it goes on; it is neither freed nor inserted again before a grace period has passed.
///
/// A traversal sees each element that is in the list throughout exactly once and in order. Of those
/// that come or go meanwhile it sees some.
///
/// Spec: Linux, Documentation/RCU/listRCU.rst, "Using RCU to Protect Read-Mostly Linked Lists".
namespace tandem::rcu {

template <class T, class Tag>
class rcu_list;

/// Base of an element; with several tags it is in as many lists. Copying copies no links.
template <class Tag = void>
class list_link {
 public:
  list_link() = default;
  list_link(const list_link&) noexcept {}
  list_link& operator=(const list_link&) noexcept { return *this; }

 protected:
  ~list_link() = default;

 private:
  template <class T, class U>
  friend class rcu_list;

  std::atomic<list_link*> next_{nullptr};  // updaters write, readers follow
  list_link* previous_ = nullptr;          // updaters only; null while in no list
};

/// Fork: a child of a thread that holds the updaters' lock has the list as it stood.
template <class T, class Tag = void>
class rcu_list {
 public:
  using link = list_link<Tag>;

  explicit rcu_list(rcu_domain& domain = rcu_default_domain()) noexcept : domain_(domain) {
    make_empty();
  }
  rcu_list(const rcu_list&) = delete;
  rcu_list& operator=(const rcu_list&) = delete;
  /// The elements stay the owner's; no reader is in the list any more.
  ~rcu_list() = default;

  rcu_domain& domain() const noexcept { return domain_; }
  /// Thread safety: any thread; true says nothing about the next instant.
  bool empty() const noexcept { return head_.next_.load(std::memory_order_acquire) == &head_; }

  void push_front(T& element) noexcept { insert_between(element, head_, *first()); }
  void push_back(T& element) noexcept { insert_between(element, *head_.previous_, head_); }
  /// Puts `element` before `position`, which is in the list.
  void insert(T& position, T& element) noexcept {
    link& at = position;
    TANDEM_CHECK(at.previous_ != nullptr);
    insert_between(element, *at.previous_, at);
  }

  /// Takes `element` out. Readers may be at it until a grace period has passed.
  void erase(T& element) noexcept {
    link& gone = element;
    TANDEM_CHECK(gone.previous_ != nullptr);
    link* const next = gone.next_.load(std::memory_order_relaxed);
    next->previous_ = gone.previous_;
    // (A) What stands behind was published before; a reader that skips us still acquires it.
    gone.previous_->next_.store(next, std::memory_order_release);
    gone.previous_ = nullptr;
    if (planted_fault("rcu-list-cut-link")) gone.next_.store(&gone, std::memory_order_relaxed);
  }

  /// Puts `fresh` where `old` is: a traversal sees one of them. `old` as after erase().
  void replace(T& old, T& fresh) noexcept {
    link& gone = old;
    link& node = fresh;
    TANDEM_CHECK(gone.previous_ != nullptr && node.previous_ == nullptr);
    link* const next = gone.next_.load(std::memory_order_relaxed);
    node.next_.store(next, std::memory_order_relaxed);
    node.previous_ = gone.previous_;
    next->previous_ = &node;
    node.previous_->next_.store(&node, std::memory_order_release);  // (A)
    gone.previous_ = nullptr;
  }

  /// Moves all of `other`, which nobody else changes, to the front of this list; it is empty then.
  ///
  /// Waits for a grace period of `other`: a reader that is among its elements would otherwise run
  /// on into this list and never come to its end.
  /// Thread safety: as every update, of both lists; outside sections.
  void splice_front(rcu_list& other) noexcept {
    if (&other == this || other.empty()) return;
    link* const begin = other.first();
    link* const end = other.head_.previous_;
    other.make_empty();
    if (!planted_fault("rcu-list-splice-no-grace")) rcu_synchronize(other.domain_);
    link* const next = first();
    end->next_.store(next, std::memory_order_relaxed);
    next->previous_ = end;
    begin->previous_ = &head_;
    head_.next_.store(begin, std::memory_order_release);  // (A)
  }

  /// Calls `fn(element)` for each, first to last.
  ///
  /// Thread safety: in a section of domain(), or `condition` holds (checked, see checked.hpp).
  ///                `fn` may erase and retire the element it is given if it may update.
  template <check_condition C, class Fn>
  void for_each(const C& condition, Fn fn, call_site where = call_site::current()) const {
    detail::check_reader(domain_, condition, where);
    const link* at = head_.next_.load(std::memory_order_acquire);  // (A)
    while (at != &head_) {
      // Before `fn`, which may have the element freed.
      const link* const next = at->next_.load(std::memory_order_acquire);  // (A)
      fn(static_cast<T&>(const_cast<link&>(*at)));
      at = next;
    }
  }

  class iterator {
   public:
    using value_type = T;
    using difference_type = std::ptrdiff_t;
    using pointer = T*;
    using reference = T&;
    using iterator_category = std::forward_iterator_tag;

    iterator() = default;
    T& operator*() const noexcept { return static_cast<T&>(const_cast<link&>(*at_)); }
    T* operator->() const noexcept { return &**this; }
    iterator& operator++() noexcept {
      at_ = at_->next_.load(std::memory_order_acquire);  // (A)
      return *this;
    }
    iterator operator++(int) noexcept {  // NOLINT(cert-dcl21-cpp): a const copy could not be moved
      const iterator before = *this;
      ++*this;
      return before;
    }
    friend bool operator==(const iterator&, const iterator&) = default;

   private:
    friend class rcu_list;
    explicit iterator(const link* at) noexcept : at_(at) {}
    const link* at_ = nullptr;
  };

  /// Elements for a range-based for; see for_each().
  class range {
   public:
    iterator begin() const noexcept {
      return iterator(list_.head_.next_.load(std::memory_order_acquire));  // (A)
    }
    iterator end() const noexcept { return iterator(&list_.head_); }

   private:
    friend class rcu_list;
    explicit range(const rcu_list& list) noexcept : list_(list) {}
    const rcu_list& list_;
  };

  template <check_condition C>
  range traverse(const C& condition, call_site where = call_site::current()) const noexcept {
    detail::check_reader(domain_, condition, where);
    return range(*this);
  }

 private:
  struct Head : link {
    Head() = default;
  };

  link* first() const noexcept { return head_.next_.load(std::memory_order_relaxed); }

  void make_empty() noexcept {
    head_.previous_ = &head_;
    head_.next_.store(&head_, std::memory_order_release);
  }

  void insert_between(T& element, link& before, link& after) noexcept {
    link& node = element;
    TANDEM_CHECK(node.previous_ == nullptr);  // in a list already
    node.previous_ = &before;
    node.next_.store(&after, std::memory_order_relaxed);
    after.previous_ = &node;
    before.next_.store(&node, std::memory_order_release);  // (A)
  }

  rcu_domain& domain_;
  Head head_;
};

/// As rcu_list::traverse().
template <class T, class Tag, check_condition C = bool>
auto traverse(const rcu_list<T, Tag>& list, const C& condition = false,
              call_site where = call_site::current()) noexcept {
  return list.traverse(condition, where);
}

/// As rcu_list::for_each().
template <class T, class Tag, check_condition C, class Fn>
void for_each(const rcu_list<T, Tag>& list, const C& condition, Fn fn,
              call_site where = call_site::current()) {
  list.for_each(condition, std::move(fn), where);
}

}  // namespace tandem::rcu
