// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
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
/// One request is under way at a time, since a broker serves a connection in order. One that is not
/// answered in time fails with ETIMEDOUT, and the connection goes on: what belongs to an answer is
/// told by its sequence number and type, any other message is dropped with its descriptors. So an
/// answer that comes late does no harm (a queue or memory it brings is given back), nor do those to
/// a forked child that writes to the socket it has inherited.
///
/// Thread safety: as Transport.
class BrokerTransport final : public Transport {
 public:
  /// `patience`: how long to wait for each answer.
  /// Errors: EACCES not to be trusted (see connect_to_trusted()); ECONNREFUSED nobody listens;
  ///         EPROTO no common version or an answer that makes no sense; ETIMEDOUT no answer.
  static Result<std::unique_ptr<Transport>> create(
      const std::string& path, Ledger& ledger,
      std::chrono::milliseconds patience = std::chrono::seconds(10));
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
  bool alive() noexcept override;
  int hangup_descriptor() const noexcept override { return socket_; }

 private:
  using Clock = std::chrono::steady_clock;

  BrokerTransport(Ledger& ledger, UniqueFd socket, std::chrono::milliseconds patience)
      : ledger_(ledger), socket_(ledger.add(std::move(socket))), patience_(patience) {}

  struct Answer {
    std::array<UniqueFd, 2> fds;
    std::size_t fd_count = 0;
  };
  static constexpr std::size_t kMaxMessage = 1024;
  static_assert(sizeof(tandem_message_header) + sizeof(tandem_devices_reply) <= kMaxMessage);
  struct Message {
    tandem_message_header header{};  // zero when it was too short to have one
    std::array<std::byte, kMaxMessage> bytes;
    std::size_t size = 0;
    int flags = 0;  // MSG_TRUNC, MSG_CTRUNC
    Answer answer;
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
  Result<std::uint32_t> request_locked(std::uint32_t type, std::span<const std::byte> body,
                                       std::span<const int> fds) TANDEM_REQUIRES(mutex_);
  Result<Message> receive_locked(Clock::time_point deadline) TANDEM_REQUIRES(mutex_);
  void undo_locked(const Message& late) TANDEM_REQUIRES(mutex_);
  /// The error for an errno of the socket; notes when it means the end of the connection.
  Unexpected<std::error_code> failed(int error);
  Result<void> queue_request(std::uint32_t type, std::uint32_t queue, std::uint32_t value);
  Result<void> memory_request(std::uint32_t type, std::uint64_t id, std::uint64_t address);

  Ledger& ledger_;
  const int socket_;  // the ledger's
  int wake_ = -1;     // the ledger's; set once by hello()
  const std::chrono::milliseconds patience_;
  const pid_t pid_ = ::getpid();  // whom the broker serves
  Mapping token_;
  bool reserved_only_ = false;
  std::atomic<bool> broken_{false};  // any thread sets it: the other side is gone or talks nonsense
  Mutex mutex_;
  std::uint32_t sequence_ TANDEM_GUARDED_BY(mutex_) = 0;
};

}  // namespace tandem::wd::detail
