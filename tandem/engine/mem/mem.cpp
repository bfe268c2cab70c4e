// SPDX-License-Identifier: Apache-2.0
#include "tandem/engine/mem/mem.hpp"

#include <isa-l.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "tandem/base/planted_fault.hpp"

namespace tandem::engine::mem {
namespace {

using pcie::AddressSpace;
using pcie::DmaResult;
using pcie::Iova;
using uacce::Completion;

constexpr std::size_t kChunk = 32u << 10;  // stays in the first-level cache between read and write

/// Copies `length` bytes, at most kChunk, through `buffer`. What was readable is written even when
/// a fault follows it.
DmaResult copy_chunk(const AddressSpace& space, std::uint64_t from, std::uint64_t to,
                     std::span<std::byte> buffer) {
  const DmaResult read = space.read(Iova{from}, buffer);
  if (planted_fault("mem-corrupt-copy") && read.done_bytes != 0) buffer[0] ^= std::byte{1};
  const DmaResult written = space.write(Iova{to}, buffer.first(read.done_bytes));
  return written.ok() ? DmaResult{written.done_bytes, read.fault} : written;
}

/// What a fault ended after `done` bytes; each of them went through a copy `copies` times.
Completion faulted(const pcie::DmaFault& fault, std::uint32_t done, std::uint64_t copies) {
  Completion completion = Completion::from_fault(fault, done);
  completion.bytes_copied = done * copies;
  return completion;
}

class MemWorker final : public uacce::Worker {
 public:
  MemWorker() : first_(kChunk), second_(kChunk) {}

  Completion execute(const tandem_descriptor& descriptor, const AddressSpace& space,
                     uacce::Session*) override;

 private:
  struct Operation {
    tandem_opcode opcode;
    tandem_status (*check)(const tandem_descriptor&);
    Completion (MemWorker::*run)(const tandem_descriptor&, const AddressSpace&);
  };
  static const Operation kOperations[];

  Completion copy(const tandem_descriptor& descriptor, const AddressSpace& space);
  Completion copy_from_end(const tandem_descriptor& descriptor, const AddressSpace& space);
  Completion fill(const tandem_descriptor& descriptor, const AddressSpace& space);
  Completion compare(const tandem_descriptor& descriptor, const AddressSpace& space);
  Completion crc32c(const tandem_descriptor& descriptor, const AddressSpace& space);

  std::vector<std::byte> first_;
  std::vector<std::byte> second_;
};

bool wraps(std::uint64_t address, std::uint32_t length) {
  return length != 0 && address + (length - 1) < address;
}

tandem_status require(bool condition) {
  return condition ? TANDEM_STATUS_OK : TANDEM_STATUS_BAD_DESCRIPTOR;
}

const MemWorker::Operation MemWorker::kOperations[] = {
    {TANDEM_OP_COPY,
     [](const tandem_descriptor& d) {
       return d.dst_len < d.src_len ? TANDEM_STATUS_OUTPUT_TOO_SMALL : TANDEM_STATUS_OK;
     },
     &MemWorker::copy},
    {TANDEM_OP_FILL, [](const tandem_descriptor& d) { return require(d.src_len == 0); },
     &MemWorker::fill},
    {TANDEM_OP_COMPARE, [](const tandem_descriptor& d) { return require(d.dst_len == d.src_len); },
     &MemWorker::compare},
    {TANDEM_OP_CRC32C,
     [](const tandem_descriptor& d) { return require(d.dst_len == 0 && d.operand >> 32 == 0); },
     &MemWorker::crc32c},
};

Completion MemWorker::execute(const tandem_descriptor& descriptor, const AddressSpace& space,
                              uacce::Session*) {
  for (const Operation& operation : kOperations) {
    if (operation.opcode != descriptor.opcode) continue;
    if (descriptor.flags != 0 || descriptor.param != 0 || descriptor.reserved[0] != 0 ||
        descriptor.reserved[1] != 0) {
      return {.status = TANDEM_STATUS_BAD_DESCRIPTOR};
    }
    const tandem_status status = operation.check(descriptor);
    if (status != TANDEM_STATUS_OK) return {.status = status};
    for (const auto& [address, length] : {std::pair{descriptor.src, descriptor.src_len},
                                          std::pair{descriptor.dst, descriptor.dst_len}}) {
      if (wraps(address, length)) {
        return {.status = TANDEM_STATUS_BAD_RANGE, .fault_address = address};
      }
    }
    return (this->*operation.run)(descriptor, space);
  }
  return {.status = TANDEM_STATUS_UNKNOWN_OPCODE};
}

Completion MemWorker::copy(const tandem_descriptor& descriptor, const AddressSpace& space) {
  const std::uint32_t length = descriptor.src_len;
  if (length > kChunk && descriptor.dst > descriptor.src &&
      descriptor.dst - descriptor.src < length) {
    return copy_from_end(descriptor, space);
  }
  std::uint32_t done = 0;
  std::uint64_t in_place = 0;
  while (done < length) {
    const std::size_t size = std::min<std::size_t>(kChunk, length - done);
    const std::uint64_t from = descriptor.src + done, to = descriptor.dst + done;
    if (!planted_fault("mem-corrupt-copy") && space.copy_cached(Iova{from}, Iova{to}, size)) {
      done += static_cast<std::uint32_t>(size);
      in_place += size;
      continue;
    }
    const DmaResult chunk = copy_chunk(space, from, to, std::span{first_}.first(size));
    done += static_cast<std::uint32_t>(chunk.done_bytes);
    if (!chunk.ok()) {
      Completion completion = Completion::from_fault(*chunk.fault, done);
      completion.bytes_zero_copy = in_place * 2;
      completion.bytes_copied = (done - in_place) * 2;
      return completion;
    }
  }
  return {.done = done, .bytes_zero_copy = in_place * 2, .bytes_copied = (done - in_place) * 2};
}

/// Copies the last chunk first: the destination begins inside the source.
Completion MemWorker::copy_from_end(const tandem_descriptor& descriptor,
                                    const AddressSpace& space) {
  std::uint32_t left = descriptor.src_len;
  while (left > 0) {
    const std::size_t size = std::min<std::size_t>(kChunk, left);
    const std::uint64_t offset = left - size;
    const auto buffer = std::span{first_}.first(size);
    // A chunk that cannot be read whole is not written: its first bytes would not join the others.
    const std::uint32_t done = descriptor.src_len - left;
    const DmaResult read = space.read(Iova{descriptor.src + offset}, buffer);
    if (!read.ok()) return faulted(*read.fault, done, 2);
    const DmaResult written = space.write(Iova{descriptor.dst + offset}, buffer);
    if (!written.ok()) return faulted(*written.fault, done, 2);
    left -= static_cast<std::uint32_t>(size);
  }
  return {.done = descriptor.src_len, .bytes_copied = std::uint64_t{descriptor.src_len} * 2};
}

Completion MemWorker::fill(const tandem_descriptor& descriptor, const AddressSpace& space) {
  const std::uint32_t length = descriptor.dst_len;
  const auto pattern = std::span{first_}.first(std::min<std::size_t>(kChunk, length));
  for (std::size_t at = 0; at < pattern.size(); at += sizeof descriptor.operand) {
    const std::size_t size = std::min(sizeof descriptor.operand, pattern.size() - at);
    std::memcpy(&pattern[at], &descriptor.operand, size);
  }
  static_assert(kChunk % sizeof descriptor.operand == 0, "chunks continue the pattern");
  std::uint32_t done = 0;
  while (done < length) {
    const std::size_t size = std::min<std::size_t>(kChunk, length - done);
    const DmaResult written = space.write(Iova{descriptor.dst + done}, pattern.first(size));
    done += static_cast<std::uint32_t>(written.done_bytes);
    if (!written.ok()) return faulted(*written.fault, done, 1);
  }
  return {.done = done, .bytes_copied = done};
}

Completion MemWorker::compare(const tandem_descriptor& descriptor, const AddressSpace& space) {
  const std::uint32_t length = descriptor.src_len;
  std::uint32_t done = 0;
  while (done < length) {
    const std::size_t size = std::min<std::size_t>(kChunk, length - done);
    const auto a = std::span{first_}.first(size);
    const auto b = std::span{second_}.first(size);
    const DmaResult read_a = space.read(Iova{descriptor.src + done}, a);
    const DmaResult read_b = space.read(Iova{descriptor.dst + done}, b);
    const std::size_t readable = std::min(read_a.done_bytes, read_b.done_bytes);
    if (std::memcmp(a.data(), b.data(), readable) != 0) {
      const auto same = std::ranges::mismatch(a.first(readable), b.first(readable)).in1 - a.begin();
      done += static_cast<std::uint32_t>(same);
      return {.done = done, .result = done, .bytes_copied = std::uint64_t{done} * 2};
    }
    done += static_cast<std::uint32_t>(readable);
    if (readable < size) {
      const bool source = !read_a.ok() && read_a.done_bytes == readable;
      return faulted(source ? *read_a.fault : *read_b.fault, done, 2);
    }
  }
  return {.done = done, .result = done, .bytes_copied = std::uint64_t{done} * 2};
}

Completion MemWorker::crc32c(const tandem_descriptor& descriptor, const AddressSpace& space) {
  auto state = ~static_cast<std::uint32_t>(descriptor.operand);
  std::uint32_t done = 0;
  while (done < descriptor.src_len) {
    const std::size_t size = std::min<std::size_t>(kChunk, descriptor.src_len - done);
    const DmaResult read = space.read(Iova{descriptor.src + done}, std::span{first_}.first(size));
    done += static_cast<std::uint32_t>(read.done_bytes);
    if (!read.ok()) return faulted(*read.fault, done, 1);
    state =
        crc32_iscsi(reinterpret_cast<unsigned char*>(first_.data()), static_cast<int>(size), state);
  }
  return {.done = done, .result = static_cast<std::uint32_t>(~state), .bytes_copied = done};
}

class MemEngine final : public uacce::Engine {
 public:
  explicit MemEngine(std::string name) : name_(std::move(name)) {}

  uacce::DeviceTraits traits() const override {
    return {
        .name = name_, .api = "tandem_mem_v1", .algorithms = {"memory", "crc32c"}, .quick = true};
  }
  std::unique_ptr<uacce::Worker> make_worker() override { return std::make_unique<MemWorker>(); }

 private:
  std::string name_;
};

}  // namespace

std::unique_ptr<uacce::Engine> make_engine(std::string name) {
  return std::make_unique<MemEngine>(std::move(name));
}

}  // namespace tandem::engine::mem
