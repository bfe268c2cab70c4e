// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>

#include "tandem/wd/detail/fake_transport.hpp"
#include "tandem/wd/wd.h"

namespace tandem::wd::detail {

/// Runs the `mem` operations on plain pointers, as an engine of this process would.
inline tandem_completion run_plainly(const tandem_descriptor& descriptor) {
  auto* const src = reinterpret_cast<const std::byte*>(descriptor.src);
  auto* const dst = reinterpret_cast<std::byte*>(descriptor.dst);
  tandem_completion answer{};
  switch (descriptor.opcode) {
    case TANDEM_OP_NOP:
      answer.result = descriptor.operand;
      break;
    case TANDEM_OP_COPY:
      std::memmove(dst, src, descriptor.src_len);
      answer.done = descriptor.src_len;
      break;
    case TANDEM_OP_FILL:
      std::memset(dst, static_cast<int>(descriptor.operand), descriptor.dst_len);
      answer.done = descriptor.dst_len;
      break;
    case TANDEM_OP_COMPARE:
      answer.result =
          static_cast<std::uint64_t>(std::mismatch(src, src + descriptor.src_len, dst).first - src);
      answer.done = descriptor.src_len;
      break;
    default:
      answer.status = TANDEM_STATUS_UNKNOWN_OPCODE;
  }
  return answer;
}

/// Tests of the client library against a FakeTransport. A new one for each test.
class WdTest : public ::testing::Test {
 protected:
  static inline FakeBehaviour behaviour;
  static inline FakeTransport* fake = nullptr;

  void SetUp() override {
    behaviour.execute = run_plainly;
    behaviour.reaches_ordinary_memory = true;
    behaviour.paused = false;
    behaviour.overslept = false;
    behaviour.reserved_limit = std::uint64_t{1} << 30;
    behaviour.event_error = 0;
    behaviour.events = 0;
    wd_register_embedded([](bool in_caller) -> Result<std::unique_ptr<Transport>> {
      auto transport = std::make_unique<FakeTransport>(behaviour, in_caller);
      fake = transport.get();
      return std::unique_ptr<Transport>(std::move(transport));
    });
  }
  void TearDown() override {
    behaviour.paused = false;
    behaviour.overslept = false;
    behaviour.era.fetch_add(1);  // the library makes new connections for the next test
  }

  static wd_queue open(wd_path path = WD_PATH_EMBEDDED, std::uint32_t depth = 8) {
    wd_queue q = WD_QUEUE_INIT;
    q.algorithm = "fake";
    q.path = path;
    q.depth = depth;
    EXPECT_EQ(wd_request_queue(&q), 0);
    return q;
  }
  static wd_request nop(std::uint64_t operand = 0) {
    wd_request request{};
    request.opcode = WD_OP_NOP;
    request.operand = operand;
    return request;
  }
  static wd_request copy(void* dst, const void* src, std::size_t size) {
    wd_request request{};
    request.opcode = WD_OP_COPY;
    request.src = src;
    request.dst = dst;
    request.src_len = request.dst_len = static_cast<std::uint32_t>(size);
    return request;
  }
  /// Sends and awaits one request on a queue with nothing else in flight.
  static void run(wd_queue& q, wd_request& request) {
    ASSERT_EQ(wd_send(&q, &request), 0);
    wd_request* got = nullptr;
    ASSERT_EQ(wd_recv_sync(&q, &got), 1);
    ASSERT_EQ(got, &request);
  }
  /// Lets a paused engine go on when the client sleeps on the first queue's futex.
  static void go_on_once_somebody_sleeps() {
    while (std::atomic_ref(engine_side().doorbell().waiting).load() != TANDEM_WAIT_FUTEX) {
      std::this_thread::yield();
    }
    behaviour.paused = false;
    fake->wake();
  }
  /// The only queue of the fake.
  static FakeTransport::Queue& engine_side(std::uint32_t id = 1) { return fake->queue(id); }
};

/// Whether anything is mapped at `memory`.
inline bool is_mapped(const void* memory) {
  unsigned char resident = 0;
  return ::mincore(const_cast<void*>(memory), kPageSize, &resident) == 0;
}

/// Runs `body` in a forked child, which exits with its value. Returns the exit status, or −signal.
inline int in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace tandem::wd::detail
