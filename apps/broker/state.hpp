// SPDX-License-Identifier: Apache-2.0
/// What the control thread of a broker knows. For the broker's own sources.
#pragma once

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "apps/broker/broker.hpp"
#include "apps/broker/lane.hpp"
#include "apps/broker/message.hpp"
#include "apps/broker/token_watch.hpp"
#include "tandem/base/mutex.hpp"
#include "tandem/base/unique_fd.hpp"

namespace tandem::broker {

using Clock = std::chrono::steady_clock;

// Why a client is said to have ended; compared by address.
inline constexpr char kProcessEnded[] = "process ended";
inline constexpr char kSpaceEnded[] = "address space ended";

struct Connection {
  std::uint64_t id = 0;
  UniqueFd socket, pidfd;
  ucred peer{};     // as the kernel saw connect()
  pid_t owner = 0;  // said HELLO
  std::uint32_t client_number = 0;
  std::shared_ptr<uacce::Client> client;
  bool reserved_only = false;
  int watch = -1;
  UniqueFd token;     // kept for reserved-only clients, see greet()
  bool busy = false;  // a request of it is on a lane: its socket is not listened to
  bool over_limit = false;
  bool stranger_told = false;     // somebody else wrote to its socket, and the log knows
  const char* doubt = nullptr;    // why it may have ended, while a lane looks whether it has
  bool doubt_again = false;       // there was another sign meanwhile
  Clock::time_point waits_since;  // for HELLO, or for the end of it
};

/// What epoll tells apart: the two lowest bits of its word.
enum Source : std::uint64_t { kSocket = 0, kPidfd = 1, kService = 2 };
enum Service : std::uint64_t { kListener, kStop, kPosted, kTokens };
constexpr std::uint64_t word_of(Source source, std::uint64_t id) { return id << 2 | source; }

inline void signal_eventfd(int fd) noexcept {
  const std::uint64_t one = 1;
  // Full means that it is readable already.
  [[maybe_unused]] const ssize_t written = ::write(fd, &one, sizeof one);
}

inline void drain_eventfd(int fd) noexcept {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t read = ::read(fd, &count, sizeof count);
}

struct Broker::State {
  Options options;
  Place place;
  std::shared_ptr<uacce::Framework> framework;
  UniqueFd epoll, stop_event, posted_event, spare;
  TokenWatch tokens;
  std::unordered_map<std::uint64_t, std::unique_ptr<Connection>> connections;
  std::unordered_map<int, std::uint64_t> watched;  // token's watch → connection
  std::map<uid_t, unsigned> connections_of;
  std::uint64_t next_id = 1;
  std::uint32_t next_client = 1;
  Clock::time_point next_sweep;
  std::uint64_t sweeps_running = 0;

  Mutex event_mutex;
  Mutex posted_mutex;
  std::vector<std::function<void()>> posted TANDEM_GUARDED_BY(posted_mutex);
  // The end of clients waits for nobody's requests, and those wait for nobody's HELLO.
  Lane hellos{{.threads_max = 32, .threads_per_account = 4}};
  Lane requests{{}};
  Lane endings{{}};

  /// To whom work on lanes is accounted.
  std::uint32_t account_of(const Connection& connection) const {
    return options.tenant == Options::Tenant::kUser ? connection.peer.uid
                                                    : static_cast<std::uint32_t>(connection.owner);
  }
  bool watch_fd(int fd, std::uint64_t word) const {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = word;
    return ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) == 0;
  }
  void listen_to(const Connection& connection, bool listen) const {
    epoll_event event{};
    event.events = listen ? static_cast<std::uint32_t>(EPOLLIN) : 0;  // hang-up is always reported
    event.data.u64 = word_of(kSocket, connection.id);
    ::epoll_ctl(epoll.get(), EPOLL_CTL_MOD, connection.socket.get(), &event);
  }

  /// Has `done` run on the control thread.
  void post(std::function<void()> done) {
    {
      const MutexLock lock(posted_mutex);
      posted.push_back(std::move(done));
    }
    signal_eventfd(posted_event.get());
  }

  void tell(const Event& event) {
    if (!options.on_event) return;
    const MutexLock lock(event_mutex);
    options.on_event(event);
  }

  Connection* find(std::uint64_t id) {
    const auto found = connections.find(id);
    return found == connections.end() ? nullptr : found->second.get();
  }

  void handle(const epoll_event& event);

  // A connection begins: connecting.cpp.
  void accept_all();
  void start_hello(Connection& connection, Incoming incoming);
  void greet(std::uint64_t id, const tandem_message_header& header, int version,
             Result<std::unique_ptr<uacce::Client>> bound);
  void end_unmet(std::uint32_t account, Event event, std::shared_ptr<uacce::Client> client);

  // It is served: broker.cpp.
  void read_from(Connection& connection);
  void ignore_stranger(Connection& connection, const Incoming& incoming);
  void serve_on_lane(Connection& connection, const Incoming& incoming);
  void reply_or_drop(Connection& connection, const tandem_message_header& header,
                     const Outgoing& reply);

  // It ends: ending.cpp.
  void confirm_end(Connection& connection, const char* why);
  void look_whether_alive(const Connection& connection);
  void sweep();
  void drop(Connection& connection, const char* why,
            tandem_queue_state reason = TANDEM_QUEUE_OWNER_GONE);
  void end_client(std::uint32_t account, std::shared_ptr<uacce::Client> client, Event event,
                  tandem_queue_state reason = TANDEM_QUEUE_OWNER_GONE, UniqueFd socket = {});
  void forget_connection_of(uid_t uid);
};

}  // namespace tandem::broker
