// SPDX-License-Identifier: Apache-2.0
#include <isa-l.h>
#include <libdeflate.h>

#include <algorithm>
#include <new>

#include "tandem/base/planted_fault.hpp"
#include "tandem/engine/comp/detail/codec.hpp"

namespace tandem::engine::comp {
namespace {

/// Whether `bytes`, trailer_size(format) of them, are the trailer of `length` bytes summing to
/// `sum`.
bool trailer_matches(Format format, std::span<const std::byte> bytes, std::uint32_t sum,
                     std::uint32_t length) {
  if (planted_fault("comp-skip-checksum")) return true;
  return std::ranges::equal(trailer_bytes(format, sum, length).bytes(), bytes);
}

std::uint32_t clamp32(std::size_t size) {
  return static_cast<std::uint32_t>(std::min<std::size_t>(size, 1u << 30));
}

}  // namespace

InflateStream::InflateStream(Format format)
    : format_(format),
      header_(format),
      state_(new inflate_state),  // isal_inflate_init() sets what matters; 90 KiB need no zeros
      sum_(checksum_start(format)) {
  isal_inflate_init(state_.get());
}
InflateStream::~InflateStream() = default;

/// Runs the deflate decoder once, in raw mode.
///
/// isa-l reads up to eight bytes ahead. Whole bytes that it holds without needing them go back to
/// the caller, so that `consumed` never includes a byte behind the member: at the end of the
/// stream, and when it stopped because the output was full (then what it holds may lie behind the
/// end already). When it stopped for want of input, what it holds begins a code that is not
/// complete, so it lies before the end and stays; so do the bytes of an incomplete block header.
InflateStream::Progress InflateStream::body(std::span<const std::byte> input,
                                            std::span<std::byte> output) {
  inflate_state& state = *state_;
  const std::uint32_t in_size = clamp32(input.size());
  const std::uint32_t out_size = clamp32(output.size());
  state.next_in = reinterpret_cast<std::uint8_t*>(const_cast<std::byte*>(input.data()));
  state.avail_in = in_size;
  state.next_out = reinterpret_cast<std::uint8_t*>(output.data());
  state.avail_out = out_size;
  if (isal_inflate(&state) != ISAL_DECOMP_OK) phase_ = Phase::kFailed;

  // The pointers, not avail_in and avail_out: those are off by the decoder's slack after an error.
  auto consumed =
      static_cast<std::size_t>(state.next_in - reinterpret_cast<const std::uint8_t*>(input.data()));
  const auto produced = static_cast<std::size_t>(
      state.next_out - reinterpret_cast<const std::uint8_t*>(output.data()));
  const bool decoded =
      state.block_state == ISAL_BLOCK_INPUT_DONE || state.block_state == ISAL_BLOCK_FINISH;
  if (decoded || (produced == out_size && state.tmp_in_size == 0)) {
    const auto held = static_cast<std::size_t>(std::max(0, state.read_in_length) / 8);
    const std::size_t back = std::min(held, consumed);
    consumed -= back;
    const int left = state.read_in_length - static_cast<int>(back * 8);
    const int bits_left = decoded ? 0 : std::max(0, left);
    state.read_in_length = bits_left;
    state.read_in &= bits_left >= 64 ? ~0ull : (1ull << bits_left) - 1;
  }
  sum_ = checksum(format_, sum_, output.first(produced));
  length_ += static_cast<std::uint32_t>(produced);
  if (phase_ == Phase::kBody && state.block_state == ISAL_BLOCK_FINISH) phase_ = Phase::kTrailer;
  return {consumed, produced};
}

/// Collects the trailer; checks it when it is complete.
std::size_t InflateStream::trailer(std::span<const std::byte> input) {
  const std::size_t taken = std::min(trailer_size(format_) - trailer_have_, input.size());
  std::copy_n(input.begin(), taken, trailer_.begin() + static_cast<std::ptrdiff_t>(trailer_have_));
  trailer_have_ += taken;
  if (trailer_have_ == trailer_size(format_)) {
    const auto bytes = std::span{trailer_}.first(trailer_have_);
    phase_ = trailer_matches(format_, bytes, sum_, length_) ? Phase::kEnd : Phase::kFailed;
  }
  return taken;
}

CodecResult InflateStream::step(std::span<const std::byte> input, std::span<std::byte> output,
                                bool last) {
  CodecResult result;
  const auto take = [&](std::size_t count) {
    result.consumed += count;
    input = input.subspan(count);
  };
  if (phase_ == Phase::kHeader) {
    take(header_.feed(input));
    if (header_.done()) phase_ = Phase::kBody;
    if (header_.bad()) phase_ = Phase::kFailed;
  }
  while (phase_ == Phase::kBody) {
    const Progress progress = body(input, output);
    take(progress.consumed);
    result.produced += progress.produced;
    output = output.subspan(progress.produced);
    if (progress.consumed == 0 && progress.produced == 0) break;
  }
  if (phase_ == Phase::kTrailer) take(trailer(input));

  if (phase_ == Phase::kFailed) {
    result.status = TANDEM_STATUS_CORRUPT_INPUT;
  } else if (phase_ == Phase::kEnd) {
    result.end = true;
  } else if (last && input.empty() && state_->tmp_out_valid == state_->tmp_out_processed) {
    phase_ = Phase::kFailed;
    result.status = TANDEM_STATUS_TRUNCATED_INPUT;
  }
  return result;
}

void Inflater::DecompressorDeleter::operator()(libdeflate_decompressor* decompressor) const {
  libdeflate_free_decompressor(decompressor);
}

Inflater::Inflater() : decompressor_(libdeflate_alloc_decompressor()) {
  if (!decompressor_) throw std::bad_alloc();
}
Inflater::~Inflater() = default;

/// libdeflate decodes; when it fails, isa-l's slower decoder repeats the work to say why, since
/// libdeflate has one error for "corrupt" and "truncated".
CodecResult Inflater::inflate(Format format, std::span<const std::byte> input,
                              std::span<std::byte> output) {
  HeaderReader header(format);
  const std::size_t header_size = header.feed(input);
  if (header.bad()) return {.status = TANDEM_STATUS_CORRUPT_INPUT};
  if (!header.done()) return {.status = TANDEM_STATUS_TRUNCATED_INPUT};

  const std::span<const std::byte> body = input.subspan(header_size);
  std::size_t taken = 0;
  std::size_t produced = 0;
  const libdeflate_result decoded =
      libdeflate_deflate_decompress_ex(decompressor_.get(), body.data(), body.size(), output.data(),
                                       output.size(), &taken, &produced);
  if (decoded == LIBDEFLATE_SUCCESS) {
    const std::span<const std::byte> rest = body.subspan(taken);
    const std::size_t trailer = trailer_size(format);
    if (rest.size() < trailer) return {.status = TANDEM_STATUS_TRUNCATED_INPUT};
    const std::uint32_t sum =
        trailer == 0 ? 0 : checksum(format, checksum_start(format), output.first(produced));
    if (!trailer_matches(format, rest.first(trailer), sum, static_cast<std::uint32_t>(produced))) {
      return {.status = TANDEM_STATUS_CORRUPT_INPUT};
    }
    return {.consumed = header_size + taken + trailer, .produced = produced, .end = true};
  }

  InflateStream careful(format);
  const CodecResult reason = careful.step(input, output, true);
  if (reason.status != TANDEM_STATUS_OK) return {.status = reason.status};
  // The decoders disagree: one accepts an incomplete code that the stream never uses.
  if (reason.end) return {.status = TANDEM_STATUS_CORRUPT_INPUT};
  return {.status = TANDEM_STATUS_OUTPUT_TOO_SMALL};
}

}  // namespace tandem::engine::comp
