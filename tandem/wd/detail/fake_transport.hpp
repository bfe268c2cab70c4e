// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tandem/abi/ring.h"
#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/base/cpu.hpp"
#include "tandem/base/futex.hpp"
#include "tandem/base/mapping.hpp"
#include "tandem/base/mutex.hpp"
#include "tandem/wd/transport.hpp"

namespace tandem::wd::detail {

/// How a FakeTransport behaves. A test sets it before it opens queues.
struct FakeBehaviour {
  /// What an operation comes to, besides tag and phase, which the engine adds.
  std::function<tandem_completion(const tandem_descriptor&)> execute;
  /// Called when reserved memory is released, before its mapping goes.
  std::function<void()> on_release;
  bool reaches_ordinary_memory = true;
  bool threads = true;  ///< false: runs in the caller
  std::chrono::microseconds spin_before_park{50};
  std::uint64_t reserved_limit = std::uint64_t{1} << 30;
  std::atomic<int> event_error{0};     ///< not 0: event() fails with it
  std::atomic<int> events{0};          ///< calls of event()
  std::atomic<int> era{0};             ///< counting on ends all transports made before
  std::atomic<bool> paused{false};     ///< the engine leaves descriptors where they are
  std::atomic<bool> overslept{false};  ///< once parked, nothing wakes the engine
};

/// An engine written straight against the ring ABI, for tests of the client library.
class FakeTransport final : public Transport {
 public:
  explicit FakeTransport(FakeBehaviour& behaviour, bool in_caller)
      : behaviour_(behaviour),
        in_caller_(in_caller),
        wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (!in_caller_) engine_ = std::thread([this] { run(); });
  }
  ~FakeTransport() override {
    stop_.store(true);
    wake();
    if (engine_.joinable()) engine_.join();
  }

  /// The queue's regions as the engine sees them: to corrupt them.
  struct Queue {
    std::uint32_t depth = 0;
    UniqueFd doorbell_fd, rings_fd, event;
    Mapping doorbell_page, rings;
    std::uint32_t head = 0;
    std::atomic<std::uint32_t> completed{0};  // counted when it can be seen
    int holds = 0;
    bool started = false;
    bool event_given = false;

    tandem_doorbell& doorbell() {
      return *reinterpret_cast<tandem_doorbell*>(doorbell_page.data());
    }
    tandem_descriptor* descriptors() { return reinterpret_cast<tandem_descriptor*>(rings.data()); }
    tandem_completion* completions() {
      return reinterpret_cast<tandem_completion*>(descriptors() + depth);
    }
  };
  Queue& queue(std::uint32_t id) {
    const MutexLock lock(mutex_);
    return *queues_.at(id);
  }
  std::size_t queue_count() {
    const MutexLock lock(mutex_);
    return queues_.size();
  }
  std::size_t reserved_count() {
    const MutexLock lock(mutex_);
    return reserved_.size();
  }
  /// As if the other side had been killed.
  void kill() { alive_.store(false); }
  void set_state(Queue& queue, std::uint32_t state) {
    std::atomic_ref(queue.doorbell().state).store(state, std::memory_order_release);
    signal(queue, TANDEM_WAIT_FUTEX);
    signal(queue, TANDEM_WAIT_FD);
  }

  Result<tandem_open_reply> open(const std::string& algorithm, std::uint32_t depth) override {
    if (!alive()) return errno_error(ESHUTDOWN);
    if (algorithm != "fake") return errno_error(ENOENT);
    auto made = std::make_unique<Queue>();
    made->depth = depth;
    auto doorbell = make_sealed_memfd("doorbell", kPageSize);
    auto rings = make_sealed_memfd("rings", round_up_to_page(tandem_rings_size(depth)));
    if (!doorbell || !rings) return errno_error(ENOMEM);
    made->doorbell_page = Mapping::shared(doorbell->get(), kPageSize).value();
    made->rings = Mapping::shared(rings->get(), round_up_to_page(tandem_rings_size(depth))).value();
    made->doorbell_page.exclude_from_fork();
    made->rings.exclude_from_fork();
    made->doorbell_fd = std::move(*doorbell);
    made->rings_fd = std::move(*rings);
    made->event = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    tandem_open_reply reply{};
    std::memcpy(reply.device, "fake-0", 7);
    reply.depth = depth;
    reply.device_flags = TANDEM_DEVICE_SVA;
    reply.region_mmio_size = kPageSize;
    reply.region_dus_size = made->rings.size();
    const MutexLock lock(mutex_);
    reply.queue = ++last_queue_;
    queues_.emplace(reply.queue, std::move(made));
    return reply;
  }
  Result<UniqueFd> map(std::uint32_t id, std::uint32_t region, std::uint64_t) override {
    Queue& found = queue(id);
    return std::move(region == TANDEM_REGION_MMIO ? found.doorbell_fd : found.rings_fd);
  }
  Result<void> start(std::uint32_t id) override {
    {
      const MutexLock lock(mutex_);
      queues_.at(id)->started = true;
    }
    wake();  // its doorbell page does not say yet that the engine is parked
    return {};
  }
  Result<void> put(std::uint32_t id) override {
    const MutexLock lock(mutex_);
    queues_.erase(id);
    return {};
  }
  Result<void> hold(std::uint32_t id, bool keep_awake) override {
    const MutexLock lock(mutex_);
    queues_.at(id)->holds += keep_awake ? 1 : -1;
    return {};
  }
  Result<UniqueFd> event(std::uint32_t id) override {
    ++behaviour_.events;
    if (const int error = behaviour_.event_error; error != 0) return errno_error(error);
    Queue& found = queue(id);
    if (std::exchange(found.event_given, true)) return errno_error(EEXIST);
    return UniqueFd(::dup(found.event.get()));
  }
  Result<Reserved> reserve(std::uint64_t size_bytes) override {
    if (size_bytes > behaviour_.reserved_limit) return errno_error(ENOMEM);
    auto fd = make_sealed_memfd("reserved", size_bytes);
    if (!fd) return Unexpected{fd.error()};
    const MutexLock lock(mutex_);
    reserved_[++last_reserved_] = {0, size_bytes};
    return Reserved{last_reserved_, size_bytes, std::move(*fd)};
  }
  Result<void> attach(std::uint64_t id, std::uint64_t address) override {
    const MutexLock lock(mutex_);
    reserved_.at(id).address = address;
    return {};
  }
  Result<void> release(std::uint64_t id) override {
    if (behaviour_.on_release) behaviour_.on_release();
    const MutexLock lock(mutex_);
    return reserved_.erase(id) == 1 ? Result<void>() : errno_error(ENOENT);
  }
  Result<std::vector<tandem_devices_reply>> devices() override {
    tandem_devices_reply device{};
    std::memcpy(device.name, "fake-0", 7);
    std::memcpy(device.algorithms, "fake", 5);
    device.queues_used = static_cast<std::uint32_t>(queue_count());
    return std::vector{device};
  }
  Result<tandem_stats_reply> stats() override {
    tandem_stats_reply reply{};
    reply.operations = operations_.load();
    return reply;
  }
  void wake() noexcept override {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(wake_.get(), &one, sizeof one);
  }
  bool runs_in_caller() const noexcept override { return in_caller_; }
  void run_in_caller(std::uint32_t) noexcept override { (void)poll_queues(); }
  bool reaches_ordinary_memory() const noexcept override {
    return behaviour_.reaches_ordinary_memory;
  }
  bool alive() noexcept override { return alive_.load() && era_ == behaviour_.era.load(); }

  bool in_reserved(std::uint64_t address, std::uint64_t size) {
    const MutexLock lock(mutex_);
    for (const auto& [id, range] : reserved_) {
      if (address >= range.address && address + size <= range.address + range.size) return true;
    }
    return false;
  }
  std::uint64_t wakes() const { return wakes_.load(); }

 private:
  void signal(Queue& queue, std::uint32_t how) {
    if (how == TANDEM_WAIT_FUTEX) {
      std::atomic_ref(queue.doorbell().event).fetch_add(1);
      futex_wake(*reinterpret_cast<std::atomic<std::uint32_t>*>(&queue.doorbell().event), 1 << 20);
    } else if (how == TANDEM_WAIT_FD) {
      const std::uint64_t one = 1;
      [[maybe_unused]] const auto written = ::write(queue.event.get(), &one, sizeof one);
    }
  }

  static tandem_descriptor load(tandem_descriptor& from) {
    tandem_descriptor copy;
    auto* const source = reinterpret_cast<std::uint64_t*>(&from);
    auto* const target = reinterpret_cast<std::uint64_t*>(&copy);
    for (std::size_t i = 0; i < sizeof copy / 8; ++i) {
      target[i] = std::atomic_ref(source[i]).load(std::memory_order_relaxed);
    }
    return copy;
  }

  void complete(Queue& queue, const tandem_descriptor& descriptor) {
    tandem_completion answer{};
    if (behaviour_.execute) answer = behaviour_.execute(descriptor);
    const std::uint32_t index = queue.completed.load(std::memory_order_relaxed);
    auto* const words =
        reinterpret_cast<std::uint64_t*>(&queue.completions()[index & (queue.depth - 1)]);
    const std::uint64_t tag = answer.tag != 0 ? answer.tag : descriptor.tag;
    std::atomic_ref(words[0]).store(tag, std::memory_order_relaxed);
    std::atomic_ref(words[1]).store(answer.fault_address, std::memory_order_relaxed);
    std::atomic_ref(words[2]).store(answer.result, std::memory_order_relaxed);
    const std::uint64_t phase = (index & queue.depth) == 0 ? TANDEM_CPL_PHASE : 0;
    const std::uint64_t last =
        answer.done | std::uint64_t{answer.status} << 32 | (answer.flags | phase) << 48;
    std::atomic_ref(words[3]).store(last, std::memory_order_release);
    queue.completed.store(index + 1, std::memory_order_release);
    operations_.fetch_add(1, std::memory_order_relaxed);
  }

  /// Runs what is pending. Returns whether anything was.
  bool poll_queues() TANDEM_EXCLUDES(mutex_) {
    bool any = false;
    const MutexLock lock(mutex_);
    for (auto& [id, queue] : queues_) {
      if (!queue->started) continue;
      tandem_doorbell& doorbell = queue->doorbell();
      if (std::atomic_ref(doorbell.state).load() != TANDEM_QUEUE_ALIVE) continue;
      const std::uint32_t tail = std::atomic_ref(doorbell.tail).load(std::memory_order_acquire);
      // After the tail: what a test sends once it has paused us is not run.
      if (behaviour_.paused.load()) continue;
      if (tail - queue->head > queue->depth) {
        set_state(*queue, TANDEM_QUEUE_BAD_TAIL);
        continue;
      }
      if (tail == queue->head) continue;
      any = true;
      while (queue->head != tail) {
        const tandem_descriptor copy = load(queue->descriptors()[queue->head & (queue->depth - 1)]);
        ++queue->head;
        complete(*queue, copy);
      }
      full_fence();
      const auto how = std::atomic_ref(doorbell.waiting).load(std::memory_order_relaxed);
      if (how != TANDEM_WAIT_NONE) signal(*queue, how);
    }
    return any;
  }

  bool held() {
    const MutexLock lock(mutex_);
    for (auto& [id, queue] : queues_) {
      if (queue->holds > 0) return true;
    }
    return false;
  }
  void set_parked(std::uint32_t value) {
    const MutexLock lock(mutex_);
    for (auto& [id, queue] : queues_) std::atomic_ref(queue->doorbell().parked).store(value);
  }

  void run() {
    auto idle_since = std::chrono::steady_clock::now();
    while (!stop_.load()) {
      if (poll_queues()) {
        idle_since = std::chrono::steady_clock::now();
        continue;
      }
      if (usable_cpus() == 1) std::this_thread::yield();
      if (std::chrono::steady_clock::now() - idle_since < behaviour_.spin_before_park || held()) {
        continue;
      }
      set_parked(1);
      full_fence();
      while (behaviour_.overslept.load() && !stop_.load()) {
        set_parked(1);  // also for queues that are opened meanwhile
        std::this_thread::sleep_for(std::chrono::milliseconds(1));  // lets others have the mutex
      }
      if (!poll_queues() && !stop_.load()) {
        pollfd wake{wake_.get(), POLLIN, 0};
        ::poll(&wake, 1, behaviour_.paused.load() ? 1 : 1000);
        std::uint64_t count = 0;
        if (::read(wake_.get(), &count, sizeof count) > 0) wakes_.fetch_add(1);
      }
      set_parked(0);
      idle_since = std::chrono::steady_clock::now();
    }
  }

  struct Range {
    std::uint64_t address = 0;
    std::uint64_t size = 0;
  };
  FakeBehaviour& behaviour_;
  const int era_ = behaviour_.era.load();
  const bool in_caller_;
  const UniqueFd wake_;
  Mutex mutex_;
  std::map<std::uint32_t, std::unique_ptr<Queue>> queues_ TANDEM_GUARDED_BY(mutex_);
  std::map<std::uint64_t, Range> reserved_ TANDEM_GUARDED_BY(mutex_);
  std::uint32_t last_queue_ TANDEM_GUARDED_BY(mutex_) = 0;
  std::uint64_t last_reserved_ TANDEM_GUARDED_BY(mutex_) = 0;
  std::atomic<std::uint64_t> operations_{0}, wakes_{0};
  std::atomic<bool> stop_{false}, alive_{true};
  std::thread engine_;  // last: it uses all of the above
};

}  // namespace tandem::wd::detail
