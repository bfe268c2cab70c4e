// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>
#include <vector>

#include "tandem/engine/kxo/detail/user.hpp"

namespace tandem::engine::kxo::detail {

/// Users by User::due, the earliest first: a binary heap whose elements know their place.
///
/// Units: O(log n) for each change. Allocates in reserve() only. Under the pool's mutex.
class TimerHeap {
 public:
  /// Makes room for `users` at once. Errors: std::bad_alloc.
  void reserve(std::size_t users) {
    if (users > heap_.capacity()) heap_.reserve(users * 2);
  }
  bool empty() const noexcept { return heap_.empty(); }
  User& first() const noexcept { return *heap_.front(); }

  void insert(User& user) noexcept {
    heap_.push_back(&user);
    user.timer = heap_.size() - 1;
    rise(user.timer);
  }
  void erase(User& user) noexcept {
    const std::size_t at = user.timer;
    place(at, *heap_.back());
    heap_.pop_back();
    if (at == heap_.size()) return;
    rise(at);
    sink(at);
  }

 private:
  void place(std::size_t at, User& user) noexcept {
    heap_[at] = &user;
    user.timer = at;
  }
  void exchange(std::size_t a, std::size_t b) noexcept {
    User& first = *heap_[a];
    place(a, *heap_[b]);
    place(b, first);
  }
  void rise(std::size_t at) noexcept {
    for (; at > 0 && heap_[at]->due < heap_[(at - 1) / 2]->due; at = (at - 1) / 2) {
      exchange(at, (at - 1) / 2);
    }
  }
  void sink(std::size_t at) noexcept {
    for (;;) {
      std::size_t least = at;
      for (std::size_t child = 2 * at + 1; child <= 2 * at + 2 && child < heap_.size(); ++child) {
        if (heap_[child]->due < heap_[least]->due) least = child;
      }
      if (least == at) return;
      exchange(at, least);
      at = least;
    }
  }

  std::vector<User*> heap_;
};

}  // namespace tandem::engine::kxo::detail
