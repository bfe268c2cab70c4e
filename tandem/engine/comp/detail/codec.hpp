// SPDX-License-Identifier: Apache-2.0
/// The codecs, on plain spans. No address spaces here: comp.cpp decides what the spans are.
///
/// Which codec serves what, and whether its buffers may be memory that a hostile client rewrites
/// meanwhile (comp.hpp says which operands are worked on in place):
///
/// | codec                  | use              | input may change | output may change | because |
/// |------------------------|------------------|---|---|---|
/// | isa-l level 1          | level 1          | yes | yes | tokens and histograms are private; a
/// byte
///   seen twice with two values costs a wrong code, never an index; the output is never read back |
/// | isa-l level 3          | level 2          | no  | yes | not argued: two passes over the input
/// | | libdeflate             | levels 3 … 12    | no  | yes | sizes a block, then reads it again
/// to
///   write it |
/// | libdeflate inflate     | one-shot inflate | no  | yes | compiled C may load a field twice;
/// output
///   is only moved within bounds that come from private tables, its content decides nothing |
/// | isa-l inflate          | streams, and the reason of a failure | no  | yes | likewise; history
///   is copied back from the output as data |
/// | CRC-32, Adler-32       | all              | yes | yes | single pass, a value |
///
/// "may change" means: every access stays inside the spans and our state, and the call ends. What
/// it produces then is the mutator's own affair. hostile_test.cpp holds the "yes" entries to it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "tandem/abi/ring.h"
#include "tandem/engine/comp/detail/wrapper.hpp"

struct inflate_state;
struct isal_zstream;
struct libdeflate_compressor;
struct libdeflate_decompressor;

namespace tandem::engine::comp {

/// What a codec did. `consumed` and `produced` are exact for kOk; 0 for a failed one-shot call.
struct CodecResult {
  tandem_status status = TANDEM_STATUS_OK;
  std::size_t consumed = 0;
  std::size_t produced = 0;
  std::uint32_t checksum = 0;  ///< of the uncompressed bytes (compression only)
  bool end = false;            ///< the member is complete
};

/// Compresses whole buffers; keeps the libraries' state between calls.
///
/// Thread safety: one thread at a time. Allocates when a level is used first.
class Compressor {
 public:
  Compressor();
  ~Compressor();

  /// Whether isa-l makes levels 1 and 2, else libdeflate. On aarch64 isa-l (2.30) reads past the
  /// end of its input, and there a page may end: GuardedBuffers.EveryLevelStaysInsideThem.
#if defined(__aarch64__)
  static constexpr bool kUsesIsal = false;
#else
  static constexpr bool kUsesIsal = true;
#endif

  /// Whether `level` tolerates input that changes while it runs.
  static constexpr bool input_may_change(unsigned level) { return kUsesIsal && level <= 1; }

  /// Writes one member. `level` is a descriptor's: 0 … 12. With tandem_compress_bound(input) bytes
  /// of output it always succeeds: what does not shrink is stored.
  /// Errors: OUTPUT_TOO_SMALL, the output then holds nothing of value.
  CodecResult compress(Format format, unsigned level, std::span<const std::byte> input,
                       std::span<std::byte> output);

 private:
  struct CompressorDeleter {
    void operator()(libdeflate_compressor* compressor) const;
  };
  std::size_t isal(unsigned isal_level, std::span<const std::byte> input,
                   std::span<std::byte> output);
  std::size_t libdeflate(unsigned level, std::span<const std::byte> input,
                         std::span<std::byte> output);

  std::unique_ptr<isal_zstream> stream_;
  std::unique_ptr<std::uint8_t[]> level_buffer_;
  std::array<std::unique_ptr<libdeflate_compressor, CompressorDeleter>, TANDEM_LEVEL_BEST + 1>
      compressors_;
};

/// Decompresses one member that arrives in pieces of any size into buffers of any size.
///
/// Thread safety: one thread at a time.
class InflateStream {
 public:
  explicit InflateStream(Format format);
  ~InflateStream();

  /// Takes from `input`, fills `output`, until one of them or the member ends.
  ///
  /// Bytes behind the member are not consumed. After the end, calls do nothing and say so; after an
  /// error they fail.
  /// Errors: CORRUPT_INPUT; TRUNCATED_INPUT when `last`, all input is taken and more is needed.
  CodecResult step(std::span<const std::byte> input, std::span<std::byte> output, bool last);

 private:
  enum class Phase : std::uint8_t { kHeader, kBody, kTrailer, kEnd, kFailed };
  struct Progress {
    std::size_t consumed, produced;
  };
  Progress body(std::span<const std::byte> input, std::span<std::byte> output);
  std::size_t trailer(std::span<const std::byte> input);

  const Format format_;
  Phase phase_ = Phase::kHeader;
  HeaderReader header_;
  std::unique_ptr<inflate_state> state_;
  std::uint32_t sum_;
  std::uint32_t length_ = 0;  // modulo 2^32, as gzip counts
  std::array<std::byte, kTrailerMax> trailer_{};
  std::size_t trailer_have_ = 0;
};

/// Decompresses one member from a buffer that holds all of it.
///
/// Thread safety: one thread at a time.
class Inflater {
 public:
  Inflater();
  ~Inflater();

  /// Errors: CORRUPT_INPUT, TRUNCATED_INPUT, OUTPUT_TOO_SMALL; the output then holds nothing of
  /// value. The first that decoding from the start meets is the one reported.
  CodecResult inflate(Format format, std::span<const std::byte> input, std::span<std::byte> output);

 private:
  struct DecompressorDeleter {
    void operator()(libdeflate_decompressor* decompressor) const;
  };
  std::unique_ptr<libdeflate_decompressor, DecompressorDeleter> decompressor_;
};

}  // namespace tandem::engine::comp
