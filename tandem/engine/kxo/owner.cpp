// SPDX-License-Identifier: Apache-2.0
#include "tandem/engine/kxo/detail/owner.hpp"

#include <mutex>
#include <new>
#include <utility>

#include "tandem/base/planted_fault.hpp"
#include "tandem/trace/trace.hpp"

namespace tandem::engine::kxo::detail {

namespace {

Options complete(Options options) {
  if (options.agents == nullptr) options.agents = registered_agents();
  return options;
}

}  // namespace

Device::Device(Options options)
    : options_(complete(std::move(options))),
      pool_(options_.threads, options_.agents, options_.preparations_per_tenant) {}

Device::~Device() { rcu::rcu_barrier(); }

std::shared_ptr<Account> Device::account_of(std::uint32_t tenant) {
  const MutexLock lock(mutex_);
  if (accounts_.size() >= sweep_at_) {
    std::erase_if(accounts_, [](const auto& entry) { return entry.second.expired(); });
    sweep_at_ = accounts_.size() * 2 + 64;
  }
  std::weak_ptr<Account>& known = accounts_[tenant];
  auto account = known.lock();
  if (account == nullptr) known = account = std::make_shared<Account>();
  return account;
}

Result<std::shared_ptr<const tandem::kxo::Rules>> Device::rules(int width, int height, int goal) {
  const MutexLock lock(mutex_);
  auto& known = rules_[{width, height, goal}];
  if (auto there = known.lock()) return there;
  auto made = tandem::kxo::Rules::make(width, height, goal);
  if (!made) {
    rules_.erase({width, height, goal});
    return Unexpected{made.error()};
  }
  auto shared = std::make_shared<const tandem::kxo::Rules>(std::move(*made));
  known = shared;
  return std::shared_ptr<const tandem::kxo::Rules>(std::move(shared));
}

void Owner::link_locked(User& user) {
  user.older = youngest_;
  user.younger = nullptr;
  if (youngest_ != nullptr) youngest_->younger = &user;
  youngest_ = &user;
  ++count_;
  memory_kib_ += user.memory_kib();
}

void Owner::unlink_locked(User& user) {
  (user.younger == nullptr ? youngest_ : user.younger->older) = user.older;
  if (user.older != nullptr) user.older->younger = user.younger;
  --count_;
  memory_kib_ -= user.memory_kib();
}

bool Owner::has_room_locked(const tandem_kxo_setup& wanted) const {
  const Options& limits = device_.options();
  return count_ < limits.users_per_owner &&
         wanted.memory_kib <= limits.memory_kib_per_owner - memory_kib_;
}

void Owner::give_back() {
  account_->users.fetch_sub(1, std::memory_order_relaxed);
  device_.live_.fetch_sub(1, std::memory_order_relaxed);
}

Result<std::uint64_t, tandem_status> Owner::add(const tandem_kxo_setup& wanted,
                                                std::shared_ptr<const tandem::kxo::Rules> rules,
                                                const pcie::AddressSpace& space) {
  const Options& limits = device_.options();
  {
    const MutexLock lock(mutex_);
    if (!has_room_locked(wanted)) return Unexpected{TANDEM_STATUS_NO_ROOM};
  }
  if (!take(account_->users, limits.users_per_tenant)) return Unexpected{TANDEM_STATUS_NO_ROOM};
  if (!take(device_.live_, limits.users)) {
    account_->users.fetch_sub(1, std::memory_order_relaxed);
    return Unexpected{TANDEM_STATUS_NO_ROOM};
  }
  struct Taken {  // given back unless there is a user
    Owner* owner;
    ~Taken() {
      if (owner != nullptr) owner->give_back();
    }
  } taken{this};
  User::Setup setup;
  setup.id = device_.ids_.fetch_add(1, std::memory_order_relaxed);
  setup.owner = number_;
  setup.account = account_;
  setup.objects = device_.objects_;
  setup.rules = std::move(rules);
  setup.wanted = wanted;
  // A second reference, ours: the table's ends as soon as somebody finds the user there.
  std::unique_ptr<User> made(new (std::nothrow) User(std::move(setup), space));
  const tandem_status started = made == nullptr ? TANDEM_STATUS_NO_ROOM : made->start();
  if (started != TANDEM_STATUS_OK) return Unexpected{started};
  // Nothing is prepared for who is refused.
  if (!prepare(wanted.player_o, wanted.player_x, made->rules()) || !device_.pool_.admit()) {
    return Unexpected{TANDEM_STATUS_NO_ROOM};
  }
  User& user = *made.release();
  (void)user.try_acquire();
  const UserRef held(&user);
  {
    const MutexLock lock(mutex_);
    if (!stopped_) {
      link_locked(user);
      device_.users_.insert(user);
      taken.owner = nullptr;
    } else {  // the queue died while this operation hung
      user.end(false);
      device_.pool_.dismiss();
      user.drop();
      return Unexpected{TANDEM_STATUS_DEVICE_LOST};
    }
  }
  device_.pool_.kick(user);
  return user.id();
}

bool Owner::prepare(std::uint8_t o, std::uint8_t x, const tandem::kxo::Rules& rules) {
  return device_.pool_.prepare(account_, o, rules) && device_.pool_.prepare(account_, x, rules);
}

UserRef Owner::find(std::uint64_t id) const {
  static const bool skip = planted_fault("kxo-skip-owner-check");
  const std::scoped_lock section(rcu::rcu_default_domain());
  User* const user = device_.users_.find(id);
  if (user == nullptr || (user->owner() != number_ && !skip) || !user->try_acquire()) return {};
  return UserRef(user);
}

bool Owner::remove(User& user, bool tell) {
  {
    const MutexLock lock(mutex_);
    if (!device_.users_.erase(user)) return false;
    unlink_locked(user);
  }
  user.end(tell);
  device_.pool_.remove(user);
  device_.pool_.dismiss();
  give_back();
  user.drop();  // the table's
  return true;
}

void Owner::stop() noexcept {
  for (;;) {
    UserRef user;
    {
      const MutexLock lock(mutex_);
      if (!std::exchange(stopped_, true)) TANDEM_TRACE(owner_gone, number_, count_);
      if (youngest_ == nullptr) return;
      (void)youngest_->try_acquire();  // linked, so the table's reference is there
      user = UserRef(youngest_);
    }
    (void)remove(*user, false);
  }
}

}  // namespace tandem::engine::kxo::detail
