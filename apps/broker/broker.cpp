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
#include <string>
#include <utility>
#include <vector>

#include "apps/broker/requests.hpp"
#include "apps/broker/state.hpp"
#include "tandem/engine/comp/comp.hpp"
#include "tandem/engine/kxo/kxo.hpp"
#include "tandem/engine/mem/mem.hpp"

namespace tandem::broker {

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

void Broker::State::serve_on_lane(Connection& connection, const Incoming& incoming) {
  const auto body = incoming.body();
  run_on(
      requests, account_of(connection), connection.id, Outgoing(-ENOMEM),
      [this, client = connection.client, header = incoming.header(),
       bytes = std::vector<std::byte>(body.begin(), body.end())] {
        return serve(*framework, *client, header.type, bytes);
      },
      [this, id = connection.id, header = incoming.header()](const Outgoing& reply) {
        Connection* still = find(id);
        if (still == nullptr) return;
        still->busy = false;
        listen_to(*still, true);
        reply_or_drop(*still, header, reply);
      });
  connection.busy = true;
  listen_to(connection, false);
}

void Broker::State::reply_or_drop(Connection& connection, const tandem_message_header& header,
                                  const Outgoing& reply) {
  if (!send_reply(connection.socket.get(), header, reply)) {
    drop(connection, "did not read its replies");
  } else if (connection.over_limit) {
    drop(connection, "too many connections of this user");
  }
}

void Broker::State::handle(const epoll_event& event) noexcept {
  const std::uint64_t id = event.data.u64 >> 2;
  switch (event.data.u64 & 3) {
    case kSocket:
      return at_the_cost_of(id, [&] {
        Connection* const connection = find(id);
        if (connection == nullptr) return;
        if ((event.events & EPOLLIN) != 0) {
          read_from(*connection);
        } else if ((event.events & (EPOLLHUP | EPOLLERR)) != 0) {
          drop(*connection, "closed its socket");
        }
      });
    case kPidfd:
      return at_the_cost_of(id, [&] {
        Connection* const connection = find(id);
        if (connection == nullptr) return;
        ::epoll_ctl(epoll.get(), EPOLL_CTL_DEL, connection->pidfd.get(), nullptr);
        // Another process may share the memory (CLONE_VM): it lives on then.
        if (connection->reserved_only) return drop(*connection, kProcessEnded);
        confirm_end(*connection, kProcessEnded);
      });
    default:
      break;
  }
  if (id == kListener) return at_the_cost_of(kNobody, [&] { accept_all(); });
  if (id == kPosted) return run_posts();
  if (id == kTokens) return at_the_cost_of(kNobody, [&] { handle_tokens(); });
}

void Broker::State::run_posts() noexcept {
  drain_eventfd(posted_event.get());
  Posts ready;
  {
    const MutexLock lock(posted_mutex);
    ready.swap(posted);
  }
  for (const Post& post : ready) at_the_cost_of(post.connection, post.run);
}

void Broker::State::handle_tokens() {
  const auto closed = tokens.take_closed();
  for (const int watch : closed.watches) {
    const auto found = watched.find(watch);
    if (found == watched.end()) continue;
    at_the_cost_of(found->second, [&, id = found->second] {
      Connection* const connection = find(id);
      if (connection == nullptr) return;
      if (connection->reserved_only) return drop(*connection, kSpaceEnded);
      confirm_end(*connection, kSpaceEnded);
    });
  }
  if (closed.overflow) sweep();
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
    state_->at_the_cost_of(kNobody, [&] {  // again, until there is memory
      state_->drop(*state_->connections.begin()->second, "broker stopped",
                   TANDEM_QUEUE_DEVICE_REMOVED);
    });
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
      state.at_the_cost_of(kNobody, [&] { state.sweep(); });
      state.next_sweep = Clock::now() + state.options.sweep_every;
    }
  }
}

}  // namespace tandem::broker
