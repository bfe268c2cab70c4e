// SPDX-License-Identifier: Apache-2.0
/// A client of one queue that speaks the ring ABI and nothing else. For tests.
#pragma once

#include <sys/eventfd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/base/cpu.hpp"
#include "tandem/base/futex.hpp"
#include "tandem/base/mapping.hpp"
#include "tandem/uacce/framework.hpp"

namespace tandem::uacce::detail {

/// Thread safety: one thread submits, one receives.
class RawQueue {
 public:
  RawQueue(Client& client, const std::string& device, std::uint32_t depth = 64, bool start = true)
      : depth_(depth) {
    auto info = client.open(device, depth);
    TANDEM_CHECK(info);
    info_ = *info;
    auto mmio = client.map(info_.queue, TANDEM_REGION_MMIO, info_.region_mmio_size);
    auto dus = client.map(info_.queue, TANDEM_REGION_DUS, info_.region_dus_size);
    TANDEM_CHECK(mmio && dus);
    auto doorbell = Mapping::shared(mmio->get(), info_.region_mmio_size);
    auto rings = Mapping::shared(dus->get(), info_.region_dus_size);
    TANDEM_CHECK(doorbell && rings);
    doorbell_ = std::move(*doorbell);
    rings_ = std::move(*rings);
    dus_fd_ = std::move(*dus);
    auto wake = client.wake_descriptor();
    TANDEM_CHECK(wake);
    wake_ = std::move(*wake);
    if (start) TANDEM_CHECK(client.start(info_.queue));
  }

  const QueueInfo& info() const { return info_; }
  std::uint32_t id() const { return info_.queue; }
  int rings_fd() const { return dus_fd_.get(); }
  tandem_doorbell& doorbell() { return *reinterpret_cast<tandem_doorbell*>(doorbell_.data()); }
  tandem_descriptor& slot(std::uint32_t index) {
    return reinterpret_cast<tandem_descriptor*>(rings_.data())[index & (depth_ - 1)];
  }
  std::uint32_t sent() const { return sent_; }
  std::uint32_t received() const { return received_; }
  std::uint32_t room() const { return depth_ - (sent_ - received_); }
  std::uint32_t parked() { return word(doorbell().parked).load(std::memory_order_relaxed); }
  std::uint32_t state() { return word(doorbell().state).load(std::memory_order_acquire); }

  /// Writes a descriptor without publishing it.
  void write(const tandem_descriptor& descriptor) {
    std::uint64_t words[8];
    std::memcpy(words, &descriptor, sizeof words);
    auto* to = reinterpret_cast<std::uint64_t*>(&slot(sent_));
    for (std::size_t i = 0; i < 8; ++i) {
      std::atomic_ref(to[i]).store(words[i], std::memory_order_relaxed);
    }
    ++sent_;
  }
  /// Publishes what was written, and wakes the engine if it is parked.
  void publish() {
    word(doorbell().tail).store(sent_, std::memory_order_release);
    full_fence();
    if (parked() != 0) (void)::eventfd_write(wake_.get(), 1);
  }
  void submit(std::uint16_t opcode, std::uint64_t tag, std::uint32_t src_len = 0,
              std::uint64_t operand = 0) {
    tandem_descriptor descriptor{};
    descriptor.opcode = opcode;
    descriptor.tag = tag;
    descriptor.src_len = src_len;
    descriptor.operand = operand;
    write(descriptor);
    publish();
  }

  std::optional<tandem_completion> poll() {
    auto* words = reinterpret_cast<std::uint64_t*>(
        rings_.data() + std::uint64_t{depth_} * sizeof(tandem_descriptor) +
        std::uint64_t{received_ & (depth_ - 1)} * sizeof(tandem_completion));
    std::uint64_t copy[4];
    copy[3] = std::atomic_ref(words[3]).load(std::memory_order_acquire);
    const bool phase = ((copy[3] >> 48) & TANDEM_CPL_PHASE) != 0;
    if (phase != ((received_ & depth_) == 0)) return std::nullopt;
    for (std::size_t i = 0; i < 3; ++i) {
      copy[i] = std::atomic_ref(words[i]).load(std::memory_order_relaxed);
    }
    ++received_;
    tandem_completion completion;
    std::memcpy(&completion, copy, sizeof completion);
    return completion;
  }
  /// Polls until something completes, the queue dies or the time is over.
  std::optional<tandem_completion> wait(
      std::chrono::milliseconds limit = std::chrono::seconds(20)) {
    const auto deadline = std::chrono::steady_clock::now() + limit;
    for (int i = 1;; ++i) {
      if (auto completion = poll()) return completion;
      if (i % 1024 != 0) {
        cpu_pause();
        continue;
      }
      if (state() != TANDEM_QUEUE_ALIVE) return poll();
      if (std::chrono::steady_clock::now() >= deadline) return std::nullopt;
      std::this_thread::yield();
    }
  }
  /// Sleeps on the futex word until something completes or the queue dies.
  std::optional<tandem_completion> sleep(
      std::chrono::milliseconds limit = std::chrono::seconds(20)) {
    const auto deadline = std::chrono::steady_clock::now() + limit;
    std::optional<tandem_completion> completion;
    while (std::chrono::steady_clock::now() < deadline) {
      const auto event = word(doorbell().event);
      const std::uint32_t seen = event.load(std::memory_order_acquire);
      word(doorbell().waiting).store(TANDEM_WAIT_FUTEX, std::memory_order_relaxed);
      full_fence();
      completion = poll();
      if (completion || state() != TANDEM_QUEUE_ALIVE) break;
      futex_wait(reinterpret_cast<std::atomic<std::uint32_t>&>(doorbell().event), seen,
                 std::chrono::milliseconds(100));
    }
    word(doorbell().waiting).store(TANDEM_WAIT_NONE, std::memory_order_relaxed);
    return completion ? completion : poll();
  }

  static std::atomic_ref<std::uint32_t> word(std::uint32_t& word) { return std::atomic_ref(word); }

 private:
  const std::uint32_t depth_;
  QueueInfo info_;
  Mapping doorbell_, rings_;
  UniqueFd dus_fd_, wake_;
  std::uint32_t sent_ = 0, received_ = 0;
};

}  // namespace tandem::uacce::detail
