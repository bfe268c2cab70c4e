// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tandem/base/mapping.hpp"
#include "tandem/base/mutex.hpp"
#include "tandem/wd/detail/ledger.hpp"
#include "tandem/wd/transport.hpp"

namespace tandem::wd::detail {

/// A broker behind a socket.
///
/// HELLO hands over this address space: descriptors of our own /proc/self/mem and maps, which mean
/// this mm and no other whatever becomes of the process, and a nonce that the broker reads back to
/// see that they do. They are closed as soon as they are sent: a forked child that had them would
/// reach its parent. What stays open is the socket and the wake descriptor, and mapped the token,
/// whose last unmapping tells the broker that the mm ended.
///
/// Thread safety: as Transport; one request is under way at a time.
class BrokerTransport final : public Transport {
 public:
  /// Errors: EACCES not to be trusted (see connect_to_trusted()); ECONNREFUSED nobody listens;
  ///         EPROTO no common version or an answer that makes no sense; ETIMEDOUT no answer.
  static Result<std::unique_ptr<Transport>> create(const std::string& path, Ledger& ledger);
  ~BrokerTransport() override;

  Result<tandem_open_reply> open(const std::string& algorithm, std::uint32_t depth) override;
  Result<UniqueFd> map(std::uint32_t queue, std::uint32_t region, std::uint64_t size) override;
  Result<void> start(std::uint32_t queue) override;
  Result<void> put(std::uint32_t queue) override;
  Result<void> hold(std::uint32_t queue, bool keep_awake) override;
  Result<UniqueFd> event(std::uint32_t queue) override;
  Result<Reserved> reserve(std::uint64_t size_bytes) override;
  Result<void> attach(std::uint64_t id, std::uint64_t address) override;
  Result<void> release(std::uint64_t id) override;
  Result<std::vector<tandem_devices_reply>> devices() override;
  Result<tandem_stats_reply> stats() override;

  void wake() noexcept override;
  bool reaches_ordinary_memory() const noexcept override { return !reserved_only_; }
  bool global_fence() const noexcept override { return global_fence_; }
  bool alive() noexcept override;
  int hangup_descriptor() const noexcept override { return socket_; }

 private:
  BrokerTransport(Ledger& ledger, UniqueFd socket)
      : ledger_(ledger), socket_(ledger.add(std::move(socket))) {}

  struct Answer {
    std::array<UniqueFd, 2> fds;
    std::size_t fd_count = 0;
  };
  Result<void> hello();
  Result<void> adopt_token(const UniqueFd& token);
  /// Sends one request and awaits its answer, `reply.size()` bytes and `fd_count` descriptors.
  Result<Answer> exchange(std::uint32_t type, std::span<const std::byte> body,
                          std::span<const int> fds, std::span<std::byte> reply,
                          std::size_t fd_count);
  Result<Answer> exchange_locked(std::uint32_t type, std::span<const std::byte> body,
                                 std::span<const int> fds, std::span<std::byte> reply,
                                 std::size_t fd_count) TANDEM_REQUIRES(mutex_);
  Result<void> send_locked(std::span<const std::byte> header, std::span<const std::byte> body,
                           std::span<const int> fds) TANDEM_REQUIRES(mutex_);
  Result<void> queue_request(std::uint32_t type, std::uint32_t queue, std::uint32_t value);
  Result<void> memory_request(std::uint32_t type, std::uint64_t id, std::uint64_t address);

  Ledger& ledger_;
  const int socket_;  // the ledger's
  int wake_ = -1;     // the ledger's; set once by hello()
  Mapping token_;
  bool reserved_only_ = false;
  bool global_fence_ = false;
  std::atomic<bool> broken_{false};  // any thread sets it: requests and answers are out of step
  Mutex mutex_;
  std::uint32_t sequence_ TANDEM_GUARDED_BY(mutex_) = 0;
};

}  // namespace tandem::wd::detail
