// SPDX-License-Identifier: Apache-2.0
#include "bench/ring_peers.hpp"

#include <sys/socket.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <array>
#include <asio/post.hpp>
#include <asio/thread_pool.hpp>
#include <atomic>
#include <boost/lockfree/spsc_queue.hpp>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "bench/harness.hpp"
#include "tandem/base/cpu.hpp"
#include "tandem/base/futex.hpp"
#include "tandem/base/unique_fd.hpp"

namespace tandem::bench {
namespace {

struct alignas(kCacheLine) Line {
  std::array<std::uint64_t, 8> words{};
};
struct alignas(kCacheLine) Word {
  std::atomic<std::uint64_t> value{0};
};
constexpr std::uint64_t kStop = ~std::uint64_t{0};

}  // namespace

double line_ping_pong(int rounds, std::size_t slots) {
  const std::size_t mask = slots - 1;
  std::vector<Line> descriptors(slots);
  Word tail;
  std::vector<Line> completions(slots);
  const auto phase = [&completions, mask](std::uint64_t value) {
    return std::atomic_ref(completions[value & mask].words[3]);
  };
  std::jthread other([&] {
    pin_thread(1);
    for (std::uint64_t seen = 0;;) {
      const auto now = tail.value.load(std::memory_order_acquire);
      if (now == kStop) return;
      if (now == seen) {
        cpu_pause();
        continue;
      }
      seen = now;
      const Line copy = descriptors[seen & mask];
      std::copy_n(copy.words.begin(), 3, completions[seen & mask].words.begin());
      phase(seen).store(seen, std::memory_order_release);
    }
  });
  pin_thread(0);
  const auto pass = [&](std::uint64_t value) {
    descriptors[value & mask].words.fill(value);
    tail.value.store(value, std::memory_order_release);
    while (phase(value).load(std::memory_order_acquire) != value) cpu_pause();
  };
  std::uint64_t value = 0;
  while (value < 1000) pass(++value);
  const auto start = now_ns();
  for (int i = 0; i < rounds; ++i) pass(++value);
  const double each = static_cast<double>(now_ns() - start) / rounds;
  tail.value.store(kStop, std::memory_order_release);
  return each;
}

double spsc_stream(int items) {
  auto queue =
      std::make_unique<boost::lockfree::spsc_queue<Line, boost::lockfree::capacity<256>>>();
  Word received;
  std::jthread other([&](const std::stop_token& stop) {
    pin_thread(1);
    std::array<Line, 32> got;
    std::uint64_t sum = 0;
    for (std::uint64_t count = 0; !stop.stop_requested();) {
      const auto popped = queue->pop(got.data(), got.size());
      if (popped == 0) continue;
      for (std::size_t i = 0; i < popped; ++i) sum += got[i].words[0];
      count += popped;
      received.value.store(count, std::memory_order_release);
    }
    if (sum == kStop) std::abort();  // keeps the reads
  });
  pin_thread(0);
  std::array<Line, 32> batch{};
  std::uint64_t sent = 0;
  const auto stream = [&](std::uint64_t count) {
    const std::uint64_t goal = sent + count;
    while (sent < goal) {
      const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(32, goal - sent));
      for (std::size_t i = 0; i < wanted; ++i) batch[i].words.fill(sent + i);
      for (std::size_t pushed = 0; pushed < wanted;) {
        pushed += queue->push(batch.data() + pushed, wanted - pushed);
      }
      sent += wanted;
    }
    while (received.value.load(std::memory_order_acquire) != goal) cpu_pause();
  };
  stream(10'000);
  const auto start = now_ns();
  stream(static_cast<std::uint64_t>(items));
  return items * 1e9 / static_cast<double>(now_ns() - start);
}

double bare_ring_stream(int items) {
  constexpr std::uint64_t kDepth = 256, kInFlight = 128, kBatch = 32;
  struct Half {  // a completion: two to a line
    std::uint64_t tag, fault, result, last;
  };
  struct Request {
    std::array<std::uint64_t, 11> words;
  };
  std::vector<Line> descriptors(kDepth);
  std::vector<Half> completions(kDepth);
  std::vector<Request> requests(kInFlight);
  Word tail;
  const auto phase = [](std::uint64_t number) { return (number / kDepth) % 2 == 0 ? 1u : 0u; };
  std::jthread other([&] {
    pin_thread(1);
    std::array<Half, kBatch> answers;
    for (std::uint64_t head = 0;;) {
      const auto now = tail.value.load(std::memory_order_acquire);
      if (now == kStop) return;
      const auto count = std::min(now - head, kBatch);
      if (count == 0) {
        cpu_pause();
        continue;
      }
      for (std::uint64_t i = 0; i < count; ++i) {
        const Line copy = descriptors[(head + i) % kDepth];
        answers[i] = {copy.words[5], 0, 0, phase(head + i) | (copy.words[6] | copy.words[7]) << 1};
      }
      for (std::uint64_t i = count; i-- > 0;) {
        Half& to = completions[(head + i) % kDepth];
        to.tag = answers[i].tag;
        to.fault = answers[i].fault;
        to.result = answers[i].result;
        std::atomic_ref(to.last).store(answers[i].last, std::memory_order_release);
      }
      head += count;
    }
  });
  pin_thread(0);
  std::uint64_t sent = 0, received = 0;
  const auto stream = [&](std::uint64_t count) {
    const std::uint64_t goal = received + count;
    while (received < goal) {
      for (; sent < goal && sent - received + kBatch <= kInFlight;
           tail.value.store(sent, std::memory_order_release)) {
        for (std::uint64_t i = 0; i < kBatch; ++i, ++sent) {
          Request& request = requests[sent % kInFlight];
          Line& to = descriptors[sent % kDepth];
          std::copy_n(request.words.begin(), 5, to.words.begin());
          to.words[5] = sent;
          to.words[6] = to.words[7] = 0;
          request.words[9] = sent;
        }
      }
      const std::uint64_t before = received;
      for (; received < sent; ++received) {
        Half& from = completions[received % kDepth];
        const auto last = std::atomic_ref(from.last).load(std::memory_order_acquire);
        if ((last & 1) != phase(received)) break;
        Request& request = requests[received % kInFlight];
        request.words[6] = last;
        request.words[7] = from.result;
        request.words[8] = from.fault;
        if (from.tag != received) std::abort();
      }
      if (received == before) cpu_pause();
    }
  };
  stream(10'000 / kBatch * kBatch);
  const auto start = now_ns();
  stream(static_cast<std::uint64_t>(items));
  const double rate = items * 1e9 / static_cast<double>(now_ns() - start);
  tail.value.store(kStop, std::memory_order_release);
  return rate;
}

double socket_echo(int rounds, bool spinning) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) std::abort();
  UniqueFd near(ends[0]);
  const UniqueFd far(ends[1]);
  const int flags = spinning ? MSG_DONTWAIT : 0;
  std::array<std::byte, 64> message{};
  std::jthread other([&] {
    pin_thread(1);
    std::array<std::byte, 64> copy;
    for (;;) {
      const auto got = ::recv(far.get(), copy.data(), copy.size(), flags);
      if (got == 0) return;
      if (got > 0) ::send(far.get(), copy.data(), 32, 0);
    }
  });
  pin_thread(0);
  const auto pass = [&] {
    ::send(near.get(), message.data(), message.size(), 0);
    while (::recv(near.get(), message.data(), message.size(), flags) <= 0) {
    }
  };
  for (int i = 0; i < 100; ++i) pass();
  const auto start = now_ns();
  for (int i = 0; i < rounds; ++i) pass();
  const double each = static_cast<double>(now_ns() - start) / rounds;
  ::shutdown(near.get(), SHUT_RDWR);
  return each;
}

double pool_copy(Pool pool, int rounds, std::byte* to, const std::byte* from,
                 std::size_t size_bytes) {
  tbb::task_arena arena(2, 1);
  asio::thread_pool threads(1);
  Word done;
  pin_thread(0);
  const auto pass = [&](std::uint64_t value) {
    const auto work = [&done, value, to, from, size_bytes] {
      std::memcpy(to, from, size_bytes);
      done.value.store(value, std::memory_order_release);
    };
    if (pool == Pool::kTbb) {
      arena.enqueue(work);
    } else {
      asio::post(threads, work);
    }
    while (done.value.load(std::memory_order_acquire) != value) cpu_pause();
  };
  unpin_thread();  // the pool's threads inherit what their creator may use
  std::uint64_t value = 0;
  while (value < 200) pass(++value);
  pin_thread(0);
  const auto start = now_ns();
  for (int i = 0; i < rounds; ++i) pass(++value);
  const double each = static_cast<double>(now_ns() - start) / rounds;
  threads.join();
  return each;
}

double futex_wake_up(int rounds, int idle_us) {
  alignas(kCacheLine) std::atomic<std::uint32_t> word{0};
  alignas(kCacheLine) std::atomic<std::uint32_t> answer{0};
  std::jthread other([&](const std::stop_token& stop) {
    pin_thread(1);
    for (std::uint32_t seen = 0; !stop.stop_requested();) {
      futex_wait(word, seen, std::chrono::milliseconds(50));
      const auto now = word.load(std::memory_order_acquire);
      if (now == seen) continue;
      seen = now;
      answer.store(seen, std::memory_order_release);
    }
  });
  pin_thread(0);
  double total = 0;
  for (int i = 0; i < rounds; ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(idle_us));
    const auto next = word.load() + 1;
    const auto start = now_ns();
    word.store(next, std::memory_order_release);
    futex_wake(word);
    while (answer.load(std::memory_order_acquire) != next) cpu_pause();
    total += static_cast<double>(now_ns() - start);
  }
  return total / rounds;
}

}  // namespace tandem::bench
