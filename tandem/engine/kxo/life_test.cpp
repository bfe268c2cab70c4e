// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <random>

#include "tandem/engine/kxo/test_bench.hpp"

namespace tandem::engine::kxo {
namespace {

using detail::User;

/// Users are freed when nobody can be looking at them any more.
void expect_all_freed(TestDevice& device) {
  await([&] {
    rcu::rcu_barrier();
    return device.device().objects() == 0;
  });
  EXPECT_EQ(device.device().live(), 0u);
}

/// How often what comes and goes does so; the soak test's number is a million.
std::uint32_t rounds(std::uint32_t usual) {
  const char* const text = std::getenv("TANDEM_KXO_ROUNDS");
  return text == nullptr ? usual : static_cast<std::uint32_t>(std::strtoul(text, nullptr, 10));
}

/// The soak test's time, in halves: two tests share it.
std::chrono::seconds at_most() {
  const char* const text = std::getenv("TANDEM_SOAK_SECONDS");
  return std::chrono::seconds(text == nullptr ? 3600 : std::strtol(text, nullptr, 10) / 2);
}

std::size_t resident_pages() {
  std::size_t size = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> size >> resident;
  return resident;
}

/// Runs `round` that often, or for the soak's time; the memory in use after the first rounds is
/// what is in use in the end.
void expect_flat(std::uint32_t count, const std::function<void(std::uint32_t)>& round) {
  std::size_t before = 0;
  const auto end = std::chrono::steady_clock::now() + at_most();
  std::uint32_t i = 0;
  for (; i < count && std::chrono::steady_clock::now() < end; ++i) {
    if (i == std::min(count / 10, 5000U)) before = resident_pages();
    round(i);
  }
  std::printf("%u rounds; resident pages: %zu, then %zu\n", i, before, resident_pages());
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  constexpr std::size_t kSlack = 4096;  // 16 MiB: as much as may wait for a grace period
  EXPECT_LE(resident_pages(), before + kSlack);
#endif
}

TEST(Life, AUserIsNotFreedUnderAMove) {
  TestDevice device;
  TestClient client(device);
  const auto wanted = client.setup(kAtTheGate, 0);
  const std::uint64_t id = client.add(wanted);
  device.agents->gate.await(1);
  EXPECT_EQ(client.release(id), TANDEM_STATUS_OK);
  rcu::rcu_barrier();
  EXPECT_EQ(device.device().objects(), 1u);
  device.agents->gate.open();
  expect_all_freed(device);
  EXPECT_EQ(client.published(wanted), 0u);
}

TEST(Life, AUserIsNotFreedUnderALookUp) {
  TestDevice device;
  TestClient client(device);
  const std::uint64_t id = client.add(client.setup(0, 0));
  {
    const std::scoped_lock section(rcu::rcu_default_domain());
    const User* const found = device.device().users().find(id);
    ASSERT_NE(found, nullptr);
    std::thread([&] {
      EXPECT_EQ(client.release(id), TANDEM_STATUS_OK);
      // Others come and go meanwhile.
      for (int i = 0; i < 10; ++i) {
        const std::uint64_t other = client.add(client.setup(0, 0));
        EXPECT_EQ(client.release(other), TANDEM_STATUS_OK);
      }
    }).join();
    EXPECT_GE(device.device().objects(), 1u);
    EXPECT_EQ(found->id(), id);
  }
  expect_all_freed(device);
}

TEST(Life, NothingIsPublishedForAnOwnerThatStopped) {
  TestDevice device;
  auto client = std::make_unique<TestClient>(device);
  const auto thinking = client->setup(kAtTheGate, 0);
  (void)client->add(thinking);
  device.agents->gate.await(1);
  client->session().stop();
  EXPECT_EQ(client->get_id(client->setup(0, 0)).status, TANDEM_STATUS_DEVICE_LOST);
  client->close();
  const std::uint64_t before = client->progress(thinking);
  device.agents->gate.open();
  expect_all_freed(device);
  EXPECT_EQ(client->progress(thinking), before);
}

TEST(Life, StopComesFromSeveralThreadsAtOnce) {
  TestDevice device;
  TestClient client(device);
  for (int i = 0; i < 200; ++i) (void)client.add(client.setup(kFirstFree, kLastFree));
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) threads.emplace_back([&] { client.session().stop(); });
  for (auto& thread : threads) thread.join();
  expect_all_freed(device);
}

TEST(Life, AnAccountGoesWithItsDevice) {
  for (int i = 0; i < 20; ++i) {  // in most the pool ends before it has looked at the tenant
    std::weak_ptr<detail::Account> account;
    {
      TestDevice device;
      TestClient client(device, 1);
      account = device.device().account_of(1);
      for (int user = 0; user < 3; ++user) (void)client.add(client.setup(kSlow, kSlow));
    }
    rcu::rcu_barrier();
    ASSERT_TRUE(account.expired()) << i;
  }
}

TEST(Life, QuotasOfOwnerTenantAndDevice) {
  Options options;
  options.threads = 0;
  options.users_per_owner = 4;
  options.users_per_tenant = 6;
  options.users = 8;
  TestDevice device(options);
  TestClient first(device, 1, 0), second(device, 1, 100), third(device, 2, 200);
  const auto fill = [](TestClient& client) {
    std::vector<std::uint64_t> ids;
    for (;;) {
      const auto made = client.get_id(client.setup(0, 0));
      if (made.status != TANDEM_STATUS_OK) {
        EXPECT_EQ(made.status, TANDEM_STATUS_NO_ROOM);
        return ids;
      }
      ids.push_back(made.result);
    }
  };
  const auto mine = fill(first);
  EXPECT_EQ(mine.size(), 4u);
  EXPECT_EQ(fill(second).size(), 2u);
  EXPECT_EQ(fill(third).size(), 2u);
  EXPECT_EQ(first.release(mine[0]), TANDEM_STATUS_OK);
  EXPECT_EQ(fill(third).size(), 1u);
  second.close();
  EXPECT_EQ(fill(first).size(), 1u);
}

TEST(Life, IdsThatComeAndGoLeaveNothingBehind) {
  TestDevice device;
  TestClient client(device);
  const auto wanted = client.setup(kFirstFree, kLastFree);
  expect_flat(rounds(5000), [&](std::uint32_t) {
    const std::uint64_t id = client.add(wanted);
    ASSERT_EQ(client.release(id), TANDEM_STATUS_OK);
  });
  expect_all_freed(device);
}

TEST(Life, QueuesThatComeAndGoLeaveNothingBehind) {
  TestDevice device;
  expect_flat(rounds(500), [&](std::uint32_t i) {
    TestClient client(device, i);  // each time another tenant
    for (int user = 0; user < 4; ++user) (void)client.add(client.setup(kFirstFree, 0));
  });
  expect_all_freed(device);
}

/// What random clients do to boards of theirs while the pool plays.
void live(TestDevice& device, std::uint32_t number, int rounds, std::uint32_t seed) {
  struct Board {
    std::uint64_t id;
    tandem_kxo_setup wanted;
    Referee referee{};
    std::uint32_t taken = 0;
  };
  std::mt19937 random(seed + number);
  auto client = std::make_unique<TestClient>(device, number % 2, number * 2000);
  std::vector<Board> boards;
  const auto player = [&] {
    static constexpr std::uint8_t kPlayers[] = {TANDEM_KXO_USER, kFirstFree, kLastFree};
    return kPlayers[random() % 3];
  };
  const auto follow = [&](Board& board) {
    const std::uint32_t published = client->published(board.wanted);
    ASSERT_LE(published - board.taken, TestClient::kCapacity);
    for (; board.taken != published; ++board.taken) {
      ASSERT_TRUE(board.referee.check(board.taken, client->move(board.wanted, board.taken)));
    }
    if (client->take(board.wanted, board.taken)) {
      ASSERT_EQ(client->run(TANDEM_OP_KXO_RESUME, board.id).status, TANDEM_STATUS_OK);
    }
  };
  for (int i = 0; i < rounds; ++i) {
    if (boards.size() < 8) {
      const auto wanted = client->setup(player(), player());
      boards.push_back({client->add(wanted), wanted});
    }
    Board& board = boards[random() % boards.size()];
    switch (random() % 8) {
      case 0:
        ASSERT_EQ(client->set_players(board.id, player(), player()), TANDEM_STATUS_OK);
        break;
      case 1:  // is not what anybody wants, but no harm
        (void)client->write(board.id, static_cast<std::uint32_t>(random() % 17));
        break;
      case 2:
        if (random() % 8 == 0) {
          ASSERT_EQ(client->release(board.id), TANDEM_STATUS_OK);
          board = boards.back();
          boards.pop_back();
        }
        break;
      case 3:
        if (random() % 64 == 0) {  // dies, and another one comes
          boards.clear();
          client = std::make_unique<TestClient>(device, number % 2, number * 2000);
        }
        break;
      default:
        follow(board);
    }
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(Life, StressNoMoveIsLostOrDoubled) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  Options options;
  options.threads = 2;
  TestDevice device(options);
  std::vector<std::thread> clients;
  for (std::uint32_t i = 0; i < 3; ++i) {
    clients.emplace_back([&, i] { live(device, i, 6000, seed); });
  }
  for (auto& client : clients) client.join();
  expect_all_freed(device);
}

}  // namespace
}  // namespace tandem::engine::kxo
