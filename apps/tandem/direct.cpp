// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/direct.hpp"

#include <isa-l/igzip_lib.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <memory>

#include "apps/tandem/queue.hpp"
#include "apps/tandem/tenant.hpp"
#include "tandem/base/mapping.hpp"

namespace tandem::cli {
namespace {

constexpr std::size_t kBlocks = 256;
constexpr unsigned kInFlight = 8;
constexpr int kRounds = 9;

struct Blocks {
  std::vector<std::span<std::byte>> inputs;
  std::uint64_t bytes = 0;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// isa-l as the engine calls it: one member a block, state kept between blocks.
double run_direct(const Blocks& blocks, std::span<std::byte> output) {
  static std::array<std::uint8_t, ISAL_DEF_LVL1_DEFAULT> level_buffer;
  const auto stream = std::make_unique<isal_zstream>();
  const auto start = std::chrono::steady_clock::now();
  for (const auto input : blocks.inputs) {
    isal_deflate_stateless_init(stream.get());
    stream->level = 1;
    stream->level_buf = level_buffer.data();
    stream->level_buf_size = static_cast<std::uint32_t>(level_buffer.size());
    stream->gzip_flag = IGZIP_GZIP;
    stream->end_of_stream = 1;
    stream->next_in = reinterpret_cast<std::uint8_t*>(input.data());
    stream->avail_in = static_cast<std::uint32_t>(input.size());
    stream->next_out = reinterpret_cast<std::uint8_t*>(output.data());
    stream->avail_out = static_cast<std::uint32_t>(output.size());
    if (isal_deflate_stateless(stream.get()) != COMP_OK) return 0;
  }
  return static_cast<double>(blocks.bytes) / seconds_since(start);
}

Result<double, Failure> run_device(Queue& queue, const Blocks& blocks,
                                   std::array<std::span<std::byte>, kInFlight> outputs) {
  std::array<wd_request, kInFlight> requests{};
  const auto start = std::chrono::steady_clock::now();
  for (std::size_t sent = 0, received = 0; received < blocks.inputs.size();) {
    if (sent < blocks.inputs.size() && sent - received < kInFlight) {
      wd_request& request = requests[sent % kInFlight];
      request = wd_request{};
      request.opcode = WD_OP_GZIP;
      request.param = kShareLevel;
      request.src = blocks.inputs[sent].data();
      request.src_len = static_cast<std::uint32_t>(blocks.inputs[sent].size());
      request.dst = outputs[sent % kInFlight].data();
      request.dst_len = static_cast<std::uint32_t>(outputs[sent % kInFlight].size());
      if (const int error = wd_send(queue.raw(), &request); error < 0) {
        return Unexpected{from_wd("comparison", error)};
      }
      ++sent;
      continue;
    }
    wd_request* done = nullptr;
    if (const int error = wd_recv_sync(queue.raw(), &done); error < 0) {
      return Unexpected{from_wd("comparison", error)};
    }
    if (done->status != TANDEM_STATUS_OK) {
      return Unexpected{
          Failure{kFailure, fmt::format("comparison: {}", wd_strstatus(done->status))}};
    }
    ++received;
  }
  return static_cast<double>(blocks.bytes) / seconds_since(start);
}

}  // namespace

Result<DirectComparison, Failure> compare_with_direct(Corpus& corpus) {
  auto queue = Queue::open("gzip", kInFlight);
  if (!queue) return Unexpected{from_wd("comparison", queue.error())};
  const std::size_t count = std::min<std::size_t>(kBlocks, corpus.blocks());
  const std::size_t out_bytes = round_up_to_page(tandem_compress_bound(Corpus::kBlockBytes));
  auto heap = std::make_unique<std::byte[]>(count * Corpus::kBlockBytes);
  const auto reserved = (*queue)->reserve(count * Corpus::kBlockBytes + kInFlight * out_bytes);
  if (reserved.empty()) return Unexpected{Failure{kFailure, "comparison: no reserved memory"}};
  Blocks blocks;
  for (std::size_t i = 0; i < count; ++i) {
    const std::span<std::byte> heap_block(heap.get() + i * Corpus::kBlockBytes,
                                          Corpus::kBlockBytes);
    const auto block =
        i % 2 == 0 ? heap_block : reserved.subspan(i * Corpus::kBlockBytes, Corpus::kBlockBytes);
    // Spread over the whole corpus, so that no one kind of file decides.
    const std::size_t size = corpus.read(i * corpus.blocks() / count, block);
    if (size == 0) continue;
    blocks.inputs.push_back(block.first(size));
    blocks.bytes += size;
  }
  std::array<std::span<std::byte>, kInFlight> outputs;
  for (unsigned i = 0; i < kInFlight; ++i) {
    outputs[i] = reserved.subspan(count * Corpus::kBlockBytes + i * out_bytes, out_bytes);
  }
  DirectComparison best;
  best.bytes = blocks.bytes;
  for (int round = 0; round < kRounds; ++round) {
    best.direct = std::max(best.direct, run_direct(blocks, outputs[0]));
    const auto device = run_device(**queue, blocks, outputs);
    if (!device) return Unexpected{device.error()};
    best.device = std::max(best.device, *device);
  }
  return best;
}

}  // namespace tandem::cli
