// SPDX-License-Identifier: Apache-2.0
/// The broker: gives the devices of one Framework to the processes that connect to a socket.
///
/// One control thread serves every connection and never waits for a client: replies that a client
/// does not take drop it, and whatever may wait for a client's memory or for a device runs on a
/// Lane: one for HELLOs, one for PUT, DETACH and RELEASE, one for the ends of clients. A tenant's
/// work waits for its own alone. Data never passes through here: engines reach clients' memory
/// through their PASID.
///
/// A connection: accept → HELLO (credentials, version, mem and maps descriptors, nonce) → requests
/// → end. The first of these ends it: the token's last close (exact, also on exec and with a forked
/// child alive), the process's pidfd, hang-up of the socket, the sweep. Malformed messages are
/// answered and nothing else happens; a message from another process than said HELLO is not even
/// answered: the answer would be read by the owner, who did not ask.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "apps/broker/place.hpp"
#include "tandem/uacce/framework.hpp"

namespace tandem::broker {

/// What happened to a client, for logs and demos.
struct Event {
  enum class Kind : std::uint8_t { kConnected, kRefused, kEnded };
  Kind kind = Kind::kConnected;
  std::uint32_t client = 0;
  pid_t pid = 0;
  uid_t uid = 0;
  std::uint32_t pasid = 0;
  std::string why;                    ///< kRefused, kEnded
  std::uint64_t queues = 0;           ///< kEnded: put by the clean-up
  std::uint64_t reserved_bytes = 0;   ///< kEnded: freed by the clean-up
  std::uint64_t reserved_kept = 0;    ///< kEnded: bytes freed when an operation that goes on ends
  std::chrono::microseconds took{0};  ///< kEnded: from the notice to the end of the clean-up
  bool quarantined = false;           ///< kEnded: an access has not returned; PASID kept
};

struct Options {
  uacce::Framework::Options framework;
  /// To whom fair shares and quotas are given: users where there are many, else processes.
  enum class Tenant : std::uint8_t { kUser, kProcess };
  Tenant tenant = Tenant::kUser;
  unsigned connections_per_uid = 1024;
  unsigned connections_max = 16384;
  /// For saying HELLO, and for what it takes to answer it.
  std::chrono::milliseconds hello_within{5000};
  std::chrono::milliseconds sweep_every{2000};
  /// Called from the control thread and from lanes, one call at a time.
  std::function<void(const Event&)> on_event;
};

class Broker {
 public:
  /// Takes over a listening place. Every engine is on board: memory, compression.
  /// Errors: the framework's, or the errno of a descriptor.
  static Result<std::unique_ptr<Broker>> create(Place place, Options options);
  ~Broker();

  /// Serves until stop(). Errors: the errno of epoll_wait().
  Result<void> run();
  /// Makes run() return. Async-signal-safe.
  void stop() noexcept;
  uacce::Framework& framework();

 private:
  struct State;
  explicit Broker(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace tandem::broker
