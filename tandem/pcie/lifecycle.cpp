// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <thread>
#include <vector>

#include "tandem/base/planted_fault.hpp"
#include "tandem/pcie/detail/endpoint_state.hpp"
#include "tandem/rcu/rcu.hpp"

/// How a function's life ends.
///
/// An operation runs in the life that it found when it began, and reaches memory in three ways.
/// *In a reader section*: it asks there whether its life lasts (Translator::alive()); a hit does
/// not ask, but needs the ATC, which is filled only by who found, after its ticket, that the life
/// lasts. *Through an I/O region*: it enters `io_accesses` in such a section. *Through a window*:
/// its slot is taken before such a section.
///
/// The end of a life stores the controls (no permissions, the next life), then empties the ATC and
/// aborts page requests, then waits for a grace period, then for slots and I/O accesses. A section
/// that began before the store has ended by the grace period, and what it entered or claimed is
/// seen after it; one that begins later finds another life and an ATC without entries. So when the
/// waits are over nothing of the old life reaches memory, and only then a new one gets permissions.
namespace tandem::pcie {
namespace detail {
namespace {

/// Waits until `done()`; false after `timeout`.
template <class Done>
bool wait_until(Done done, std::chrono::nanoseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (!done()) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  return true;
}

}  // namespace

void EndpointState::end_life_locked(unsigned permissions, const std::function<void()>& on_end) {
  const std::uint64_t next = now().life() + 1;
  controls.store(Controls(next, 0).word(), std::memory_order_seq_cst);
  if (!planted_fault("pcie-reset-keeps-atc")) {
    atc.invalidate(SpaceKey(std::nullopt), 0, 0);
    atc.invalidate_all_pasids();
  }
  groups.fail_all();
  if (on_end) on_end();
  rcu::rcu_synchronize();
  quiet = planted_fault("pcie-reset-skip-wait") ||
          wait_until([&] { return nothing_under_way(); }, options.reset_timeout);
  controls.store(Controls(next, quiet ? permissions : 0).word(), std::memory_order_seq_cst);
}

void EndpointState::apply_locked() {
  unsigned permissions = 0;
  std::uint32_t allocation = 0;
  std::vector<std::optional<std::uint64_t>> addresses;
  {
    const MutexLock lock(config_mutex);
    permissions = config.permissions();
    allocation = config.page_request_allocation();
    log2_smallest_translation_unit.store(config.log2_smallest_translation_unit(),
                                         std::memory_order_relaxed);
    for (std::size_t i = 0; i < options.bars.size(); ++i) {
      addresses.push_back(config.bar_address(i));
    }
  }
  quiet = quiet || nothing_under_way();
  if (!quiet) permissions = 0;
  groups.set_allocation(allocation);
  const Controls old = now();
  // Enabled again: a Response Failure is over.
  if ((permissions & ~old.permissions() & Controls::kPageRequests) != 0) {
    page_requests_failed.store(false, std::memory_order_relaxed);
  }
  if ((old.permissions() & ~permissions & Controls::kEndsLife) != 0) {
    end_life_locked(permissions, {});
  } else {
    controls.store(Controls(old.life(), permissions).word(), std::memory_order_seq_cst);
  }
  // Last: an access to one may wait for what the end of a life aborts, and is waited for here.
  for (std::size_t i = 0; i < addresses.size(); ++i) bars.place(i, addresses[i]);
}

bool EndpointState::reset_locked() {
  {
    const MutexLock lock(config_mutex);
    config.reset();
  }
  end_life_locked(0, options.on_reset);
  apply_locked();
  return quiet;
}

}  // namespace detail

std::uint32_t Endpoint::config_read(std::uint32_t offset, unsigned size_bytes) const {
  if (!detail::is_config_access(offset, size_bytes)) return config::nobody(size_bytes);
  detail::ConfigSpace::Live live;
  live.page_requests_outstanding = state_->groups.outstanding() != 0;
  live.transactions_pending = !state_->nothing_under_way();
  const MutexLock lock(state_->config_mutex);
  return state_->config.read(offset, size_bytes, live);
}

void Endpoint::config_write(std::uint32_t offset, std::uint32_t value, unsigned size_bytes) {
  if (!detail::is_config_access(offset, size_bytes)) return;
  {
    const MutexLock change(state_->change_mutex);
    detail::ConfigSpace::Request request;
    {
      const MutexLock lock(state_->config_mutex);
      request = state_->config.write(offset, value, size_bytes);
    }
    if (request.page_request_reset) state_->groups.forget_abandoned();
    if (request.function_level_reset) {
      state_->reset_locked();
    } else {
      state_->apply_locked();
    }
  }
  state_->store_pending_messages();  // with no lock held: a message may reach any region
}

bool Endpoint::reset() {
  const MutexLock change(state_->change_mutex);
  return state_->reset_locked();
}

}  // namespace tandem::pcie
