// SPDX-License-Identifier: Apache-2.0
/// The end of connections: what hints at it, who looks whether it is true, and what is given back.
#include <sys/epoll.h>

#include <memory>
#include <utility>
#include <vector>

#include "apps/broker/state.hpp"

namespace tandem::broker {

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

}  // namespace tandem::broker
