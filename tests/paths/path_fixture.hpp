// SPDX-License-Identifier: Apache-2.0
/// One suite over every path and both kinds of memory: {inline, embedded, broker} × {heap,
/// reserved}.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <tuple>

#include "tandem/wd/wd.h"

namespace tandem::paths {

enum class Memory { kHeap, kReserved };
using Parameter = std::tuple<wd_path, Memory>;

inline std::string name_of(const testing::TestParamInfo<Parameter>& info) {
  static constexpr const char* kPaths[] = {"Auto", "Broker", "Embedded", "Inline"};
  return std::string(kPaths[std::get<0>(info.param)]) +
         (std::get<1>(info.param) == Memory::kHeap ? "Heap" : "Reserved");
}

/// Opens queues on the parameter's path and hands out buffers of the parameter's kind.
class Path : public testing::TestWithParam<Parameter> {
 protected:
  wd_path path() const { return std::get<0>(GetParam()); }
  bool reserved() const { return std::get<1>(GetParam()) == Memory::kReserved; }

  void SetUp() override { open(queue_, "memory"); }
  void TearDown() override { wd_release_queue(&queue_); }

  void open(wd_queue& queue, const char* algorithm) const {
    queue = WD_QUEUE_INIT;
    queue.algorithm = algorithm;
    queue.path = path();
    const int error = wd_request_queue(&queue);
    ASSERT_EQ(error, 0) << wd_strerror(error);
    ASSERT_EQ(queue.path, static_cast<std::uint32_t>(path()));
  }

  /// `size_bytes` rounded to pages; anonymous memory stands for the heap so that it can be
  /// protected and unmapped. Never freed: tests are short. other_buffer() is of the other kind.
  std::span<std::byte> buffer(std::size_t size_bytes) { return buffer(size_bytes, reserved()); }
  std::span<std::byte> other_buffer(std::size_t size_bytes) {
    return buffer(size_bytes, !reserved());
  }
  std::span<std::byte> buffer(std::size_t size_bytes, bool in_reserved) {
    const std::size_t whole = (size_bytes + 4095) & ~std::size_t{4095};
    void* at = in_reserved ? wd_reserve_memory(&queue_, whole)
                           : ::mmap(nullptr, whole, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_TRUE(at != nullptr && at != MAP_FAILED);
    return {static_cast<std::byte*>(at), size_bytes};
  }

  /// Runs one request to its end; the returned copy holds the results.
  static wd_request run(wd_queue& queue, wd_request request) {
    wd_request* back = nullptr;
    const int sent = wd_send(&queue, &request);
    EXPECT_EQ(sent, 0) << wd_strerror(sent);
    if (sent != 0) return request;
    EXPECT_EQ(wd_recv_sync(&queue, &back), 1);
    EXPECT_EQ(back, &request);
    return request;
  }
  wd_request run(const wd_request& request) { return run(queue_, request); }

  static wd_request make(std::uint32_t opcode, std::span<const std::byte> src = {},
                         std::span<std::byte> dst = {}, std::uint64_t operand = 0) {
    wd_request request{};
    request.opcode = static_cast<std::uint16_t>(opcode);
    request.src = src.data();
    request.src_len = static_cast<std::uint32_t>(src.size());
    request.dst = dst.data();
    request.dst_len = static_cast<std::uint32_t>(dst.size());
    request.operand = operand;
    return request;
  }

  /// `size_bytes` of addresses where nothing is mapped, with guards around them so that no later
  /// mapping of the library lands there.
  static std::span<std::byte> hole(std::size_t size_bytes) {
    constexpr std::size_t kGuard = 64 << 10;
    auto* at = static_cast<std::byte*>(
        ::mmap(nullptr, size_bytes + 2 * kGuard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    EXPECT_EQ(::munmap(at + kGuard, size_bytes), 0);
    return {at + kGuard, size_bytes};
  }

  /// Bytes that differ from page to page.
  static void pattern(std::span<std::byte> bytes, unsigned seed = 1) {
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] = static_cast<std::byte>(i * 7 + (i >> 12) * 31 + seed);
    }
  }

  wd_queue queue_ = WD_QUEUE_INIT;
};

#define TANDEM_ALL_PATHS(suite)                                                           \
  INSTANTIATE_TEST_SUITE_P(                                                               \
      All, suite,                                                                         \
      testing::Combine(testing::Values(WD_PATH_INLINE, WD_PATH_EMBEDDED, WD_PATH_BROKER), \
                       testing::Values(Memory::kHeap, Memory::kReserved)),                \
      name_of)

}  // namespace tandem::paths
