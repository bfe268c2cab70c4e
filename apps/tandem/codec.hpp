// SPDX-License-Identifier: Apache-2.0
/// Streams through the compression device in constant memory: what `tandem compress` does between
/// two descriptors.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "apps/tandem/block_ring.hpp"

namespace tandem::cli {

/// Bytes of input in one gzip member. At level 1 the size hardly depends on it (within 0.3 % from
/// 64 KiB to 2 MiB, over 256 MiB of /usr) and the time only below 128 KiB; higher levels, which
/// look further back, lose history at each start. 512 KiB are about a millisecond of work.
inline constexpr std::size_t kBlockBytes = std::size_t{512} << 10;

struct Totals {
  std::uint64_t in = 0, out = 0;
  bool trailing_garbage = false;
};

/// Compresses and decompresses streams, one after the other, over the same queues and buffers.
class Codec {
 public:
  static Result<std::unique_ptr<Codec>, Failure> open();

  /// Reads `from` to its end, writes gzip members to `to`. `name` is for messages.
  Result<Totals, Failure> compress(const std::string& name, int from, int to, unsigned level,
                                   std::uint32_t mtime);
  /// Reads `from` to its end, writes what it inflates to into `to`; −1: nowhere.
  /// `pass_through`: input that is not gzip at all is copied.
  Result<Totals, Failure> decompress(const std::string& name, int from, int to, bool pass_through);

  std::string where() const;  ///< "comp-0 (embedded), zero copy"

 private:
  class Reader;
  struct Run;
  explicit Codec(BlockRing ring);
  std::optional<Failure> write_compressed(const std::string& name, int to, unsigned level,
                                          std::uint32_t mtime, Totals& totals);
  std::optional<Failure> write_inflated(Run& run);
  std::optional<Failure> drain(Run& run);
  std::optional<Failure> send_member(Run& run, std::uint32_t member_size);
  std::optional<Failure> inflate_member(Run& run);
  std::optional<Failure> copy_rest(Run& run);

  BlockRing ring_;
  std::span<std::byte> input_;
  std::span<std::byte> output_[2];
};

}  // namespace tandem::cli
