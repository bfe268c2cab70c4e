// SPDX-License-Identifier: Apache-2.0
/// `tandem bench ring`: what a queue costs, next to what people would use instead. The client runs
/// on one CPU, the broker's engine thread on another; so do the two sides of every peer.
#include <fmt/format.h>
#include <oneapi/tbb/version.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <asio/version.hpp>
#include <boost/version.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <stdexcept>
#include <thread>

#include "apps/broker_process/broker_process.hpp"
#include "bench/harness.hpp"
#include "bench/ring_peers.hpp"
#include "tandem/base/cpu.hpp"
#include "tandem/wd/wd.h"

namespace tandem::bench {
namespace {

/// A queue of the broker's "memory" device.
class Ring {
 public:
  /// depth: of its rings; 0 for what the library takes.
  explicit Ring(std::uint32_t depth = 0) {
    queue_.depth = depth;
    queue_.algorithm = "memory";
    queue_.path = WD_PATH_BROKER;
    if (const int error = wd_request_queue(&queue_); error != 0) {
      throw std::runtime_error(fmt::format("cannot open a queue: {}", wd_strerror(error)));
    }
    pool_ = static_cast<std::byte*>(wd_reserve_memory(&queue_, 2u << 20));
    if (pool_ == nullptr) throw std::runtime_error("cannot reserve memory");
  }
  ~Ring() { wd_release_queue(&queue_); }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  std::byte* pool() const { return pool_; }
  static wd_request nop() {
    wd_request request{};
    request.opcode = WD_OP_NOP;
    return request;
  }
  static wd_request copy(std::byte* to, const std::byte* from, std::size_t size_bytes) {
    wd_request request{};
    request.opcode = WD_OP_COPY;
    request.src = from;
    request.dst = to;
    request.src_len = request.dst_len = static_cast<std::uint32_t>(size_bytes);
    return request;
  }

  /// Nanoseconds for each of `rounds` requests sent and received one by one, engine awake.
  double round_trips(int rounds, wd_request request) {
    pin_thread(0);
    const Awake awake(queue_);
    for (int i = 0; i < 1000; ++i) round_trip(request);
    const auto start = now_ns();
    for (int i = 0; i < rounds; ++i) round_trip(request);
    return static_cast<double>(now_ns() - start) / rounds;
  }

  /// Nops a second, 32 to a doorbell.
  double nops_per_second(int count) {
    pin_thread(0);
    const Awake awake(queue_);
    stream(10'000);
    const auto start = now_ns();
    stream(count);
    return count * 1e9 / static_cast<double>(now_ns() - start);
  }

  /// Nanoseconds of a round trip to an engine that has been left alone for `idle_us`.
  double wakes(int rounds, int idle_us) {
    pin_thread(0);
    wd_request request = nop();
    double total = 0;
    for (int i = 0; i < rounds; ++i) {
      std::this_thread::sleep_for(std::chrono::microseconds(idle_us));
      const auto start = now_ns();
      round_trip(request);
      total += static_cast<double>(now_ns() - start);
    }
    return total / rounds;
  }

 private:
  struct Awake {
    explicit Awake(wd_queue& held) : queue(held) { wd_keep_awake(&queue, 1); }
    ~Awake() { wd_keep_awake(&queue, 0); }
    wd_queue& queue;
  };

  void round_trip(wd_request& request) {
    wd_request* back = nullptr;
    if (wd_send(&queue_, &request) != 0) throw std::runtime_error("send failed");
    int got = 0;
    while ((got = wd_recv(&queue_, &back)) == -EAGAIN) cpu_pause();
    if (got != 1 || back->status != TANDEM_STATUS_OK) throw std::runtime_error("request failed");
  }

  void stream(int count) {
    constexpr unsigned kBatch = 32;
    constexpr unsigned kInFlight = 128;
    std::array<wd_request, kInFlight> requests{};
    std::array<wd_request*, kInFlight> free{};
    unsigned free_count = 0;
    for (auto& request : requests) {
      request = nop();
      free[free_count++] = &request;
    }
    for (int sent = 0, received = 0; received < count;) {
      while (free_count >= kBatch && sent < count) {
        if (wd_send_batch(&queue_, free.data() + (free_count - kBatch), kBatch) != kBatch) {
          throw std::runtime_error("batch not taken");
        }
        free_count -= kBatch;
        sent += kBatch;
      }
      const int got = wd_recv_batch(&queue_, free.data() + free_count, kInFlight - free_count);
      if (got > 0) {
        free_count += static_cast<unsigned>(got);
        received += got;
      } else {
        cpu_pause();
      }
    }
  }

  wd_queue queue_ = WD_QUEUE_INIT;
  std::byte* pool_ = nullptr;
};

/// What the cases share; lives as long as they do.
struct World {
  std::unique_ptr<broker::BrokerProcess> broker =
      broker::BrokerProcess::start({.cpu = cpu_at(1)}).value();
  Ring ring;
  // So shallow that its lines pass back and forth, as the peer's do, instead of taking turns.
  Ring shallow{4};
};

/// Percent of a core that a broker uses while `clients` processes hold a queue and do nothing.
double idle_clients(int clients, std::chrono::seconds length) {
  const auto broker = broker::BrokerProcess::start({}).value();
  std::vector<pid_t> children;
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0) throw std::runtime_error("cannot make a pipe");
  for (int i = 0; i < clients; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      wd_queue queue = WD_QUEUE_INIT;
      const bool opened = wd_open(&queue, "memory") == 0;
      wd_request request = Ring::nop();
      wd_request* back = nullptr;
      const bool worked =
          opened && wd_send(&queue, &request) == 0 && wd_recv_sync(&queue, &back) == 1;
      const char byte = worked ? 'y' : 'n';
      if (::write(ends[1], &byte, 1) != 1) ::_exit(1);
      for (;;) ::pause();
    }
    children.push_back(child);
  }
  bool all = true;
  for (int i = 0; i < clients; ++i) {
    char byte = 0;
    all &= ::read(ends[0], &byte, 1) == 1 && byte == 'y';
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  const double before = broker->cpu_seconds();
  std::this_thread::sleep_for(length);
  const double used = broker->cpu_seconds() - before;
  for (const pid_t child : children) {
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
  }
  ::close(ends[0]);
  ::close(ends[1]);
  if (!all) throw std::runtime_error("an idle client could not use its queue");
  return 100 * used / static_cast<double>(length.count());
}

std::vector<Case> cases(const Options& options) {
  using Target = Case::Target;
  const int scale = options.quick ? 1 : 5;
  const auto seconds = std::chrono::seconds(options.quick ? 3 : 10);
  std::vector<Case> list;
  list.push_back({.name = "ring/idle-clients:100",
                  .unit = "%",
                  .peer_name = "",
                  .target = Target::kAtMost,
                  .limit = 0.5,
                  .ours = [seconds] { return idle_clients(100, seconds); },
                  .peer = {},
                  .samples = 1});

  const auto world = std::make_shared<World>();
  const std::string boost = fmt::format("boost {}", BOOST_LIB_VERSION);
  list.push_back({.name = "ring/nop-round-trip",
                  .unit = "ns",
                  .peer_name = "two threads passing the same cache lines",
                  .target = Target::kAtMostRatio,
                  .limit = 1.3,
                  .ours = [=] { return world->shallow.round_trips(20'000 * scale, Ring::nop()); },
                  .peer = [=] { return line_ping_pong(20'000 * scale, 1); }});
  list.push_back({.name = "ring/nop-round-trip/depth:256",
                  .unit = "ns",
                  .peer_name = "two threads passing lines, 256 of them in turn",
                  .target = Target::kAtMostRatio,
                  .limit = 1.3,
                  .ours = [=] { return world->ring.round_trips(20'000 * scale, Ring::nop()); },
                  .peer = [=] { return line_ping_pong(20'000 * scale, 256); }});
  list.push_back({.name = "ring/nops/batch:32",
                  .unit = "op/s",
                  .peer_name = boost + " lockfree::spsc_queue, 64-byte items, 32 at a time",
                  .higher_is_better = true,
                  .target = Target::kAtLeastRatio,
                  .limit = 0.7,
                  .ours = [=] { return world->ring.nops_per_second(640'000 * scale); },
                  .peer = [=] { return spsc_stream(640'000 * scale); }});
  list.push_back({.name = "ring/nops/batch:32/bare",
                  .unit = "op/s",
                  .peer_name = "two threads with rings of the same layout and nothing else",
                  .higher_is_better = true,
                  .target = Target::kAtLeastRatio,
                  .limit = 0.7,
                  .ours = [=] { return world->ring.nops_per_second(640'000 * scale); },
                  .peer = [=] { return bare_ring_stream(640'000 * scale); }});
  for (const bool spinning : {true, false}) {
    list.push_back(
        {.name = fmt::format("ring/nop-vs-socket/{}", spinning ? "spinning" : "sleeping"),
         .unit = "ns",
         .peer_name =
             fmt::format("unix socket pair, both sides {}", spinning ? "spinning" : "sleeping"),
         .target = Target::kTimesFaster,
         .limit = spinning ? 5.0 : 50.0,
         .ours = [=] { return world->ring.round_trips(20'000 * scale, Ring::nop()); },
         .peer = [=] { return socket_echo((spinning ? 5'000 : 1'000) * scale, spinning); }});
  }
  const std::string tbb =
      fmt::format("TBB {}.{} arena, spinning", TBB_VERSION_MAJOR, TBB_VERSION_MINOR);
  const std::string asio = fmt::format("asio {}.{} thread_pool, spinning", ASIO_VERSION / 100000,
                                       ASIO_VERSION / 100 % 1000);
  for (const auto& [pool, name, tag] :
       {std::tuple(Pool::kTbb, tbb, "tbb"), std::tuple(Pool::kAsio, asio, "asio")}) {
    for (const std::size_t size : {std::size_t{64}, std::size_t{512}, std::size_t{4096}}) {
      std::byte* to = world->ring.pool();
      const std::byte* from = to + (1u << 20);
      list.push_back(
          {.name = fmt::format("ring/copy:{}/{}", size, tag),
           .unit = "ns",
           .peer_name = name,
           .target = Target::kTimesFaster,
           .limit = 3,
           .ours =
               [=] {
                 return world->shallow.round_trips(10'000 * scale, Ring::copy(to, from, size));
               },
           .peer = [=, p = pool] { return pool_copy(p, 2'000 * scale, to, from, size); }});
    }
  }
  list.push_back({.name = "ring/wake-parked",
                  .unit = "ns",
                  .peer_name = "futex wake of a sleeping thread",
                  .target = Target::kAtMostRatio,
                  .limit = 1.3,
                  .ours = [=] { return world->ring.wakes(40 * scale, 1000); },
                  .peer = [=] { return futex_wake_up(40 * scale, 1000); }});
  return list;
}

}  // namespace

Area ring_area() { return {"ring", "queues: latency, rate, waking, idling", cases}; }

}  // namespace tandem::bench
