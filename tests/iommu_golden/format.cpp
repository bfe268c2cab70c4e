// SPDX-License-Identifier: Apache-2.0
#include "tests/iommu_golden/format.hpp"

#include <zlib.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <string_view>

#include "tandem/base/check.hpp"

namespace tandem::iommu::golden {
namespace {

std::vector<unsigned char> inflated(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  TANDEM_CHECK(file.is_open());
  std::vector<char> from{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  std::vector<unsigned char> out(std::size_t{32} << 20);
  uLongf length = out.size();
  TANDEM_CHECK(uncompress(out.data(), &length, reinterpret_cast<const Bytef*>(from.data()),
                          static_cast<uLong>(from.size())) == Z_OK);
  out.resize(length);
  return out;
}

/// Takes little-endian integers one after the other.
class Bytes {
 public:
  explicit Bytes(std::vector<unsigned char> bytes) : bytes_(std::move(bytes)) {}
  template <class T>
  T take() {
    TANDEM_CHECK(bytes_.size() - at_ >= sizeof(T));
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }
  std::uint8_t u8() { return take<std::uint8_t>(); }
  std::uint16_t u16() { return take<std::uint16_t>(); }
  std::uint32_t u32() { return take<std::uint32_t>(); }
  std::uint64_t u64() { return take<std::uint64_t>(); }
  std::uint64_t word(unsigned size_bytes) { return size_bytes == 4 ? u32() : u64(); }
  /// Seven bits in each byte, the low ones first; the last byte has bit 7 clear.
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
      const std::uint64_t byte = u8();
      value |= (byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) return value;
    }
  }
  std::optional<Pasid> pasid(bool present) {
    if (!present) return std::nullopt;
    return Pasid{static_cast<std::uint32_t>(varint())};
  }

 private:
  std::vector<unsigned char> bytes_;
  std::size_t at_ = 0;
};

bool bit(std::uint64_t value, unsigned number) { return (value >> number & 1) != 0; }

World take_world(Bytes& bytes) {
  World world;
  world.seed = bytes.u64();
  world.options.capabilities = bytes.u64();
  world.options.counters = bytes.u8();
  world.options.counter_bits = bytes.u8();
  world.options.vector_bits = bytes.u8();
  world.options.rcid_bits = bytes.u8();
  world.options.mcid_bits = bytes.u8();
  world.options.reset_mode = static_cast<Ddtp::ModeValue>(bytes.u8());
  const std::uint8_t flags = bytes.u8();
  world.flushes = bit(flags, 0);
  world.options.big_endian = bit(flags, 3);
  world.ram_pages = bytes.u16();
  world.devices.resize(bytes.u8());
  for (DeviceId& id : world.devices) id.value = bytes.u32();
  std::uint64_t next = 0;
  while (const std::uint64_t gap = bytes.varint()) {
    next += gap;
    world.words.emplace_back((next - 1) * sizeof(std::uint64_t), bytes.u64());
  }
  return world;
}

Message take_message(Bytes& bytes) {
  Message message;
  const std::uint8_t flags = bytes.u8();
  message.is_response = bit(flags, 0);
  message.global = bit(flags, 2);
  message.answer = static_cast<Answer>(flags >> 4 & 3);
  message.device = bytes.u8();
  message.pasid = bytes.pasid(bit(flags, 1));
  if (message.is_response) {
    message.group = bytes.u16();
    message.code = bytes.u8();
  } else {
    message.address = bytes.u64();
    message.size_bytes = bytes.u64();
  }
  return message;
}

Effects take_effects(Bytes& bytes) {
  Effects effects;
  const std::uint8_t present = bytes.u8();
  if (bit(present, 0)) {
    const std::uint16_t changed = bytes.u16();
    for (unsigned i = 0; i < kQueueRegisters.size(); ++i) {
      if (bit(changed, i)) effects.registers.emplace_back(i, bytes.u32());
    }
  }
  if (bit(present, 1)) effects.fault_records.resize(bytes.u8());
  for (auto& record : effects.fault_records) record = bytes.take<std::array<std::uint64_t, 4>>();
  if (bit(present, 2)) effects.page_records.resize(bytes.u8());
  for (auto& record : effects.page_records) record = bytes.take<std::array<std::uint64_t, 2>>();
  if (bit(present, 3)) effects.messages.resize(bytes.u8());
  for (Message& message : effects.messages) message = take_message(bytes);
  return effects;
}

Request take_request(Bytes& bytes) {
  Request request;
  request.device = bytes.u8();
  const std::uint8_t flags = bytes.u8();
  request.kind = static_cast<RequestKind>(flags & 3);
  request.requester.privileged = bit(flags, 3);
  request.access = bit(flags, 5)   ? Access::kWrite
                   : bit(flags, 4) ? Access::kExecute
                                   : Access::kRead;
  request.ats = {.no_write = bit(flags, 6), .execute = bit(flags, 4), .cxl = bit(flags, 7)};
  request.requester.pasid = bytes.pasid(bit(flags, 2));
  request.at = {bytes.u64()};
  return request;
}

Response take_response(Bytes& bytes) {
  Response response;
  response.status = bytes.u8();
  if (response.status != 0) {
    response.cause = static_cast<Cause>(bytes.u16());
    return response;
  }
  const std::uint16_t flags = bytes.u16();
  response.readable = bit(flags, 0);
  response.writable = bit(flags, 1);
  response.executable = bit(flags, 2);
  response.privileged = bit(flags, 3);
  response.global = bit(flags, 4);
  response.untranslated_only = bit(flags, 5);
  response.cxl_io = bit(flags, 6);
  response.msi = bit(flags, 8);
  response.mrif = bit(flags, 9);
  response.memory_type = flags >> 10 & 3;
  response.context = bytes.u16();
  response.address = bytes.u64();
  response.log2_size = bytes.u8();
  response.largest_log2 = bytes.u8();
  if (response.mrif) {
    response.mrif_file = bytes.u64();
    response.notice_data = bytes.u32();
  }
  return response;
}

PageRequest take_page_request(Bytes& bytes) {
  PageRequest request;
  const std::uint8_t flags = bytes.u8();
  request.pasid = bytes.pasid(bit(flags, 0));
  request.privileged = bit(flags, 1);
  request.execute = bit(flags, 2);
  const std::uint64_t payload = bytes.u64();
  using Payload = PageRequestRecord::Payload;
  request.read = Payload::R::get(payload) != 0;
  request.write = Payload::W::get(payload) != 0;
  request.last = Payload::L::get(payload) != 0;
  request.group = static_cast<std::uint16_t>(Payload::Prgi::get(payload));
  request.address = {payload & Payload::Address::kMask};
  return request;
}

DebugResponse take_debug_response(Bytes& bytes) {
  DebugResponse response;
  response.fault = bytes.u8() != 0;
  if (response.fault) return response;
  response.memory_type = bytes.u8();
  response.address = bytes.u64();
  response.log2_size = bytes.u8();
  response.largest_log2 = bytes.u8();
  return response;
}

std::optional<QosIds> take_qos_ids(Bytes& bytes) {
  const std::uint32_t both = bytes.u32();
  if (both == ~std::uint32_t{0}) return std::nullopt;
  return QosIds{static_cast<std::uint16_t>(both), static_cast<std::uint16_t>(both >> 16)};
}

Checkpoint take_checkpoint(Bytes& bytes) {
  Checkpoint checkpoint;
  checkpoint.memory_hash = bytes.u64();
  checkpoint.registers.resize(bytes.u16());
  for (auto& [offset, value] : checkpoint.registers) {
    offset = bytes.u16();
    value = bytes.u32();
  }
  return checkpoint;
}

enum class Tag : std::uint8_t {
  kEnd,
  kWorld,
  kWrite,
  kRead,
  kStore,
  kCommand,
  kRequest,
  kPageRequest,
  kFlush,
  kPoison,
  kReset,
  kQosIds,
  kCheckpoint,
  kDebug,
};

/// Tells one event; returns false at the end of the world.
bool visit_event(Bytes& bytes, Visitor& visitor) {
  switch (static_cast<Tag>(bytes.u8())) {
    case Tag::kEnd:
      return false;
    case Tag::kWrite: {
      const std::uint32_t offset = bytes.u16();
      const unsigned size_bytes = bytes.u8();
      const std::uint64_t value = bytes.word(size_bytes);
      visitor.write(offset, size_bytes, value, take_effects(bytes));
      return true;
    }
    case Tag::kRead: {
      const std::uint32_t offset = bytes.u16();
      const unsigned size_bytes = bytes.u8();
      visitor.read(offset, size_bytes, bytes.word(size_bytes));
      return true;
    }
    case Tag::kStore: {
      const std::uint64_t address = bytes.u64();
      const unsigned size_bytes = bytes.u8();
      visitor.store(address, size_bytes, bytes.word(size_bytes));
      return true;
    }
    case Tag::kCommand: {
      const std::uint64_t address = bytes.u64();
      visitor.command(address, bytes.take<std::array<std::uint64_t, 2>>());
      return true;
    }
    case Tag::kRequest: {
      const Request request = take_request(bytes);
      const Response response = take_response(bytes);
      visitor.request(request, response, take_effects(bytes));
      return true;
    }
    case Tag::kPageRequest: {
      const std::size_t device = bytes.u8();
      const PageRequest request = take_page_request(bytes);
      visitor.page_request(device, request, take_effects(bytes));
      return true;
    }
    case Tag::kFlush:
      visitor.flush();
      return true;
    case Tag::kPoison: {
      const std::uint64_t address = bytes.u64();
      const std::uint32_t size_bytes = bytes.u32();
      visitor.poison(address, size_bytes, bytes.u8() != 0);
      return true;
    }
    case Tag::kReset:
      visitor.reset(take_effects(bytes));
      return true;
    case Tag::kQosIds: {
      const std::size_t device = bytes.u8();
      visitor.qos_ids(device, take_qos_ids(bytes));
      return true;
    }
    case Tag::kCheckpoint:
      visitor.checkpoint(take_checkpoint(bytes));
      return true;
    case Tag::kDebug:
      visitor.debug(take_debug_response(bytes));
      return true;
    case Tag::kWorld:
      break;
  }
  TANDEM_CHECK(false);
  return false;
}

}  // namespace

std::uint64_t image_offset(std::uint64_t address) {
  if (address - kRamBase < kRamBytes) return address - kRamBase;
  if (address - kReadOnlyBase < kReadOnlyBytes) return kRamBytes + (address - kReadOnlyBase);
  TANDEM_CHECK(address - kIoBase < kIoBytes);
  return kRamBytes + kReadOnlyBytes + (address - kIoBase);
}

void visit(const std::string& path, Visitor& visitor) {
  Bytes bytes{inflated(path)};
  const auto magic = bytes.take<std::array<char, 8>>();
  TANDEM_CHECK((std::string_view{magic.data(), magic.size()} == "TNDMIOV1"));
  while (static_cast<Tag>(bytes.u8()) == Tag::kWorld) {
    visitor.begin(take_world(bytes));
    while (visit_event(bytes, visitor)) {
    }
  }
}

}  // namespace tandem::iommu::golden
