// SPDX-License-Identifier: Apache-2.0
#include "apps/broker/broker.hpp"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <unordered_map>
#include <utility>
#include <vector>

#include "apps/broker/lane.hpp"
#include "apps/broker/message.hpp"
#include "apps/broker/requests.hpp"
#include "apps/broker/token_watch.hpp"
#include "tandem/base/features.hpp"
#include "tandem/base/mutex.hpp"
#include "tandem/engine/comp/comp.hpp"
#include "tandem/engine/kxo/kxo.hpp"
#include "tandem/engine/mem/mem.hpp"
#include "tandem/trace/trace.hpp"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

namespace tandem::broker {
namespace {

using Clock = std::chrono::steady_clock;

// Why a client is said to have ended.
constexpr const char* kProcessEnded = "process ended";
constexpr const char* kSpaceEnded = "address space ended";

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

void signal_eventfd(int fd) noexcept {
  const std::uint64_t one = 1;
  // Full means that it is readable already.
  [[maybe_unused]] const ssize_t written = ::write(fd, &one, sizeof one);
}

void drain_eventfd(int fd) noexcept {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t read = ::read(fd, &count, sizeof count);
}

}  // namespace

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
  bool watch_fd(int fd, std::uint64_t word, std::uint32_t events = EPOLLIN) const {
    epoll_event event{};
    event.events = events;
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

  // Implemented below, in the order of a connection's life.
  void accept_all();
  void read_from(Connection& connection);
  void ignore_stranger(Connection& connection, const Incoming& incoming);
  void start_hello(Connection& connection, Incoming incoming);
  void greet(std::uint64_t id, const tandem_message_header& header, int version,
             Result<std::unique_ptr<uacce::Client>> bound);
  void end_unmet(std::uint32_t account, Event event, std::shared_ptr<uacce::Client> client);
  void serve_on_lane(Connection& connection, const Incoming& incoming);
  void reply_or_drop(Connection& connection, const tandem_message_header& header,
                     const Outgoing& reply);
  void confirm_end(Connection& connection, const char* why);
  void look_whether_alive(const Connection& connection);
  void sweep();
  void drop(Connection& connection, const char* why,
            tandem_queue_state reason = TANDEM_QUEUE_OWNER_GONE);
  void end_client(std::uint32_t account, std::shared_ptr<uacce::Client> client, Event event,
                  tandem_queue_state reason = TANDEM_QUEUE_OWNER_GONE, UniqueFd socket = {});
  void forget_connection_of(uid_t uid);
  void handle(const epoll_event& event);
};

void Broker::State::accept_all() {
  for (int round = 0; round < 64; ++round) {
    UniqueFd socket(::accept4(place.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) {
      if (errno == EMFILE || errno == ENFILE) {
        // Out of descriptors: take the caller off the backlog with the spare one, and hang up.
        spare.reset();
        UniqueFd(::accept4(place.fd(), nullptr, nullptr, SOCK_CLOEXEC)).reset();
        spare.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
      }
      return;
    }
    auto connection = std::make_unique<Connection>();
    socklen_t size = sizeof connection->peer;
    if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &connection->peer, &size) != 0) {
      continue;
    }
    unsigned& of_uid = connections_of[connection->peer.uid];
    // A few more than the limit are let in to be told so.
    if (connections.size() >= options.connections_max ||
        of_uid >= options.connections_per_uid + 16) {
      continue;
    }
    connection->over_limit = of_uid >= options.connections_per_uid;
    connection->id = next_id++;
    connection->waits_since = Clock::now();
    connection->socket = std::move(socket);
    if (!watch_fd(connection->socket.get(), word_of(kSocket, connection->id))) continue;
    ++of_uid;
    connections.emplace(connection->id, std::move(connection));
  }
}

void Broker::State::read_from(Connection& connection) {
  Incoming incoming = receive(connection.socket.get());
  if (incoming.outcome == Incoming::Outcome::kNothing) return;
  if (incoming.outcome == Incoming::Outcome::kHangUp) return drop(connection, "closed its socket");
  const tandem_message_header header = incoming.header();
  int wrong = check_form(incoming);
  if (!incoming.sender || incoming.sender->pid != connection.owner) {
    if (connection.owner != 0) return ignore_stranger(connection, incoming);
    // A process of an unrelated PID namespace has no number here: nobody can tell it from others.
    if (!incoming.sender || incoming.sender->pid == 0) wrong = -EPERM;
  }
  if (wrong == 0 && connection.client == nullptr && header.type != TANDEM_MSG_HELLO) {
    wrong = -EPROTO;
  }
  if (wrong == 0 && connection.client != nullptr && header.type == TANDEM_MSG_HELLO) {
    wrong = -EPROTO;
  }
  if (wrong != 0) return reply_or_drop(connection, header, Outgoing(wrong));
  if (header.type == TANDEM_MSG_HELLO) return start_hello(connection, std::move(incoming));
  if (may_wait(header.type)) return serve_on_lane(connection, incoming);
  reply_or_drop(connection, header,
                serve(*framework, *connection.client, header.type, incoming.body()));
}

/// A process that inherited the socket has written to it. An answer would go to whoever reads
/// first, most likely the owner, who did not ask.
void Broker::State::ignore_stranger(Connection& connection, const Incoming& incoming) {
  if (std::exchange(connection.stranger_told, true)) return;
  Event event;
  event.kind = Event::Kind::kRefused;
  event.client = connection.client_number;
  event.pid = incoming.sender ? incoming.sender->pid : 0;
  event.uid = incoming.sender ? incoming.sender->uid : connection.peer.uid;
  event.why = "the socket belongs to process " + std::to_string(connection.owner);
  tell(event);
}

void Broker::State::start_hello(Connection& connection, Incoming incoming) {
  const tandem_message_header header = incoming.header();
  tandem_hello hello{};
  std::memcpy(&hello, incoming.body().data(), sizeof hello);
  const int version =
      connection.over_limit ? -EMFILE : check_hello(hello, incoming.descriptor_count);
  if (version < 0) {
    Event event;
    event.kind = Event::Kind::kRefused;
    event.pid = incoming.sender->pid;
    event.uid = connection.peer.uid;
    event.why = std::generic_category().message(-version);
    tell(event);
    return reply_or_drop(connection, header, Outgoing(version));
  }
  connection.owner = incoming.sender->pid;
  connection.reserved_only = (hello.flags & TANDEM_HELLO_RESERVED_ONLY) != 0;
  connection.busy = true;
  connection.waits_since = Clock::now();
  listen_to(connection, false);
  // std::function copies, so what is move-only travels behind a shared_ptr.
  auto mem = std::make_shared<UniqueFd>(std::move(incoming.descriptors[0]));
  auto maps = std::make_shared<UniqueFd>(std::move(incoming.descriptors[1]));
  const auto tenant = options.tenant == Options::Tenant::kUser
                          ? connection.peer.uid
                          : static_cast<std::uint32_t>(connection.id);
  Event who;
  who.pid = connection.owner;
  who.uid = connection.peer.uid;
  const auto account = account_of(connection);
  hellos.run(
      account, [this, id = connection.id, tenant, account, who, header, hello, version, mem, maps] {
        auto bound = std::make_shared<Result<std::unique_ptr<uacce::Client>>>(
            bind_client(*framework, tenant, who.uid, hello, std::move(*mem), std::move(*maps)));
        post([this, id, account, who, header, version, bound] {
          if (find(id) != nullptr) return greet(id, header, version, std::move(*bound));
          forget_connection_of(who.uid);
          if (*bound) end_unmet(account, who, std::move(**bound));
        });
      });
}

/// Ends the client of a connection that ended during its HELLO.
void Broker::State::end_unmet(std::uint32_t account, Event event,
                              std::shared_ptr<uacce::Client> client) {
  event.client = next_client++;
  event.why = "gone before the answer to its HELLO";
  end_client(account, std::move(client), std::move(event));
}

void Broker::State::greet(std::uint64_t id, const tandem_message_header& header, int version,
                          Result<std::unique_ptr<uacce::Client>> bound) {
  Connection* connection = find(id);
  connection->busy = false;
  Event event;
  event.pid = connection->owner;
  event.uid = connection->peer.uid;
  if (!bound) {
    event.kind = Event::Kind::kRefused;
    event.why = bound.error().message();
    tell(event);
    connection->owner = 0;
    connection->waits_since = Clock::now();
    listen_to(*connection, true);
    return reply_or_drop(*connection, header, Outgoing(-bound.error().value()));
  }
  connection->client = std::move(*bound);
  connection->client_number = next_client++;
  event.client = connection->client_number;
  event.pasid = connection->client->pasid().value;
  TANDEM_TRACE(pasid_bind, event.pasid, event.pid);
  tell(event);

  auto wake = connection->client->wake_descriptor();
  auto token = tokens.make();
  if (!wake || !token) return drop(*connection, "no descriptors left for it");
  connection->watch = token->watch;
  if (token->watch >= 0) watched.emplace(token->watch, id);
  if (feature_allowed(Feature::kPeerPidfd)) {
    int fd = -1;
    socklen_t size = sizeof fd;
    if (connection->owner == connection->peer.pid &&
        ::getsockopt(connection->socket.get(), SOL_SOCKET, SO_PEERPIDFD, &fd, &size) == 0) {
      connection->pidfd = UniqueFd(fd);
      ::fcntl(fd, F_SETFD, FD_CLOEXEC);
      watch_fd(fd, word_of(kPidfd, id));
    }
  }
  Outgoing reply;
  tandem_hello_reply body{};
  body.version = static_cast<std::uint32_t>(version);
  body.client = connection->client_number;
  body.pasid = connection->client->pasid().value;
  reply.set_body(body);
  reply.descriptors.push_back(std::move(*wake));
  // Nothing but the token tells that a reserved-only client's memory has ended. Keeping our file
  // means that the client closing the descriptor it was sent is no event: the one event is the end.
  if (connection->reserved_only) {
    connection->token = UniqueFd(::fcntl(token->fd.get(), F_DUPFD_CLOEXEC, 0));
  }
  reply.descriptors.push_back(std::move(token->fd));
  listen_to(*connection, true);
  reply_or_drop(*connection, header, reply);
}

void Broker::State::serve_on_lane(Connection& connection, const Incoming& incoming) {
  connection.busy = true;
  listen_to(connection, false);
  const auto body = incoming.body();
  requests.run(account_of(connection), [this, id = connection.id, client = connection.client,
                                        header = incoming.header(),
                                        bytes = std::vector<std::byte>(body.begin(), body.end())] {
    auto reply = std::make_shared<Outgoing>(serve(*framework, *client, header.type, bytes));
    post([this, id, header, reply] {
      Connection* still = find(id);
      if (still == nullptr) return;
      still->busy = false;
      listen_to(*still, true);
      reply_or_drop(*still, header, *reply);
    });
  });
}

void Broker::State::reply_or_drop(Connection& connection, const tandem_message_header& header,
                                  const Outgoing& reply) {
  if (!send_reply(connection.socket.get(), header, reply)) {
    drop(connection, "did not read its replies");
  } else if (connection.over_limit) {
    drop(connection, "too many connections of this user");
  }
}

/// There is a sign that a client ended; one of its own making, perhaps, so signs that come while a
/// lane looks make it look once more and no oftener.
void Broker::State::confirm_end(Connection& connection, const char* why) {
  if (connection.client == nullptr) return;
  // Two signs may come before the first is looked into: what ended the memory says more than that
  // a process did, which may have left it to others.
  connection.doubt_again = connection.doubt != nullptr;
  if (!connection.doubt_again || why == kSpaceEnded) connection.doubt = why;
  if (!connection.doubt_again) look_whether_alive(connection);
}

void Broker::State::look_whether_alive(const Connection& connection) {
  endings.run(account_of(connection), [this, id = connection.id, client = connection.client] {
    const bool alive = client->alive();
    post([this, id, alive] {
      Connection* still = find(id);
      if (still == nullptr) return;
      if (!alive) return drop(*still, still->doubt);
      if (std::exchange(still->doubt_again, false)) return look_whether_alive(*still);
      still->doubt = nullptr;
    });
  });
}

void Broker::State::sweep() {
  const auto now = Clock::now();
  std::vector<std::uint64_t> late;
  std::vector<std::pair<std::uint64_t, std::shared_ptr<uacce::Client>>> clients;
  for (const auto& [id, connection] : connections) {
    if (connection->client != nullptr) {
      clients.emplace_back(id, connection->client);
    } else if (now - connection->waits_since > options.hello_within) {
      late.push_back(id);
    }
  }
  for (const std::uint64_t id : late) {
    Connection& connection = *connections.at(id);
    if (connection.busy) {
      Event event;
      event.kind = Event::Kind::kRefused;
      event.pid = connection.owner;
      event.uid = connection.peer.uid;
      event.why = "its HELLO takes too long";
      tell(event);
    }
    drop(connection, "never said HELLO");
  }
  if (clients.empty() || sweeps_running > 0) return;
  ++sweeps_running;
  endings.run(static_cast<std::uint32_t>(-1), [this, clients = std::move(clients)] {
    std::vector<std::uint64_t> dead;
    for (const auto& [id, client] : clients) {
      if (!client->alive()) dead.push_back(id);
    }
    post([this, dead = std::move(dead)] {
      --sweeps_running;
      for (const std::uint64_t id : dead) {
        if (Connection* connection = find(id)) drop(*connection, "address space ended (sweep)");
      }
    });
  });
}

/// Gives back a place among the connections of a user.
void Broker::State::forget_connection_of(uid_t uid) {
  const auto of_uid = connections_of.find(uid);
  if (of_uid != connections_of.end() && --of_uid->second == 0) connections_of.erase(of_uid);
}

void Broker::State::drop(Connection& connection, const char* why, tandem_queue_state reason) {
  Event event;
  event.client = connection.client_number;
  event.pid = connection.owner;
  event.uid = connection.peer.uid;
  event.why = why;
  std::shared_ptr<uacce::Client> client = std::move(connection.client);
  if (connection.watch >= 0) {
    watched.erase(connection.watch);
    tokens.forget(connection.watch);
  }
  const auto account = account_of(connection);
  // A HELLO under way keeps the place, or connections could be had without end by not waiting.
  if (client != nullptr || !connection.busy) forget_connection_of(connection.peer.uid);
  // A client that sees its socket closed takes its buffers back: first its queues have to end.
  UniqueFd socket = std::move(connection.socket);
  ::epoll_ctl(epoll.get(), EPOLL_CTL_DEL, socket.get(), nullptr);
  connections.erase(connection.id);  // closes its other descriptors: epoll forgets them
  if (client != nullptr) {
    end_client(account, std::move(client), std::move(event), reason, std::move(socket));
  }
}

void Broker::State::end_client(std::uint32_t account, std::shared_ptr<uacce::Client> client,
                               Event event, tandem_queue_state reason, UniqueFd socket) {
  event.kind = Event::Kind::kEnded;
  const auto noticed = Clock::now();
  endings.run(account, [this, client = std::move(client), event = std::move(event), noticed, reason,
                        socket = std::make_shared<UniqueFd>(std::move(socket))]() mutable {
    const auto held = client->stats();
    event.pasid = client->pasid().value;
    event.queues = held.queues;
    const auto ended = client->disconnect(reason);
    event.reserved_bytes = ended.reserved_bytes_freed;
    event.reserved_kept = ended.reserved_bytes_kept;
    event.quarantined = ended.stuck;
    event.took = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - noticed);
    client.reset();
    socket->reset();
    tell(event);
  });
}

void Broker::State::handle(const epoll_event& event) {
  const std::uint64_t id = event.data.u64 >> 2;
  switch (event.data.u64 & 3) {
    case kSocket:
      if (Connection* connection = find(id)) {
        if ((event.events & EPOLLIN) != 0) {
          read_from(*connection);
        } else if ((event.events & (EPOLLHUP | EPOLLERR)) != 0) {
          drop(*connection, "closed its socket");
        }
      }
      return;
    case kPidfd:
      if (Connection* connection = find(id)) {
        ::epoll_ctl(epoll.get(), EPOLL_CTL_DEL, connection->pidfd.get(), nullptr);
        // Another process may share the memory (CLONE_VM): it lives on then.
        if (connection->reserved_only) return drop(*connection, kProcessEnded);
        confirm_end(*connection, kProcessEnded);
      }
      return;
    default:
      break;
  }
  if (id == kListener) return accept_all();
  if (id == kPosted) {
    drain_eventfd(posted_event.get());
    std::vector<std::function<void()>> ready;
    {
      const MutexLock lock(posted_mutex);
      ready.swap(posted);
    }
    for (const auto& done : ready) done();
    return;
  }
  if (id == kTokens) {
    const auto closed = tokens.take_closed();
    for (const int watch : closed.watches) {
      const auto found = watched.find(watch);
      Connection* connection = found == watched.end() ? nullptr : find(found->second);
      if (connection == nullptr) continue;
      if (connection->reserved_only) {
        drop(*connection, kSpaceEnded);
      } else {
        confirm_end(*connection, kSpaceEnded);
      }
    }
    if (closed.overflow) sweep();
  }
}

Result<std::unique_ptr<Broker>> Broker::create(Place place, Options options) {
  auto state = std::make_unique<State>();
  state->options = std::move(options);
  state->place = std::move(place);
  for (const Lane* lane : {&state->hellos, &state->requests, &state->endings}) {
    if (!lane->ready()) return errno_error(EAGAIN);
  }
  // A client costs a few descriptors; take what the system lets us have.
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  auto framework = uacce::Framework::create(state->options.framework);
  if (!framework) return Unexpected{framework.error()};
  state->framework = std::move(*framework);
  if (auto added = state->framework->add_device(engine::mem::make_engine("mem-0")); !added) {
    return Unexpected{added.error()};
  }
  if (auto added = state->framework->add_device(engine::comp::make_engine("comp-0")); !added) {
    return Unexpected{added.error()};
  }
  engine::kxo::Options games;
  games.threads = state->options.framework.engine_threads;
  if (auto added = state->framework->add_device(engine::kxo::make_engine("kxo", std::move(games)));
      !added) {
    return Unexpected{added.error()};
  }
  state->epoll = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  state->stop_event = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  state->posted_event = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  state->spare = UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!state->epoll || !state->stop_event || !state->posted_event || !state->spare) {
    return last_errno();
  }
  if (!state->watch_fd(state->place.fd(), word_of(kService, kListener)) ||
      !state->watch_fd(state->stop_event.get(), word_of(kService, kStop)) ||
      !state->watch_fd(state->posted_event.get(), word_of(kService, kPosted)) ||
      (state->tokens.fd() >= 0 &&
       !state->watch_fd(state->tokens.fd(), word_of(kService, kTokens)))) {
    return last_errno();
  }
  return std::unique_ptr<Broker>(new Broker(std::move(state)));
}

Broker::Broker(std::unique_ptr<State> state) : state_(std::move(state)) {}

Broker::~Broker() {
  while (!state_->connections.empty()) {
    state_->drop(*state_->connections.begin()->second, "broker stopped",
                 TANDEM_QUEUE_DEVICE_REMOVED);
  }
  // Those that run now may still post; nobody looks at it any more.
  const auto until = Clock::now() + std::chrono::seconds(10);
  bool stopped = true;
  for (Lane* lane : {&state_->hellos, &state_->requests, &state_->endings}) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now());
    stopped &= lane->stop(std::max(left, std::chrono::milliseconds(0)));
  }
  if (!stopped) {
    // An access to somebody's memory never returned; what its thread uses has to stay.
    [[maybe_unused]] State* kept = state_.release();
  }
}

void Broker::stop() noexcept { signal_eventfd(state_->stop_event.get()); }

uacce::Framework& Broker::framework() { return *state_->framework; }

Result<void> Broker::run() {
  State& state = *state_;
  state.next_sweep = Clock::now() + state.options.sweep_every;
  for (;;) {
    std::array<epoll_event, 64> events{};
    const auto sweep_in =
        std::chrono::ceil<std::chrono::milliseconds>(state.next_sweep - Clock::now());
    const int timeout =
        state.connections.empty() ? -1 : std::max(0, static_cast<int>(sweep_in.count()));
    const int count =
        ::epoll_wait(state.epoll.get(), events.data(), static_cast<int>(events.size()), timeout);
    if (count < 0 && errno != EINTR) return last_errno();
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      if (event.data.u64 == word_of(kService, kStop)) return {};
      state.handle(event);
    }
    if (Clock::now() >= state.next_sweep) {
      state.sweep();
      state.next_sweep = Clock::now() + state.options.sweep_every;
    }
  }
}

}  // namespace tandem::broker
