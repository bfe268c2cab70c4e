// SPDX-License-Identifier: Apache-2.0
/// The operations of wd.hpp: aggregates over memory that know their request.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <ranges>
#include <type_traits>

#include "tandem/wd/wd.h"

namespace tandem::wd {

/// Memory to read: any contiguous range of plain data.
class In {
 public:
  In() = default;
  In(const void* data, std::size_t size_bytes) : data_(data), size_bytes_(size_bytes) {}
  template <std::ranges::contiguous_range R>
  requires(
      std::ranges::sized_range<R>&& std::is_trivially_copyable_v<std::ranges::range_value_t<R>>)
      In(const R& range)
      : In(std::ranges::data(range),
           std::ranges::size(range) * sizeof(std::ranges::range_value_t<R>)) {}
  const void* data() const { return data_; }
  std::size_t size() const { return size_bytes_; }

 private:
  const void* data_ = nullptr;
  std::size_t size_bytes_ = 0;
};

/// Memory to write: any contiguous range of plain data.
class Out {
 public:
  Out() = default;
  Out(void* data, std::size_t size_bytes) : data_(data), size_bytes_(size_bytes) {}
  template <std::ranges::contiguous_range R>
  requires(
      std::ranges::sized_range<R>&& std::is_trivially_copyable_v<std::ranges::range_value_t<R>> &&
      !std::is_const_v<std::remove_reference_t<std::ranges::range_reference_t<R>>>)
      Out(R&& range)  // NOLINT(bugprone-forwarding-reference-overload): constrained to ranges
      : Out(std::ranges::data(range),
            std::ranges::size(range) * sizeof(std::ranges::range_value_t<R>)) {}
  void* data() const { return data_; }
  std::size_t size() const { return size_bytes_; }

 private:
  void* data_ = nullptr;
  std::size_t size_bytes_ = 0;
};

namespace detail {

/// The request for an operation; nothing when a length does not fit into it.
inline std::optional<wd_request> make_request(std::uint16_t opcode, Out dst, In src,
                                              std::uint32_t param = 0, std::uint64_t operand = 0) {
  constexpr std::size_t kMost = std::numeric_limits<std::uint32_t>::max();
  if (src.size() > kMost || dst.size() > kMost) return std::nullopt;
  wd_request request{};
  request.opcode = opcode;
  request.param = param;
  request.src = src.data();
  request.dst = dst.data();
  request.src_len = static_cast<std::uint32_t>(src.size());
  request.dst_len = static_cast<std::uint32_t>(dst.size());
  request.operand = operand;
  return request;
}

}  // namespace detail

/// The operations. kAlgorithm: what a queue that can run it is opened for.
/// Errors, of each: kInvalid for an operand of 4 GiB or more, a range that wraps, or lengths that
/// do
///                  not fit each other (see enum tandem_opcode); kFault for memory that cannot be
///                  accessed; kUnsupported by a queue of a device that lacks it.
struct Nop {
  static constexpr const char* kAlgorithm = "memory";
  std::optional<wd_request> request() const { return detail::make_request(WD_OP_NOP, {}, {}); }
};
/// dst ← src; dst may be longer.
struct Copy {
  static constexpr const char* kAlgorithm = "memory";
  Out dst;
  In src;
  std::optional<wd_request> request() const { return detail::make_request(WD_OP_COPY, dst, src); }
};
/// dst ← the pattern's eight bytes, again and again.
struct Fill {
  static constexpr const char* kAlgorithm = "memory";
  Out dst;
  std::uint64_t pattern = 0;
  std::optional<wd_request> request() const {
    return detail::make_request(WD_OP_FILL, dst, {}, 0, pattern);
  }
};
/// Done::result: offset of the first difference, or the length when there is none.
struct Compare {
  static constexpr const char* kAlgorithm = "memory";
  In a, b;
  std::optional<wd_request> request() const {
    // The operation reads what its descriptor calls dst.
    return detail::make_request(WD_OP_COMPARE, Out(const_cast<void*>(b.data()), b.size()), a);
  }
};
/// Done::result: CRC-32C of src, going on from `seed`.
struct Crc32c {
  static constexpr const char* kAlgorithm = "memory";
  In src;
  std::uint32_t seed = 0;
  std::optional<wd_request> request() const {
    return detail::make_request(WD_OP_CRC32C, {}, src, 0, seed);
  }
};

/// Compression: Done::value bytes stand in dst; tandem_compress_bound() tells how many may.
///
/// Units:  `dst` and `src` have at most TANDEM_MAX_CODEC_BYTES (64 MiB) each: the span that is
/// given
///         counts, not what is written. `level`: 1 (fastest) to 12 (smallest).
/// Errors: kInvalid for longer ones or other levels; kShortOutput.
template <std::uint16_t kOpcode>
struct Compress {
  static constexpr const char* kAlgorithm = "deflate";
  Out dst;
  In src;
  std::uint32_t level = 0;  ///< 0: the default, the fastest
  std::optional<wd_request> request() const {
    return detail::make_request(kOpcode, dst, src, level);
  }
};
struct Deflate : Compress<WD_OP_DEFLATE> {};
struct Zlib : Compress<WD_OP_ZLIB> {};
struct Gzip : Compress<WD_OP_GZIP> {};

/// Decompression of one member: Done::value bytes stand in dst, Done::result of src were read.
/// Longer ones: WD_OP_INFLATE_STREAM, whose lengths are not limited.
///
/// Units:  `dst` and `src` have at most TANDEM_MAX_CODEC_BYTES (64 MiB) each, as above.
/// Errors: kInvalid for longer ones; kShortOutput, kCorrupt, kTruncated.
template <std::uint16_t kOpcode>
struct Decompress {
  static constexpr const char* kAlgorithm = "deflate";
  Out dst;
  In src;
  std::optional<wd_request> request() const { return detail::make_request(kOpcode, dst, src); }
};
struct Inflate : Decompress<WD_OP_INFLATE> {};
struct ZlibInflate : Decompress<WD_OP_ZLIB_INFLATE> {};
struct GzipInflate : Decompress<WD_OP_GZIP_INFLATE> {};

template <class T>
concept Operation = requires(const T& operation) {
  { operation.request() } -> std::same_as<std::optional<wd_request>>;
  { T::kAlgorithm } -> std::convertible_to<const char*>;
};

}  // namespace tandem::wd
