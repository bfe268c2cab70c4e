// SPDX-License-Identifier: Apache-2.0
/// The end of connections: what hints at it, who looks whether it is true, and what is given back.
#include <sys/epoll.h>

#include <memory>
#include <new>
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
  run_on(
      endings, account_of(connection), connection.id, /*outcome=*/true,
      [client = connection.client] { return client->alive(); },
      [this, id = connection.id](bool alive) {
        Connection* still = find(id);
        if (still == nullptr) return;
        if (!alive) return drop(*still, still->doubt);
        if (std::exchange(still->doubt_again, false)) return look_whether_alive(*still);
        still->doubt = nullptr;
      });
}

void Broker::State::sweep() {
  const auto now = Clock::now();
  std::vector<std::uint64_t> late, doomed;
  std::vector<std::pair<std::uint64_t, std::shared_ptr<uacce::Client>>> clients;
  for (const auto& [id, connection] : connections) {
    if (connection->doomed) {
      doomed.push_back(id);
    } else if (connection->client != nullptr) {
      clients.emplace_back(id, connection->client);
    } else if (now - connection->waits_since > options.hello_within) {
      late.push_back(id);
    }
  }
  for (const std::uint64_t id : doomed) doom(id);
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
  run_on(
      endings, static_cast<std::uint32_t>(-1), kNobody, std::vector<std::uint64_t>(),
      [clients = std::move(clients)] {
        std::vector<std::uint64_t> dead;
        for (const auto& [id, client] : clients) {
          if (!client->alive()) dead.push_back(id);
        }
        return dead;
      },
      [this](const std::vector<std::uint64_t>& dead) {
        --sweeps_running;
        for (const std::uint64_t id : dead) {
          at_the_cost_of(id, [&] {
            if (Connection* connection = find(id)) drop(*connection, "address space ended (sweep)");
          });
        }
      });
  ++sweeps_running;
}

/// Gives back a place among the connections of a user.
void Broker::State::forget_connection_of(uid_t uid) {
  const auto of_uid = connections_of.find(uid);
  if (of_uid != connections_of.end() && --of_uid->second == 0) connections_of.erase(of_uid);
}

/// Not listened to from now on. Where not even its end can be had, the sweep tries again.
void Broker::State::doom(std::uint64_t id) noexcept {
  Connection* const connection = find(id);
  if (connection == nullptr) return;
  if (!std::exchange(connection->doomed, true)) {
    ::epoll_ctl(epoll.get(), EPOLL_CTL_DEL, connection->socket.get(), nullptr);
  }
  try {
    drop(*connection, "there was no memory for it");
  } catch (const std::bad_alloc&) {
  }
}

void Broker::State::drop(Connection& connection, const char* why, tandem_queue_state reason) {
  ::epoll_ctl(epoll.get(), EPOLL_CTL_DEL, connection.socket.get(), nullptr);
  const bool bound = connection.client != nullptr;
  if (bound) {
    Event event;
    event.client = connection.client_number;
    event.pid = connection.owner;
    event.uid = connection.peer.uid;
    event.why = why;
    end_client(account_of(connection), connection.client, connection.socket, std::move(event),
               reason);  // the last that may fail
  }
  if (connection.watch >= 0) {
    watched.erase(connection.watch);
    tokens.forget(connection.watch);
  }
  // A HELLO under way keeps the place, or connections could be had without end by not waiting.
  if (bound || !connection.busy) forget_connection_of(connection.peer.uid);
  connections.erase(connection.id);  // closes its other descriptors: epoll forgets them
}

/// A client that sees its socket closed takes its buffers back: first its queues have to end.
void Broker::State::end_client(std::uint32_t account, std::shared_ptr<uacce::Client>& client,
                               UniqueFd& socket, Event event, tandem_queue_state reason) {
  struct Ending {
    std::shared_ptr<uacce::Client> client;
    UniqueFd socket;
    Event event;
  };
  event.kind = Event::Kind::kEnded;
  const auto noticed = Clock::now();
  const auto ending = std::make_shared<Ending>();
  ending->client = std::move(client);
  ending->socket = std::move(socket);
  ending->event = std::move(event);
  try {
    endings.run(account, [this, ending, noticed, reason] {
      Event& told = ending->event;
      told.pasid = ending->client->pasid().value;
      try {
        told.queues = ending->client->stats().queues;
      } catch (const std::bad_alloc&) {  // not told
      }
      const auto ended = ending->client->disconnect(reason);
      told.reserved_bytes = ended.reserved_bytes_freed;
      told.reserved_kept = ended.reserved_bytes_kept;
      told.quarantined = ended.stuck;
      told.took = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - noticed);
      ending->client.reset();
      ending->socket.reset();
      tell(told);
    });
  } catch (const std::bad_alloc&) {
    client = std::move(ending->client);
    socket = std::move(ending->socket);
    throw;
  }
}

}  // namespace tandem::broker
