// SPDX-License-Identifier: Apache-2.0
#include "tandem/wd/detail/context.hpp"

#include <atomic>
#include <bit>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <memory>
#include <utility>

#include "tandem/base/cpu.hpp"
#include "tandem/wd/detail/memory.hpp"

namespace tandem::wd::detail {

Context::Context(Process& process, Parameters parameters, std::shared_ptr<Connection> connection)
    : word_(&process.word()),
      serial_(process.enter_context(this)),
      generation_(process.generation()),
      process_(process),
      parameters_(std::move(parameters)),
      connection_(std::move(connection)),
      transport_(connection_->transport()),
      reserved_(process.reservations(), *connection_),
      pool_(process.reservations(), connection_),
      can_spin_(usable_cpus() > 1) {
  connection_->add_queue();
}

Context::~Context() {
  if (opened_) (void)transport_.put(granted_.queue);
  process_.ledger().close(epoll_);
  process_.ledger().close(event_);
  process_.leave_context(serial_);
  pool_.clear();
  process_.leave(*connection_);
}

Result<std::unique_ptr<Context>> Context::open(Process& process, Parameters parameters) {
  auto connection = process.connect(parameters.route);
  if (!connection) return Unexpected{connection.error()};
  std::unique_ptr<Context> context(
      new Context(process, std::move(parameters), std::move(*connection)));
  if (auto ready = context->set_up(); !ready) return Unexpected{ready.error()};
  return context;
}

Result<void> Context::set_up() {
  auto granted = transport_.open(parameters_.algorithm, parameters_.depth);
  if (!granted) {
    return granted.error().value() == ENOENT ? errno_error(ENODEV) : Unexpected{granted.error()};
  }
  granted_ = *granted;
  opened_ = true;
  depth_ = granted_.depth;
  if (!std::has_single_bit(depth_) || depth_ < TANDEM_MIN_DEPTH || depth_ > TANDEM_MAX_DEPTH ||
      granted_.region_mmio_size < sizeof(tandem_doorbell) ||
      granted_.region_dus_size < tandem_rings_size(depth_)) {
    return errno_error(EPROTO);
  }
  const auto map_region = [this](tandem_region region, std::uint64_t size) -> Result<Mapping> {
    auto fd = transport_.map(granted_.queue, region, size);
    if (!fd) return Unexpected{fd.error()};
    return map_shared(fd->get(), size);
  };
  auto doorbell = map_region(TANDEM_REGION_MMIO, granted_.region_mmio_size);
  if (!doorbell) return Unexpected{doorbell.error()};
  auto rings = map_region(TANDEM_REGION_DUS, granted_.region_dus_size);
  if (!rings) return Unexpected{rings.error()};
  doorbell_page_ = std::move(*doorbell);
  rings_ = std::move(*rings);

  doorbell_ = reinterpret_cast<tandem_doorbell*>(doorbell_page_.data());
  descriptors_ = reinterpret_cast<tandem_descriptor*>(rings_.data());
  completions_ = reinterpret_cast<tandem_completion*>(descriptors_ + depth_);
  mask_ = depth_ - 1;
  table_ = std::make_unique<wd_request*[]>(depth_);
  ready_ = std::make_unique<wd_request*[]>(depth_);
  in_caller_ = transport_.runs_in_caller();
  stages_all_ = !transport_.reaches_ordinary_memory();
  return transport_.start(granted_.queue);
}

/// Returns whether the engine is up, which it soon is, unless something is wrong with it.
bool Context::await_engine() {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  while (std::atomic_ref(doorbell_->parked).load(std::memory_order_acquire) != 0 && !died()) {
    transport_.wake();
    if (std::chrono::steady_clock::now() > deadline) return false;
    ::timespec pause{0, 50'000};
    ::nanosleep(&pause, nullptr);
  }
  return true;
}

int Context::hold(bool keep_awake) {
  if (!keep_awake && holds_ == 0) return -EINVAL;
  const bool changes = keep_awake ? holds_ == 0 : holds_ == 1;
  if (changes) {
    if (auto held = transport_.hold(granted_.queue, keep_awake); !held) {
      return -held.error().value();
    }
  }
  if (keep_awake && !in_caller_ && !await_engine()) {  // a hold is a promise
    if (changes) (void)transport_.hold(granted_.queue, false);
    return -ETIMEDOUT;
  }
  holds_ += keep_awake ? 1 : -1;
  return 0;
}

}  // namespace tandem::wd::detail
