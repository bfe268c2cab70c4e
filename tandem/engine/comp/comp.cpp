// SPDX-License-Identifier: Apache-2.0
#include "tandem/engine/comp/comp.hpp"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "tandem/engine/comp/detail/codec.hpp"

namespace tandem::engine::comp {
namespace {

using uacce::Completion;
using uacce::Input;
using uacce::Output;

constexpr std::size_t kInPlaceMax = 4u << 20;       // bytes of an operand
constexpr std::size_t kScratchKept = 8u << 20;      // bytes of a buffer between operations
constexpr std::uint32_t kStreamChunk = 256u << 10;  // bytes that one step takes or makes

enum class Kind : std::uint8_t { kCompress, kInflate, kInflateStream };

struct Operation {
  tandem_opcode opcode;
  Kind kind;
  Format format;  ///< kInflateStream: in param instead
};

constexpr Operation kOperations[] = {
    {TANDEM_OP_DEFLATE, Kind::kCompress, Format::kDeflate},
    {TANDEM_OP_ZLIB, Kind::kCompress, Format::kZlib},
    {TANDEM_OP_GZIP, Kind::kCompress, Format::kGzip},
    {TANDEM_OP_INFLATE, Kind::kInflate, Format::kDeflate},
    {TANDEM_OP_ZLIB_INFLATE, Kind::kInflate, Format::kZlib},
    {TANDEM_OP_GZIP_INFLATE, Kind::kInflate, Format::kGzip},
    {TANDEM_OP_INFLATE_STREAM, Kind::kInflateStream, Format::kDeflate},
};

const Operation* find_operation(std::uint16_t opcode) {
  const auto* const found = std::ranges::find(kOperations, opcode, [](const Operation& operation) {
    return static_cast<std::uint16_t>(operation.opcode);
  });
  return found == std::end(kOperations) ? nullptr : found;
}

/// Whether flags, param, lengths and reserved words are ones that `operation` takes.
bool well_formed(const tandem_descriptor& descriptor, const Operation& operation) {
  if (descriptor.reserved[0] != 0 || descriptor.reserved[1] != 0) return false;
  if (operation.kind == Kind::kInflateStream) {
    return descriptor.param <= TANDEM_FORMAT_GZIP &&
           (descriptor.flags & ~(TANDEM_DESC_FIRST | TANDEM_DESC_LAST)) == 0;
  }
  const std::uint32_t param_max = operation.kind == Kind::kCompress ? TANDEM_LEVEL_BEST : 0;
  return descriptor.flags == 0 && descriptor.param <= param_max &&
         descriptor.src_len <= TANDEM_MAX_CODEC_BYTES &&
         descriptor.dst_len <= TANDEM_MAX_CODEC_BYTES;
}

bool wraps(std::uint64_t address, std::uint32_t length) {
  return length != 0 && address + (length - 1) < address;
}

/// The stream that a queue inflates, if one is under way.
struct StreamSession final : uacce::Session {
  std::optional<InflateStream> stream;
  std::uint32_t format = 0;
};

/// Counts an operand's bytes as worked on in place or copied.
void account(Completion& completion, bool in_place, std::size_t bytes) {
  (in_place ? completion.bytes_zero_copy : completion.bytes_copied) += bytes;
}

/// `before` as ended by a fault, `done` bytes after its start; its bytes still count.
Completion faulted(const Completion& before, const pcie::DmaFault& fault, std::uint32_t done) {
  Completion completion = Completion::from_fault(fault, done);
  completion.bytes_zero_copy = before.bytes_zero_copy;
  completion.bytes_copied = before.bytes_copied;
  return completion;
}

/// The operation whose input could not be fetched: what lies before the fault has been read.
Completion not_fetched(const pcie::DmaFault& fault, const tandem_descriptor& descriptor) {
  Completion completion = Completion::from_fault(fault, 0);
  if (completion.status == TANDEM_STATUS_FAULT) {
    completion.bytes_copied =
        std::min<std::uint64_t>(fault.address.value - descriptor.src, descriptor.src_len);
  }
  return completion;
}

class CompWorker final : public uacce::Worker {
 public:
  Completion execute(const tandem_descriptor& descriptor, const pcie::AddressSpace& space,
                     uacce::Session* session) override {
    const Operation* const operation = find_operation(descriptor.opcode);
    if (operation == nullptr) return {.status = TANDEM_STATUS_UNKNOWN_OPCODE};
    if (!well_formed(descriptor, *operation)) return {.status = TANDEM_STATUS_BAD_DESCRIPTOR};
    for (const auto& [address, length] : {std::pair{descriptor.src, descriptor.src_len},
                                          std::pair{descriptor.dst, descriptor.dst_len}}) {
      if (wraps(address, length)) {
        return {.status = TANDEM_STATUS_BAD_RANGE, .fault_address = address};
      }
    }
    Completion completion =
        operation->kind == Kind::kInflateStream
            ? inflate_stream(descriptor, space, *static_cast<StreamSession*>(session))
            : one_shot(descriptor, space, *operation);
    for (std::vector<std::byte>* scratch : {&input_scratch_, &output_scratch_}) {
      if (scratch->capacity() > kScratchKept) *scratch = {};
    }
    return completion;
  }

 private:
  static bool in_place(std::size_t size) { return size <= kInPlaceMax; }

  Completion one_shot(const tandem_descriptor& descriptor, const pcie::AddressSpace& space,
                      const Operation& operation) {
    return operation.kind == Kind::kCompress ? compress(descriptor, space, operation.format)
                                             : inflate(descriptor, space, operation.format);
  }

  Completion compress(const tandem_descriptor& descriptor, const pcie::AddressSpace& space,
                      Format format) {
    const bool snapshot =
        !Compressor::input_may_change(descriptor.param) || !in_place(descriptor.src_len);
    auto input = Input::fetch(space, descriptor.src, descriptor.src_len, snapshot, input_scratch_);
    if (!input) return not_fetched(input.error(), descriptor);
    Completion completion;
    account(completion, input->in_place(), input->bytes().size());
    const auto room = static_cast<std::size_t>(
        std::min<std::uint64_t>(descriptor.dst_len, tandem_compress_bound(descriptor.src_len)));
    auto output =
        Output::prepare(space, descriptor.dst, room, !snapshot && in_place(room), output_scratch_);
    if (!output) return faulted(completion, output.error(), 0);

    const CodecResult result =
        compressor_.compress(format, descriptor.param, input->bytes(), output->bytes());
    completion.status = result.status;
    if (result.status != TANDEM_STATUS_OK) return failed(*output, completion);
    completion.result = result.checksum;
    return commit(*output, result.produced, std::move(*input), completion);
  }

  Completion inflate(const tandem_descriptor& descriptor, const pcie::AddressSpace& space,
                     Format format) {
    auto input = Input::fetch(space, descriptor.src, descriptor.src_len, true, input_scratch_);
    if (!input) return not_fetched(input.error(), descriptor);
    Completion completion;
    account(completion, false, input->bytes().size());
    auto output = Output::prepare(space, descriptor.dst, descriptor.dst_len,
                                  in_place(descriptor.dst_len), output_scratch_);
    if (!output) return faulted(completion, output.error(), 0);

    const CodecResult result = inflater_.inflate(format, input->bytes(), output->bytes());
    completion.status = result.status;
    if (result.status != TANDEM_STATUS_OK) return failed(*output, completion);
    completion.result = result.consumed;
    return commit(*output, result.produced, std::move(*input), completion);
  }

  /// `completion` with the output's first `produced` bytes written, or the fault that kept them.
  static Completion commit(Output& output, std::size_t produced, Input used,
                           Completion completion) {
    const pcie::DmaResult written = output.commit(produced, std::move(used));
    const auto done = static_cast<std::uint32_t>(written.done_bytes);
    account(completion, output.in_place(), done);
    if (!written.ok()) return faulted(completion, *written.fault, done);
    completion.done = done;
    return completion;
  }

  /// `completion`, of a codec that failed. One that wanted more room has filled what there was.
  static Completion failed(const Output& output, Completion completion) {
    if (completion.status == TANDEM_STATUS_OUTPUT_TOO_SMALL) {
      account(completion, output.in_place(), output.bytes().size());
    }
    return completion;
  }

  /// Takes and makes a chunk at a time, so that operands of any length need a chunk of scratch.
  ///
  /// A fault in the first chunk's operands leaves the stream unharmed; later ones end the operation
  /// with what was done, and the client meets the fault when it submits the rest. A fault in
  /// writing out what was decoded loses bytes, so it ends the stream.
  Completion inflate_stream(const tandem_descriptor& descriptor, const pcie::AddressSpace& space,
                            StreamSession& session) {
    if ((descriptor.flags & TANDEM_DESC_FIRST) != 0) {
      session.format = descriptor.param;
      session.stream.emplace(static_cast<Format>(descriptor.param));
    }
    if (!session.stream || session.format != descriptor.param) {
      return {.status = TANDEM_STATUS_BAD_DESCRIPTOR};
    }
    const bool last = (descriptor.flags & TANDEM_DESC_LAST) != 0;
    Completion total;
    for (bool more = true; more;) {
      const auto taken = static_cast<std::uint32_t>(total.result);
      const std::uint32_t in_left = descriptor.src_len - taken;
      const std::uint32_t out_left = descriptor.dst_len - total.done;
      const std::uint32_t in_size = std::min(in_left, kStreamChunk);
      const std::uint32_t out_size = std::min(out_left, kStreamChunk);
      const bool first = taken == 0 && total.done == 0;

      auto input = Input::fetch(space, descriptor.src + taken, in_size, true, input_scratch_);
      if (!input) return first ? not_fetched(input.error(), descriptor) : total;
      auto output =
          Output::prepare(space, descriptor.dst + total.done, out_size, true, output_scratch_);
      if (!output && first) {
        account(total, false, input->bytes().size());
        return faulted(total, output.error(), 0);
      }
      if (!output) return total;
      const CodecResult result =
          session.stream->step(input->bytes(), output->bytes(), last && in_size == in_left);
      const pcie::DmaResult written = output->commit(result.produced, std::move(*input));
      total.done += static_cast<std::uint32_t>(written.done_bytes);
      account(total, false, result.consumed);
      account(total, output->in_place(), written.done_bytes);
      if (!written.ok()) {
        session.stream.reset();
        return faulted(total, *written.fault, total.done);
      }
      total.result += result.consumed;
      total.status = result.status;
      total.stream_end = result.end;
      if (result.end || result.status != TANDEM_STATUS_OK) {
        session.stream.reset();
        return total;
      }
      const bool progress = result.consumed != 0 || result.produced != 0;
      more = progress && (total.result < descriptor.src_len || total.done < descriptor.dst_len);
    }
    return total;
  }

  std::vector<std::byte> input_scratch_;
  std::vector<std::byte> output_scratch_;
  Compressor compressor_;
  Inflater inflater_;
};

class CompEngine final : public uacce::Engine {
 public:
  explicit CompEngine(std::string name) : name_(std::move(name)) {}

  uacce::DeviceTraits traits() const override {
    return {.name = name_, .api = "tandem_comp_v1", .algorithms = {"deflate", "zlib", "gzip"}};
  }
  std::unique_ptr<uacce::Worker> make_worker() override { return std::make_unique<CompWorker>(); }
  std::unique_ptr<uacce::Session> make_session() override {
    return std::make_unique<StreamSession>();
  }

 private:
  std::string name_;
};

}  // namespace

std::unique_ptr<uacce::Engine> make_engine(std::string name) {
  return std::make_unique<CompEngine>(std::move(name));
}

}  // namespace tandem::engine::comp
