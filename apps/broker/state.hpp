// SPDX-License-Identifier: Apache-2.0
/// What the control thread of a broker knows. For the broker's own sources.
#pragma once

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <new>
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
  bool doomed = false;            // there was no memory for it: the sweep drops it
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

inline constexpr std::uint64_t kNobody = 0;  // no connection's number

/// What a lane has the control thread do. Made ahead of the lane's work, so that whatever becomes
/// of that the control thread hears of it: one is posted without taking memory.
struct Post {
  std::uint64_t connection = kNobody;  // whose it is
  std::function<void()> run;
};
using Posts = std::list<Post>;

/// Memory that cannot be had costs the connection for which it was to be had: the request, whose
/// answer is ENOMEM, or else the connection, never the broker. What is left half done is dropped
/// with it: doom().
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
  Posts posted TANDEM_GUARDED_BY(posted_mutex);
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

  void post(Posts& made) noexcept {
    {
      const MutexLock lock(posted_mutex);
      posted.splice(posted.end(), made);
    }
    signal_eventfd(posted_event.get());
  }
  /// Has `work` run on a lane, and `done` with what it returns on the control thread: with
  /// `outcome` where it lacks memory. Errors: std::bad_alloc, and neither is run.
  template <class Outcome, class Work, class Done>
  void run_on(Lane& lane, std::uint32_t account, std::uint64_t connection, Outcome outcome,
              Work work, Done done) {
    const auto result = std::make_shared<Outcome>(std::move(outcome));
    const auto over = std::make_shared<Posts>();
    over->push_back({connection, [result, done = std::move(done)] { done(*result); }});
    lane.run(account, [this, result, over, work = std::move(work)] {
      try {
        *result = work();
      } catch (const std::bad_alloc&) {  // as it was
      }
      post(*over);
    });
  }

  /// Does what there is to do for a connection, or drops it.
  template <class Work>
  void at_the_cost_of(std::uint64_t connection, const Work& work) noexcept {
    try {
      work();
    } catch (const std::bad_alloc&) {
      doom(connection);
    }
  }

  /// What there is no memory to tell stays untold.
  void tell(const Event& event) noexcept {
    if (!options.on_event) return;
    try {
      const MutexLock lock(event_mutex);
      options.on_event(event);
    } catch (const std::bad_alloc&) {
    }
  }

  Connection* find(std::uint64_t id) {
    const auto found = connections.find(id);
    return found == connections.end() ? nullptr : found->second.get();
  }

  void handle(const epoll_event& event) noexcept;
  void handle_tokens();
  void run_posts() noexcept;

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
  /// There was no memory for something of this connection.
  void doom(std::uint64_t id) noexcept;
  /// Errors: std::bad_alloc, and it is not dropped.
  void drop(Connection& connection, const char* why,
            tandem_queue_state reason = TANDEM_QUEUE_OWNER_GONE);
  /// Takes `client` and `socket`. Errors: std::bad_alloc, and they are as they were.
  void end_client(std::uint32_t account, std::shared_ptr<uacce::Client>& client, UniqueFd& socket,
                  Event event, tandem_queue_state reason = TANDEM_QUEUE_OWNER_GONE);
  void forget_connection_of(uid_t uid);
};

}  // namespace tandem::broker
