// SPDX-License-Identifier: Apache-2.0
/// Codecs whose buffers another thread rewrites meanwhile, held between inaccessible pages: the
/// libraries are partly assembly, which no sanitizer sees, so a step outside must hit a page.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <utility>

#include "tandem/engine/comp/detail/codec.hpp"

namespace tandem::engine::comp {
namespace {

/// `size` bytes that end where an inaccessible page begins, with another in front of their first
/// page.
class Guarded {
 public:
  explicit Guarded(std::size_t size) : size_(size) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t usable = (size + page - 1) / page * page;
    total_ = usable + 2 * page;
    void* const base = mmap(nullptr, total_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<std::byte*>(base);
    if (usable != 0 && mprotect(base_ + page, usable, PROT_READ | PROT_WRITE) != 0) {
      throw std::bad_alloc();
    }
    begin_ = base_ + page + usable - size;
  }
  ~Guarded() { munmap(base_, total_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  std::span<std::byte> bytes() const { return {begin_, size_}; }

 private:
  std::size_t size_;
  std::size_t total_ = 0;
  std::byte* base_ = nullptr;
  std::byte* begin_ = nullptr;
};

/// Rewrites single bytes and short runs of its spans until it goes out of scope.
///
/// A race on purpose, between a client's process and ours in life; it is kept out of
/// ThreadSanitizer's sight, which has nothing to find here.
class Mutator {
 public:
  Mutator(std::vector<std::span<std::byte>> targets, unsigned seed)
      : thread_([targets, seed](const std::stop_token& stop) { run(targets, seed, stop); }) {}

 private:
#if defined(__clang__) || defined(__GNUC__)
  __attribute__((no_sanitize("thread")))
#endif
  static void
  run(const std::vector<std::span<std::byte>>& targets, unsigned seed,
      const std::stop_token& stop) {
    std::minstd_rand random(seed);
    while (!stop.stop_requested()) {
      for (const std::span<std::byte> target : targets) {
        for (int burst = 0; burst < 64 && !target.empty(); ++burst) {
          const std::size_t at = random() % target.size();
          const std::size_t run = std::min<std::size_t>(target.size() - at, random() % 300);
          const auto value = static_cast<std::byte>(random() & 0xff);
          volatile std::byte* const to = target.data() + at;
          if (random() % 2 == 0) {
            to[0] = value;
          } else {
            for (std::size_t i = 0; i < run; ++i) to[i] = value;
          }
        }
      }
    }
  }
  std::jthread thread_;
};

constexpr unsigned kSeed = 4242;
constexpr auto kDuration = std::chrono::milliseconds(150);

template <class Body>
void for_a_while(Body body) {
  const auto end = std::chrono::steady_clock::now() + kDuration;
  do {
    body();
  } while (std::chrono::steady_clock::now() < end);
}

void fill_with_text(std::span<std::byte> bytes) {
  static constexpr char kText[] = "the engine reads what the client may still be writing, ";
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(kText[(i + i / 977) % (sizeof kText - 1)]);
  }
}

Bytef* octets(std::span<const std::byte> bytes) {
  return reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes.data()));
}

class ChangingBuffers : public testing::TestWithParam<std::size_t> {};

TEST_P(ChangingBuffers, CompressingAtLevelOneStaysInsideThem) {
  if (!Compressor::input_may_change(1)) GTEST_SKIP() << "here level 1 gets a copy of its input";
  const Guarded input(GetParam());
  Compressor compressor;
  for (const Format format : {Format::kDeflate, Format::kZlib, Format::kGzip}) {
    for (const std::size_t room : {tandem_compress_bound(static_cast<std::uint32_t>(GetParam())),
                                   std::uint64_t{GetParam() / 3}}) {
      const Guarded output(room);
      fill_with_text(input.bytes());
      const Mutator mutator({input.bytes(), output.bytes()}, kSeed);
      for_a_while([&] {
        const CodecResult result = compressor.compress(format, 1, input.bytes(), output.bytes());
        EXPECT_LE(result.produced, room);
        EXPECT_TRUE(result.status == TANDEM_STATUS_OK ||
                    result.status == TANDEM_STATUS_OUTPUT_TOO_SMALL);
      });
    }
  }
}

TEST_P(ChangingBuffers, InflatingIntoOutputThatChangesStaysInsideIt) {
  const Guarded plain(GetParam());
  fill_with_text(plain.bytes());
  Compressor compressor;
  Inflater inflater;
  for (const unsigned level : {1u, 6u}) {
    std::vector<std::byte> member(tandem_compress_bound(static_cast<std::uint32_t>(GetParam())));
    member.resize(compressor.compress(Format::kGzip, level, plain.bytes(), member).produced);
    const Guarded input(member.size());
    std::ranges::copy(member, input.bytes().begin());
    for (const std::size_t room : {GetParam(), GetParam() / 2}) {
      const Guarded output(room);
      const Mutator mutator({output.bytes()}, kSeed);
      for_a_while([&] {
        const CodecResult one_shot = inflater.inflate(Format::kGzip, input.bytes(), output.bytes());
        EXPECT_LE(one_shot.produced, room);
        InflateStream stream(Format::kGzip);
        EXPECT_LE(stream.step(input.bytes(), output.bytes(), true).produced, room);
      });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, ChangingBuffers, testing::Values(100, 5'000, 65'536, 300'001));

/// Not concurrent: damaged members in every position against the end of a page.
TEST(GuardedBuffers, DamagedMembersAreReadToTheirLastByteAndNoFurther) {
  std::minstd_rand random(kSeed);
  Compressor compressor;
  Inflater inflater;
  std::vector<std::byte> plain(40'000);
  fill_with_text(plain);
  for (std::byte& byte : std::span{plain}.first(4'000))
    byte = static_cast<std::byte>(random() & 0xff);
  for (const Format format : {Format::kDeflate, Format::kZlib, Format::kGzip}) {
    for (const unsigned level : {1u, 6u}) {
      std::vector<std::byte> member(tandem_compress_bound(40'000));
      member.resize(compressor.compress(format, level, plain, member).produced);
      for (int round = 0; round < 1'500; ++round) {
        const std::size_t size = round % 2 == 0 ? member.size() : random() % member.size();
        const Guarded input(size);
        std::copy_n(member.begin(), size, input.bytes().begin());
        for (unsigned flips = random() % 4; flips > 0 && size > 0; --flips) {
          input.bytes()[random() % size] ^= static_cast<std::byte>(1u << random() % 8);
        }
        const Guarded output(random() % 50'000);
        const CodecResult result = inflater.inflate(format, input.bytes(), output.bytes());
        EXPECT_LE(result.produced, output.bytes().size());
        InflateStream stream(format);
        const CodecResult part = stream.step(input.bytes(), output.bytes(), true);
        EXPECT_LE(part.produced, output.bytes().size());
        EXPECT_LE(part.consumed, size);
      }
    }
  }
}

TEST(GuardedBuffers, EveryLevelStaysInsideThem) {
  std::minstd_rand random(kSeed);
  Compressor compressor;
  for (unsigned level = 1; level <= TANDEM_LEVEL_BEST; ++level) {
    for (int round = 0; round < 12; ++round) {
      const Guarded input(random() % 70'000);
      fill_with_text(input.bytes());
      for (std::size_t i = 0; i < input.bytes().size(); i += 1 + random() % 50) {
        input.bytes()[i] = static_cast<std::byte>(random() & 0xff);
      }
      const Guarded output(random() % 40'000);
      const CodecResult result =
          compressor.compress(Format::kZlib, level, input.bytes(), output.bytes());
      if (result.status != TANDEM_STATUS_OK) continue;
      std::vector<std::byte> back(input.bytes().size());
      uLongf size = back.size();
      ASSERT_EQ(uncompress(octets(back), &size, octets(output.bytes()), result.produced), Z_OK);
      EXPECT_TRUE(std::ranges::equal(back, input.bytes()));
    }
  }
}

}  // namespace
}  // namespace tandem::engine::comp
