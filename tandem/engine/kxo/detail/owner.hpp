// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <tuple>
#include <unordered_map>

#include "tandem/base/mutex.hpp"
#include "tandem/engine/kxo/detail/pool.hpp"
#include "tandem/engine/kxo/detail/user.hpp"
#include "tandem/uacce/device.hpp"

namespace tandem::engine::kxo::detail {

/// What all queues of the device share.
class Device {
 public:
  explicit Device(Options options);
  ~Device();

  struct UserId {
    std::uint64_t operator()(const User& user) const { return user.id(); }
  };

  const Options& options() const noexcept { return options_; }
  Pool& pool() noexcept { return pool_; }
  rcu::hash_table<User, UserId>& users() noexcept { return users_; }
  /// Users that are not freed yet, also of those that have ended.
  std::uint64_t objects() const noexcept { return objects_->load(std::memory_order_acquire); }
  std::uint32_t live() const noexcept { return live_.load(std::memory_order_relaxed); }

  std::uint64_t next_owner() noexcept { return owners_.fetch_add(1, std::memory_order_relaxed); }
  std::shared_ptr<Account> account_of(std::uint32_t tenant);
  /// One object for all boards of one game: the standard one has a table. Errors: EINVAL.
  Result<std::shared_ptr<const tandem::kxo::Rules>> rules(int width, int height, int goal);

 private:
  friend class Owner;

  const Options options_;
  const std::shared_ptr<std::atomic<std::uint64_t>> objects_ =
      std::make_shared<std::atomic<std::uint64_t>>(0);
  std::atomic<std::uint64_t> owners_{1};
  std::atomic<std::uint64_t> ids_{1};
  std::atomic<std::uint32_t> live_{0};  // quota; written by GET_ID and the ends of users
  rcu::hash_table<User, UserId> users_;
  Pool pool_;
  Mutex mutex_;
  std::unordered_map<std::uint32_t, std::weak_ptr<Account>> accounts_ TANDEM_GUARDED_BY(mutex_);
  std::size_t sweep_at_ TANDEM_GUARDED_BY(mutex_) = 64;
  std::map<std::tuple<int, int, int>, std::weak_ptr<const tandem::kxo::Rules>> rules_
      TANDEM_GUARDED_BY(mutex_);
};

/// A queue: the namespace of its users.
///
/// Thread safety: operations come one at a time; stop() comes from any thread, also beside an
///                operation that hangs.
class Owner final : public uacce::Session {
 public:
  Owner(Device& device, std::uint32_t tenant)
      : device_(device), number_(device.next_owner()), account_(device.account_of(tenant)) {}
  ~Owner() override { stop(); }

  /// Makes a user and starts it. Returns: its id. Errors: NO_ROOM; as User::start();
  /// std::bad_alloc, and there is none.
  Result<std::uint64_t, tandem_status> add(const tandem_kxo_setup& wanted,
                                           std::shared_ptr<const tandem::kxo::Rules> rules,
                                           const pcie::AddressSpace& space);
  /// Has what these players need prepared. Returns: false when too much is waited for.
  /// Errors: std::bad_alloc.
  bool prepare(std::uint8_t o, std::uint8_t x, const tandem::kxo::Rules& rules);
  /// The user of this owner with that id, or none.
  UserRef find(std::uint64_t id) const;
  /// Ends a user; nothing reaches its ring any more. Returns: false when somebody else did.
  bool remove(User& user, bool tell);
  /// Ends all of them, for good.
  void stop() noexcept override;

 private:
  void link_locked(User& user) TANDEM_REQUIRES(mutex_);
  void unlink_locked(User& user) TANDEM_REQUIRES(mutex_);
  void give_back();
  bool has_room_locked(const tandem_kxo_setup& wanted) const TANDEM_REQUIRES(mutex_);

  Device& device_;
  const std::uint64_t number_;
  const std::shared_ptr<Account> account_;
  Mutex mutex_;
  User* youngest_ TANDEM_GUARDED_BY(mutex_) = nullptr;
  std::uint32_t count_ TANDEM_GUARDED_BY(mutex_) = 0;
  std::uint64_t memory_kib_ TANDEM_GUARDED_BY(mutex_) = 0;  // that its users' agents may keep
  bool stopped_ TANDEM_GUARDED_BY(mutex_) = false;
};

}  // namespace tandem::engine::kxo::detail
