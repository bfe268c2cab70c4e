// SPDX-License-Identifier: Apache-2.0
/// Two threads look routes up while a third replaces the table again and again; nobody waits.
#include <array>
#include <atomic>
#include <cstdio>
#include <mutex>
#include <thread>

#include "tandem/rcu/rcu.hpp"
namespace r = tandem::rcu;

namespace {

constexpr int kTables = 10000;

std::atomic<int> deleted{0};

/// Immutable once it is published.
struct Routes : r::rcu_obj_base<Routes> {
  explicit Routes(int version) { port.fill(version); }
  ~Routes() {
    port.fill(-1);
    ++deleted;
  }
  std::array<int, 256> port{};
};

std::atomic<Routes*> routes{new Routes(0)};

/// A packet's two look-ups see one table, and one that is whole.
bool route_packet(unsigned from, unsigned to) {
  const std::scoped_lock section(r::rcu_default_domain());
  const Routes& now = *routes.load(std::memory_order_acquire);
  return now.port[from % 256] >= 0 && now.port[from % 256] == now.port[to % 256];
}

}  // namespace

int main() {
  std::atomic<bool> stop{false};
  std::atomic<long> packets{0};
  std::atomic<long> wrong{0};
  const auto forward = [&] {
    for (unsigned i = 0; !stop; ++i) {
      if (!route_packet(i, 7 * i)) ++wrong;
      packets.fetch_add(1, std::memory_order_relaxed);
    }
  };
  std::thread first(forward);
  std::thread second(forward);
  for (int version = 1; version <= kTables; ++version) {
    Routes* const old = routes.exchange(new Routes(version), std::memory_order_acq_rel);
    old->retire();  // deleted once nobody looks into it any more
  }
  stop = true;
  first.join();
  second.join();
  r::rcu_barrier();
  delete routes.load();
  std::printf("%d tables replaced under %ld packets; %ld saw a table that was not whole\n", kTables,
              packets.load(), wrong.load());
  return wrong == 0 && deleted == kTables + 1 ? 0 : 1;
}
