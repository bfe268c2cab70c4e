// SPDX-License-Identifier: Apache-2.0
/// Seeded rounds of tenants that fork, exec, die and go on, and a checker outside of them.
///
/// Each round is one tenant process on a broker that all rounds share. The tenant notes in memory
/// shared with the checker which tags it is about to send and which it received; it may fork a
/// child that goes on with the same queue under tags of its own, exec, or be killed. Afterwards the
/// checker holds: no tag came back twice, none came back that was not sent; every process that was
/// neither killed nor replaced by exec ran to its end and received each of its tags; and the broker
/// has no client left over.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>

#include "apps/broker_process/broker_process.hpp"
#include "tandem/wd/wd.h"

namespace tandem {
namespace {

constexpr unsigned kProcesses = 3;  // a tenant, its child, its grandchild
constexpr unsigned kTags = 128;     // per process
constexpr unsigned kBytes = 512;

/// What processes of one round tell the checker. Written by them, read by it after they ended.
struct Ledger {
  struct Process {
    std::atomic<std::uint8_t> sent[kTags];
    std::atomic<std::uint8_t> received[kTags];
    std::atomic<std::uint8_t> lost[kTags];  ///< came back with DEVICE_LOST
    std::atomic<std::uint32_t> started;     ///< 1: exists
    std::atomic<std::uint32_t> replaced;    ///< 1: about to exec
    std::atomic<std::uint32_t> finished;    ///< 1: ran to its end, nothing in flight
    std::atomic<std::uint32_t> failed_at;   ///< line of a call that failed
    std::atomic<std::uint32_t> wrong;       ///< results that were not what was asked
  } process[kProcesses];
};

struct Plan {
  unsigned requests[kProcesses];    ///< how many each sends
  unsigned fork_after[kProcesses];  ///< requests before it forks the next; ≥ kTags: never
  unsigned exec_after;              ///< of the tenant; ≥ kTags: never
  bool heap;
};

unsigned rounds_from_environment() {
  const char* text = std::getenv("TANDEM_CHAOS_ROUNDS");
  return text == nullptr ? 10'000 : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

/// When to stop whatever the number of rounds: the soak test goes by time.
std::chrono::steady_clock::time_point deadline_from_environment() {
  const char* text =
      std::getenv("TANDEM_CHAOS_SOAK") != nullptr ? std::getenv("TANDEM_SOAK_SECONDS") : nullptr;
  if (text == nullptr) return std::chrono::steady_clock::time_point::max();
  return std::chrono::steady_clock::now() + std::chrono::seconds(std::strtol(text, nullptr, 10));
}

std::uint64_t seed_from_environment() {
  const char* text = std::getenv("TANDEM_SEED");
  return text == nullptr ? std::random_device{}() : std::strtoull(text, nullptr, 10);
}

/// One process of a round: sends its requests, several in flight, and notes what comes back.
class Tenant {
 public:
  Tenant(Ledger& ledger, const Plan& plan) : ledger_(ledger), plan_(plan) {}

  [[noreturn]] void live() {
    if (wd_open(&queue_, "memory") != 0) fail(__LINE__);
    std::byte* pool = memory_;
    if (!plan_.heap) {
      pool = static_cast<std::byte*>(wd_reserve_memory(&queue_, sizeof memory_));
      if (pool == nullptr) fail(__LINE__);
    }
    run(pool);
  }

 private:
  [[noreturn]] void fail(std::uint32_t line) {
    ledger_.process[self_].failed_at.store(line);
    ::_exit(1);
  }

  [[noreturn]] void run(std::byte* pool) {
    ledger_.process[self_].started.store(1);
    const unsigned total = plan_.requests[self_];
    unsigned next = 0;
    for (unsigned done = 0; done < total;) {
      while (next < total && wd_in_flight(&queue_) < 16) {
        if (next == plan_.exec_after && self_ == 0) {
          ledger_.process[self_].replaced.store(1);
          ::execl("/bin/true", "true", nullptr);
          fail(__LINE__);
        }
        if (next == plan_.fork_after[self_] && self_ + 1 < kProcesses && ::fork() == 0) {
          // The child goes on with the same queue; what is in flight is the parent's.
          ++self_;
          run(memory_);
        }
        send(pool, next++);
      }
      wd_request* back = nullptr;
      const int got = wd_recv_sync(&queue_, &back);
      if (got != 1) fail(__LINE__);
      note(pool, *back);
      ++done;
    }
    auto& mine = ledger_.process[self_];
    wd_request* extra = nullptr;
    if (wd_recv(&queue_, &extra) == 1) mine.wrong.fetch_add(1);
    mine.finished.store(1);
    wd_release_queue(&queue_);
    // Nobody stays a zombie past the round's end: init or the checker's subreaper collects.
    ::_exit(0);
  }

  void send(std::byte* pool, unsigned tag) {
    wd_request& request = requests_[tag];
    request = {};
    request.opcode = WD_OP_FILL;
    request.dst = pool + std::size_t{tag} * kBytes;
    request.dst_len = kBytes;
    request.operand = 0x0101010101010101u * (tag + 1);
    request.user = &request;
    ledger_.process[self_].sent[tag].store(1);
    if (wd_send(&queue_, &request) != 0) fail(__LINE__);
  }

  void note(std::byte* pool, const wd_request& request) {
    auto& mine = ledger_.process[self_];
    const auto tag = static_cast<unsigned>(&request - requests_);
    mine.received[tag].fetch_add(1);
    if (request.status == TANDEM_STATUS_DEVICE_LOST) {
      mine.lost[tag].store(1);
      return;
    }
    const auto expected = static_cast<std::byte>(tag + 1);
    const std::byte* at = pool + std::size_t{tag} * kBytes;
    if (request.status != TANDEM_STATUS_OK || at[0] != expected || at[kBytes - 1] != expected) {
      mine.wrong.fetch_add(1);
    }
  }

  Ledger& ledger_;
  const Plan plan_;
  unsigned self_ = 0;
  wd_queue queue_ = WD_QUEUE_INIT;
  wd_request requests_[kTags] = {};
  alignas(4096) std::byte memory_[kTags * kBytes] = {};
};

class Chaos : public testing::Test {
 protected:
  void SetUp() override {
    void* at =
        ::mmap(nullptr, sizeof(Ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(at, MAP_FAILED);
    ledger_ = static_cast<Ledger*>(at);
  }

  Plan plan() {
    Plan made{};
    for (unsigned i = 0; i < kProcesses; ++i) {
      made.requests[i] = 1 + static_cast<unsigned>(random() % (kTags - 1));
      made.fork_after[i] = random() % 3 == 0 ? static_cast<unsigned>(random() % kTags) : kTags;
    }
    made.exec_after = random() % 5 == 0 ? static_cast<unsigned>(random() % kTags) : kTags;
    made.heap = random() % 2 == 0;
    return made;
  }

  std::uint64_t random() { return engine_(); }

  /// `survivor`: the first process that nobody killed; those after it were not killed either.
  void check(unsigned round, unsigned survivor) {
    for (unsigned number = 0; number < kProcesses; ++number) {
      const auto& process = ledger_->process[number];
      ASSERT_EQ(process.wrong.load(), 0u) << "round " << round;
      ASSERT_EQ(process.failed_at.load(), 0u) << "process " << number << ", round " << round;
      if (number >= survivor && process.started.load() == 1 && process.replaced.load() == 0) {
        ASSERT_EQ(process.finished.load(), 1u) << "process " << number << ", round " << round;
      }
      for (unsigned tag = 0; tag < kTags; ++tag) {
        const unsigned sent = process.sent[tag];
        const unsigned received = process.received[tag];
        ASSERT_LE(received, sent) << "tag " << tag << " came back too often, round " << round;
        if (process.finished.load() == 1) {
          ASSERT_EQ(received, sent) << "tag " << tag << " was lost, round " << round;
          ASSERT_EQ(process.lost[tag].load(), 0) << "the broker lives, round " << round;
        }
      }
    }
  }

  Ledger* ledger_ = nullptr;
  std::uint64_t seed_ = seed_from_environment();
  std::mt19937_64 engine_{seed_};
};

TEST_F(Chaos, EveryRequestComesBackOnceThroughForksKillsAndExecs) {
  const auto broker = broker::BrokerProcess::start({}).value();
  const auto end = deadline_from_environment();
  const unsigned rounds =
      end == std::chrono::steady_clock::time_point::max() ? rounds_from_environment() : ~0u;
  std::fprintf(stderr, "TANDEM_SEED=%llu, %u rounds\n", static_cast<unsigned long long>(seed_),
               rounds);
  unsigned killed = 0;
  for (unsigned round = 0;
       round < rounds && !HasFatalFailure() && std::chrono::steady_clock::now() < end; ++round) {
    std::memset(static_cast<void*>(ledger_), 0, sizeof(Ledger));
    const Plan today = plan();
    const bool kill = random() % 3 == 0;
    const auto delay = std::chrono::microseconds(random() % 3000);
    // A process group collects the whole round; the pipe closes when its last process ended.
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const pid_t tenant = ::fork();
    if (tenant == 0) {
      ::setpgid(0, 0);
      static Tenant self(*ledger_, today);
      self.live();
    }
    ::setpgid(tenant, tenant);
    ::close(ends[1]);
    unsigned survivor = 0;
    if (kill) {
      const bool alone = random() % 2 == 0;
      std::this_thread::sleep_for(delay);
      if (::kill(alone ? tenant : -tenant, SIGKILL) == 0) ++killed;
      survivor = alone ? 1 : kProcesses;
    }
    int status = 0;
    ASSERT_EQ(::waitpid(tenant, &status, 0), tenant);
    char byte = 0;
    while (::read(ends[0], &byte, 1) < 0 && errno == EINTR) {
    }
    ::close(ends[0]);
    if (!kill) {
      ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
          << "tenant ended with " << status << ", round " << round;
    }
    check(round, survivor);
  }
  RecordProperty("killed", static_cast<int>(killed));

  // The broker outlived them all, and nobody is left: only our own connection counts.
  wd_device device{};
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  do {
    ASSERT_GE(wd_list_devices(WD_PATH_BROKER, &device, 1), 1);
    if (device.clients <= 1 && device.queues_used == 0) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  } while (std::chrono::steady_clock::now() < deadline);
  EXPECT_LE(device.clients, 1u);
  EXPECT_EQ(device.queues_used, 0u);
}

}  // namespace
}  // namespace tandem
