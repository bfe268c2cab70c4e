// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/codec.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "apps/tandem/gzip_format.hpp"
#include "apps/tandem/output_file.hpp"
#include "tandem/base/cpu.hpp"

namespace tandem::cli {
namespace {

constexpr unsigned kBlocksPerQueue = 4;
constexpr std::size_t kStreamBytes = std::size_t{1} << 20;
/// Room for a compressed block with its header and trailer.
const std::size_t kMemberBytes =
    kMemberHeader + tandem_compress_bound(static_cast<std::uint32_t>(kBlockBytes)) + kMemberTrailer;

/// Reads until `to` is full or the input ends. Returns the bytes read, or a negative errno.
ssize_t read_full(int fd, std::span<std::byte> to) noexcept {
  std::size_t have = 0;
  while (have < to.size()) {
    const ssize_t got = ::read(fd, to.data() + have, to.size() - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -errno;
    if (got == 0) break;
    have += static_cast<std::size_t>(got);
  }
  return static_cast<ssize_t>(have);
}

Failure cannot_write(int error) { return from_errno("writing the output", error); }

}  // namespace

/// Input with a look ahead, in the device's memory.
class Codec::Reader {
 public:
  Reader(int fd, std::span<std::byte> buffer) : fd_(fd), buffer_(buffer) {}

  std::span<const std::byte> available() const { return buffer_.subspan(at_, end_ - at_); }
  bool at_end() const { return end_of_file_ && at_ == end_; }
  bool saw_end() const { return end_of_file_; }
  std::uint64_t consumed() const { return consumed_; }
  void consume(std::size_t bytes) {
    at_ += bytes;
    consumed_ += bytes;
  }

  /// Makes at least `want` bytes available unless the input ends before. Returns 0 or an errno.
  int fill(std::size_t want) {
    if (end_ - at_ >= want || end_of_file_) return 0;
    std::memmove(buffer_.data(), buffer_.data() + at_, end_ - at_);
    end_ -= at_;
    at_ = 0;
    const ssize_t got = read_full(fd_, buffer_.subspan(end_));
    if (got < 0) return static_cast<int>(-got);
    end_ += static_cast<std::size_t>(got);
    end_of_file_ = end_ < buffer_.size();
    return 0;
  }

  /// Takes exactly to.size() bytes if there are so many. Returns the bytes, or a negative errno.
  ssize_t take(std::span<std::byte> to) {
    const std::size_t ready = std::min(to.size(), end_ - at_);
    std::memcpy(to.data(), buffer_.data() + at_, ready);
    consume(ready);
    if (ready == to.size() || end_of_file_) return static_cast<ssize_t>(ready);
    const ssize_t got = read_full(fd_, to.subspan(ready));
    if (got < 0) return got;
    consumed_ += static_cast<std::size_t>(got);
    if (ready + static_cast<std::size_t>(got) < to.size()) end_of_file_ = true;
    return static_cast<ssize_t>(ready) + got;
  }

 private:
  int fd_;
  std::span<std::byte> buffer_;
  std::size_t at_ = 0, end_ = 0;
  std::uint64_t consumed_ = 0;
  bool end_of_file_ = false;
};

/// One decompression.
struct Codec::Run {
  const std::string& name;
  Reader reader;
  int to;
  Totals totals;
};

Result<std::unique_ptr<Codec>, Failure> Codec::open() {
  const unsigned queues = static_cast<unsigned>(std::clamp(usable_cpus(), 1, 8));
  // Serves both directions: a member goes in and a block comes out, or the reverse.
  auto ring = BlockRing::open(queues, queues * kBlocksPerQueue, kMemberBytes, kMemberBytes);
  if (!ring) return Unexpected{ring.error()};
  return std::unique_ptr<Codec>(new Codec(std::move(*ring)));
}

Codec::Codec(BlockRing ring) : ring_(std::move(ring)) {
  input_ = ring_.allocate(kStreamBytes);
  for (auto& output : output_) output = ring_.allocate(kStreamBytes);
}

std::string Codec::where() const {
  auto& queue = const_cast<Codec*>(this)->ring_.first_queue();
  return fmt::format("{} ({}), {}", queue.device(), path_name(queue.path()),
                     ring_.zero_copy() ? "zero copy" : "by copy");
}

Result<Totals, Failure> Codec::compress(const std::string& name, int from, int to, unsigned level,
                                        std::uint32_t mtime) {
  Totals totals;
  bool end = false;
  for (bool first = true;; first = false) {
    while (!end) {
      BlockRing::Block* block = ring_.next_free();
      if (block == nullptr) break;
      const ssize_t got = read_full(from, block->in.first(kBlockBytes));
      if (got < 0) return Unexpected{from_errno(name, static_cast<int>(-got))};
      block->in_size = static_cast<std::size_t>(got);
      end = block->in_size < kBlockBytes;
      // No input at all is a member too; no input after a full block is nothing.
      if (block->in_size == 0 && totals.in > 0) break;
      totals.in += block->in_size;
      wd_request& request = block->request;
      request.opcode = WD_OP_DEFLATE;
      request.param = level;
      request.src = block->in.data();
      request.src_len = static_cast<std::uint32_t>(block->in_size);
      request.dst = block->out.data() + kMemberHeader;
      request.dst_len =
          static_cast<std::uint32_t>(block->out.size() - kMemberHeader - kMemberTrailer);
      if (auto failure = ring_.send(*block)) return Unexpected{*failure};
    }
    const std::uint64_t written = totals.out;
    if (auto failure = write_compressed(name, to, level, first ? mtime : 0, totals)) {
      return Unexpected{*failure};
    }
    if (totals.out == written) return totals;
  }
}

std::optional<Failure> Codec::write_compressed(const std::string& name, int to, unsigned level,
                                               std::uint32_t mtime, Totals& totals) {
  auto oldest = ring_.oldest();
  if (!oldest) return oldest.error();
  BlockRing::Block* block = *oldest;
  if (block == nullptr) return std::nullopt;
  if (block->request.status != TANDEM_STATUS_OK) return from_status(name, block->request);
  const std::size_t size = kMemberHeader + block->request.done + kMemberTrailer;
  put_member_header(block->out.first<kMemberHeader>(), static_cast<std::uint32_t>(size), level,
                    mtime);
  put_member_trailer(block->out.subspan(size - kMemberTrailer).first<kMemberTrailer>(),
                     static_cast<std::uint32_t>(block->request.result),
                     static_cast<std::uint32_t>(block->in_size));
  if (const int error = write_all(to, block->out.first(size)); error != 0) {
    return cannot_write(error);
  }
  totals.out += size;
  ring_.release(*block);
  return std::nullopt;
}

Result<Totals, Failure> Codec::decompress(const std::string& name, int from, int to,
                                          bool pass_through) {
  Run run{name, Reader(from, input_), to, {}};
  for (bool first = true;; first = false) {
    if (const int error = run.reader.fill(kMemberHeader); error != 0) {
      return Unexpected{from_errno(name, error)};
    }
    const auto ahead = run.reader.available();
    std::optional<Failure> failure;
    const auto sized = sized_member(ahead);
    if (sized && *sized <= kMemberBytes) {
      failure = send_member(run, *sized);
    } else if (is_gzip(ahead)) {
      failure = drain(run);
      if (!failure) failure = inflate_member(run);
    } else {
      if ((failure = drain(run))) return Unexpected{*failure};
      if (first && pass_through) {
        if ((failure = copy_rest(run))) return Unexpected{*failure};
      } else if (first && run.reader.at_end()) {
        failure = Failure{kFailure, name + ": is empty: unexpected end of the compressed data"};
        return Unexpected{*failure};
      } else if (first) {
        return Unexpected{Failure{kFailure, name + ": not in gzip format"}};
      }
      // What follows the last member: padding with zeros is usual, anything else is told.
      while (!run.reader.at_end()) {
        const auto rest = run.reader.available();
        if (std::any_of(rest.begin(), rest.end(), [](std::byte b) { return b != std::byte{0}; })) {
          run.totals.trailing_garbage = true;
          break;
        }
        run.reader.consume(rest.size());
        if (const int error = run.reader.fill(1); error != 0) {
          return Unexpected{from_errno(name, error)};
        }
      }
      run.totals.in = run.reader.consumed();
      return run.totals;
    }
    if (failure) return Unexpected{*failure};
  }
}

std::optional<Failure> Codec::send_member(Run& run, std::uint32_t member_size) {
  BlockRing::Block* block = ring_.next_free();
  if (block == nullptr) {
    if (auto failure = write_inflated(run)) return failure;
    block = ring_.next_free();
  }
  const ssize_t got = run.reader.take(block->in.first(member_size));
  if (got < 0) return from_errno(run.name, static_cast<int>(-got));
  block->in_size = static_cast<std::size_t>(got);
  wd_request& request = block->request;
  request.opcode = WD_OP_GZIP_INFLATE;
  request.param = 0;
  request.src = block->in.data();
  request.src_len = static_cast<std::uint32_t>(block->in_size);
  request.dst = block->out.data();
  // The size that the trailer claims, so that a wrong claim cannot make us write further.
  request.dst_len = static_cast<std::uint32_t>(
      std::min<std::size_t>(inflated_size(block->in.first(block->in_size)), block->out.size()));
  if (block->in_size < member_size) request.dst_len = static_cast<std::uint32_t>(block->out.size());
  return ring_.send(*block);
}

std::optional<Failure> Codec::write_inflated(Run& run) {
  auto oldest = ring_.oldest();
  if (!oldest) return oldest.error();
  BlockRing::Block* block = *oldest;
  if (block == nullptr) return std::nullopt;
  const wd_request& request = block->request;
  if (request.status == TANDEM_STATUS_OUTPUT_TOO_SMALL ||
      (request.status == TANDEM_STATUS_OK && request.result != block->in_size)) {
    return Failure{kFailure, run.name + ": the compressed data is damaged (a length is wrong)"};
  }
  if (request.status != TANDEM_STATUS_OK) return from_status(run.name, request);
  if (run.to >= 0) {
    if (const int error = write_all(run.to, block->out.first(request.done)); error != 0) {
      return cannot_write(error);
    }
  }
  run.totals.out += request.done;
  ring_.release(*block);
  return std::nullopt;
}

std::optional<Failure> Codec::drain(Run& run) {
  while (ring_.in_flight()) {
    if (auto failure = write_inflated(run)) return failure;
  }
  return std::nullopt;
}

std::optional<Failure> Codec::inflate_member(Run& run) {
  Queue& queue = ring_.first_queue();
  wd_request request{};
  request.opcode = WD_OP_INFLATE_STREAM;
  request.param = TANDEM_FORMAT_GZIP;
  std::span<const std::byte> ready;  // inflated before, not yet written
  for (std::size_t turn = 0;; ++turn) {
    if (const int error = run.reader.fill(kStreamBytes / 4); error != 0) {
      return from_errno(run.name, error);
    }
    const auto ahead = run.reader.available();
    const auto output = output_[turn % 2];
    request.flags = static_cast<std::uint16_t>((turn == 0 ? TANDEM_DESC_FIRST : 0) |
                                               (run.reader.saw_end() ? TANDEM_DESC_LAST : 0));
    request.src = ahead.data();
    request.src_len = static_cast<std::uint32_t>(ahead.size());
    request.dst = output.data();
    request.dst_len = static_cast<std::uint32_t>(output.size());
    if (const int error = wd_send(queue.raw(), &request); error < 0) {
      return from_wd("compression device", error);
    }
    // While the device works on this piece, the one before goes out.
    const int write_error = run.to >= 0 ? write_all(run.to, ready) : 0;
    wd_request* done = nullptr;
    if (const int error = wd_recv_sync(queue.raw(), &done); error < 0) {
      return from_wd("compression device", error);
    }
    if (write_error != 0) return cannot_write(write_error);
    if (request.status != TANDEM_STATUS_OK) return from_status(run.name, request);
    if (request.result > ahead.size() || request.done > output.size()) {
      return Failure{kFailure, run.name + ": the device answered with impossible lengths"};
    }
    run.reader.consume(request.result);
    run.totals.out += request.done;
    ready = output.first(request.done);
    if ((request.result_flags & TANDEM_CPL_STREAM_END) != 0) break;
  }
  const int error = run.to >= 0 ? write_all(run.to, ready) : 0;
  return error != 0 ? std::optional(cannot_write(error)) : std::nullopt;
}

std::optional<Failure> Codec::copy_rest(Run& run) {
  for (;;) {
    const auto rest = run.reader.available();
    const int write_error = run.to >= 0 ? write_all(run.to, rest) : 0;
    if (write_error != 0) return cannot_write(write_error);
    run.totals.out += rest.size();
    run.reader.consume(rest.size());
    if (run.reader.at_end()) return std::nullopt;
    if (const int error = run.reader.fill(1); error != 0) return from_errno(run.name, error);
  }
}

}  // namespace tandem::cli
