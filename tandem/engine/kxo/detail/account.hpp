// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>

namespace tandem::engine::kxo::detail {

class User;

/// Takes one of a quota. Returns: whether there was one.
inline bool take(std::atomic<std::uint32_t>& used, std::uint32_t most) noexcept {
  std::uint32_t before = used.load(std::memory_order_relaxed);
  do {
    if (before >= most) return false;
  } while (!used.compare_exchange_weak(before, before + 1, std::memory_order_relaxed));
  return true;
}

/// Users, first come first served. Under the pool's mutex.
class ReadyList {
 public:
  bool empty() const noexcept { return first_ == nullptr; }
  void push_back(User& user) noexcept;
  void erase(User& user) noexcept;
  User& pop_front() noexcept;

 private:
  User* first_ = nullptr;
  User* last_ = nullptr;
};

/// What is accounted to one tenant.
struct Account : std::enable_shared_from_this<Account> {
  std::atomic<std::uint32_t> users{0};  ///< quota; taken by GET_ID, given back by a user's end

  /// \name Under the pool's mutex
  /// @{
  ReadyList ready;
  std::chrono::nanoseconds credit{0};  ///< what it may use before others are asked
  std::shared_ptr<Account> active;     ///< itself, while it is in the pool's round
  Account* next = nullptr;             ///< in the pool's round
  /// @}
};

}  // namespace tandem::engine::kxo::detail
