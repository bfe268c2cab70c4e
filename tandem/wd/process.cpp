// SPDX-License-Identifier: Apache-2.0
#include "tandem/wd/detail/process.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>

#include "tandem/base/features.hpp"
#include "tandem/wd/detail/broker_transport.hpp"

namespace tandem::wd {
namespace {

// Written when the embedded library is loaded, read by connect().
constinit std::atomic<EmbeddedFactory> embedded_factory{nullptr};

}  // namespace

extern "C" void wd_register_embedded(EmbeddedFactory factory) noexcept {
  embedded_factory.store(factory, std::memory_order_release);
}

namespace detail {
namespace {

// Written by current(), once per process; read by every slow path.
constinit std::atomic<Process*> the_process{nullptr};
// Counts on in a forked child, so that no serial of its parent's means a context of its own.
constinit std::atomic<std::uint64_t> next_serial{0};
constexpr std::uint64_t kSerialMark = std::uint64_t{0x7764} << 48;

}  // namespace

Result<Process*> Process::current() {
  for (;;) {
    Process* const seen = the_process.load(std::memory_order_acquire);
    const std::uint32_t word = seen == nullptr ? 0 : seen->word_->load_acquire();
    if (seen != nullptr && word == seen->generation_) return seen;

    GenerationWord* page = seen == nullptr ? nullptr : seen->word_;
    if (page == nullptr) {
      auto created = GenerationWord::create();
      if (!created) return Unexpected{created.error()};
      page = *created;
      // Answered once here, so that no forked child meets it half-initialised.
      (void)feature_allowed(Feature::kProcMem);
    }
    const std::uint32_t generation = seen == nullptr ? 1 : seen->generation_ + 1;
    std::unique_ptr<Process> fresh(new Process(page, generation, seen));
    Process* expected = seen;
    if (the_process.compare_exchange_strong(expected, fresh.get(), std::memory_order_acq_rel)) {
      if (seen != nullptr) seen->ledger_.close_inherited();
      page->publish(generation);
      return fresh.release();
    }
    while (expected->word_->load_acquire() == 0) ::sched_yield();
  }
}

Process* Process::existing() noexcept {
  Process* const seen = the_process.load(std::memory_order_acquire);
  return seen != nullptr && seen->word_->load_acquire() == seen->generation_ ? seen : nullptr;
}

Result<std::shared_ptr<Connection>> Process::connect(const Route& route) {
  const MutexLock lock(mutex_);
  std::erase_if(connections_, [](const auto& old) { return !old->transport().alive(); });
  const auto known = std::ranges::find_if(
      connections_, [&route](const auto& candidate) { return candidate->route() == route; });
  if (known != connections_.end()) return *known;

  std::unique_ptr<Transport> transport;
  if (route.path == WD_PATH_BROKER) {
    auto made = BrokerTransport::create(route.socket, ledger_);
    if (!made) return Unexpected{made.error()};
    transport = std::move(*made);
  } else {
    const EmbeddedFactory factory = embedded_factory.load(std::memory_order_acquire);
    if (factory == nullptr) return errno_error(ENODEV);
    auto made = factory(route.path == WD_PATH_INLINE);
    if (!made) return Unexpected{made.error()};
    transport = std::move(*made);
  }
  return connections_.emplace_back(std::make_shared<Connection>(route, std::move(transport)));
}

void Process::leave(Connection& connection) {
  std::shared_ptr<Connection> heir;
  if (!connection.transport().alive()) {
    const MutexLock lock(mutex_);
    const auto found = std::ranges::find_if(connections_, [&connection](const auto& candidate) {
      return candidate.get() != &connection && candidate->route() == connection.route();
    });
    if (found != connections_.end()) heir = *found;
  }
  reservations_.leave(connection, heir);
}

std::uint64_t Process::enter_context(const Context* context) {
  const std::uint64_t serial =
      kSerialMark | (next_serial.fetch_add(1, std::memory_order_relaxed) + 1);
  const MutexLock lock(mutex_);
  contexts_.emplace(serial, context);
  return serial;
}

void Process::leave_context(std::uint64_t serial) {
  const MutexLock lock(mutex_);
  contexts_.erase(serial);
}

bool Process::context_lives(std::uint64_t serial) {
  const MutexLock lock(mutex_);
  return contexts_.contains(serial);
}

}  // namespace detail
}  // namespace tandem::wd
