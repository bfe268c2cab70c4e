// SPDX-License-Identifier: Apache-2.0
/// The beginning of connections: accept(), HELLO, and the answer to it.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "apps/broker/requests.hpp"
#include "apps/broker/state.hpp"
#include "tandem/base/features.hpp"
#include "tandem/trace/trace.hpp"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

namespace tandem::broker {

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
    connections.emplace(connection->id, std::move(connection));
    ++of_uid;
  }
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
  connection.waits_since = Clock::now();
  using Bound = Result<std::unique_ptr<uacce::Client>>;
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
  run_on(
      hellos, account, connection.id, Bound(errno_error(ENOMEM)),
      [this, tenant, who, hello, mem, maps] {
        return bind_client(*framework, tenant, who.uid, hello, std::move(*mem), std::move(*maps));
      },
      [this, id = connection.id, account, who, header, version](Bound& bound) {
        if (find(id) != nullptr) return greet(id, header, version, std::move(bound));
        forget_connection_of(who.uid);
        if (bound) end_unmet(account, who, std::move(*bound));
      });
  connection.busy = true;
  listen_to(connection, false);
}

/// Ends the client of a connection that ended during its HELLO.
void Broker::State::end_unmet(std::uint32_t account, Event event,
                              std::shared_ptr<uacce::Client> client) {
  event.client = next_client++;
  event.why = "gone before the answer to its HELLO";
  UniqueFd none;
  end_client(account, client, none, std::move(event));
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

}  // namespace tandem::broker
