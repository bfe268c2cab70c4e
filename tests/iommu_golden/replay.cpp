// SPDX-License-Identifier: Apache-2.0
#include "tests/iommu_golden/replay.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <sstream>

#include "tandem/base/check.hpp"

namespace tandem::iommu::golden {
namespace {

using memory::Outcome;

/// FNV-1a over 64-bit words.
class Hash {
 public:
  void add(std::uint64_t word) { value_ = (value_ ^ word) * 0x100'0000'01b3; }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf2'9ce4'8422'2325;
};

std::uint64_t size_mask(unsigned log2_size) { return (std::uint64_t{1} << log2_size) - 1; }

}  // namespace

/// I/O memory that takes 4-byte writes and refuses to be read.
class Replay::IoPage final : public memory::IoRegion {
 public:
  explicit IoPage(std::byte* bytes) : bytes_(bytes) {}
  Outcome read(std::uint64_t, std::span<std::byte>) override {
    return {0, memory::Fault::kRefused};
  }
  Outcome write(std::uint64_t offset, std::span<const std::byte> from) override {
    if (from.size() != 4) return {0, memory::Fault::kRefused};
    std::memcpy(bytes_ + offset, from.data(), from.size());
    return {from.size(), memory::Fault::kNone};
  }

 private:
  std::byte* bytes_;
};

class Replay::Device final : public DeviceCallbacks {
 public:
  Device(Replay& replay, std::size_t index) : replay_(replay), index_(index) {}
  InvalidationReply invalidate(const AtsInvalidation& request) override {
    return replay_.answer(index_, request);
  }
  void page_response(const PageResponse& response) override {
    Message message;
    message.is_response = true;
    message.device = index_;
    message.pasid = response.pasid;
    message.group = response.group;
    message.code = static_cast<std::uint8_t>(response.code);
    replay_.receive(message);
  }
  std::unique_ptr<Port> port;

 private:
  Replay& replay_;
  std::size_t index_;
};

Replay::Replay() : image_(std::move(*Mapping::anonymous(kImageBytes))) {
  const std::span<std::byte> bytes = image_.bytes();
  TANDEM_CHECK(memory_.add_host_ram({kRamBase}, bytes.first(kRamBytes)).has_value());
  TANDEM_CHECK(
      memory_.add_host_ram({kReadOnlyBase}, bytes.subspan(kRamBytes, kReadOnlyBytes), false)
          .has_value());
  auto io = std::make_shared<IoPage>(bytes.data() + kRamBytes + kReadOnlyBytes);
  TANDEM_CHECK(memory_.add_io({kIoBase}, kIoBytes, std::move(io)).has_value());
}

Replay::~Replay() = default;

void Replay::begin(const World& world) {
  devices_.clear();
  iommu_.reset();
  TANDEM_CHECK(memory_.clear_poison({kRamBase}, kRamBytes).has_value());
  world_ = world;
  std::memset(image_.data(), 0, kImageBytes);
  for (const auto& [offset, value] : world.words) {
    std::memcpy(image_.data() + offset, &value, sizeof value);
  }
  iommu_ = std::make_unique<Iommu>(memory_, world.options);
  for (const DeviceId id : world.devices) {
    auto device = std::make_unique<Device>(*this, devices_.size());
    device->port = std::move(*iommu_->attach(id, *device));
    devices_.push_back(std::move(device));
  }
  queue_.fill(0);
  registers_.fill(0);
  unknown_queue_ = 0;
  event_ = 0;
  differs_ = false;
}

void Replay::write(std::uint32_t offset, unsigned size_bytes, std::uint64_t value,
                   const Effects& effects) {
  if (offset == reg::kTrReqCtl) flush_if_told();
  if (offset == reg::kTrReqIova && size_bytes == 8) debug_address_ = value;
  expect(effects);
  iommu_->mmio_write(offset, value, size_bytes);
  // An index is UNSPECIFIED from the write of its base to its own.
  constexpr std::uint32_t kBases[] = {reg::kCqb, reg::kFqb, reg::kPqb};
  constexpr std::uint32_t kIndices[] = {reg::kCqt, reg::kFqh, reg::kPqh};
  for (std::size_t i = 0; i < std::size(kBases); ++i) {
    const auto at = std::find(kQueueRegisters.begin(), kQueueRegisters.end(), kIndices[i]);
    const std::uint32_t bit = 1U << (at - kQueueRegisters.begin());
    if (offset == kBases[i]) unknown_queue_ |= bit;
    if (offset == kIndices[i]) unknown_queue_ &= ~bit;
  }
  compare_effects();
}

void Replay::read(std::uint32_t offset, unsigned size_bytes, std::uint64_t expected) {
  ++event_;
  compare("register read", iommu_->mmio_read(offset, size_bytes), expected);
}

void Replay::store(std::uint64_t address, unsigned size_bytes, std::uint64_t value) {
  ++event_;
  std::memcpy(image_.data() + image_offset(address), &value, size_bytes);
}

void Replay::command(std::uint64_t address, const std::array<std::uint64_t, 2>& words) {
  ++event_;
  std::memcpy(image_.data() + image_offset(address), words.data(), sizeof words);
}

Response Replay::translate(const Request& request) {
  Response got;
  Port& port = *devices_[request.device]->port;
  const auto take = [&got](const Translation& from) {
    got.address = from.address.value;
    got.log2_size = from.log2_size;
    got.memory_type = static_cast<std::uint8_t>(from.memory_type);
    got.msi = from.msi;
    got.mrif = from.mrif;
  };
  if (request.kind == RequestKind::kAts) {
    const auto done = port.ats_translate(request.requester, request.at, request.ats);
    constexpr std::uint8_t kStatus[] = {0, 1, 4};
    got.status = kStatus[static_cast<std::size_t>(done.status)];
    if (got.status != 0) return got;
    take(done.translation);
    got.readable = done.translation.readable;
    got.writable = done.translation.writable;
    got.executable = done.translation.executable;
    got.global = done.translation.global;
    got.privileged = done.privileged;
    got.untranslated_only = done.untranslated_only;
    got.cxl_io = done.cxl_io;
    return got;
  }
  Mrif mrif;
  const auto done =
      request.kind == RequestKind::kTranslated
          ? port.translated(request.requester, PhysAddr{request.at.value}, request.access)
          : port.translate(request.requester, request.at, request.access, &mrif);
  if (!done) {
    got.status = 1;
    got.cause = done.error();
    return got;
  }
  take(*done);
  if (got.mrif) {
    got.address = mrif.notice.value | (request.at.value & size_mask(12));
    got.mrif_file = mrif.file.value;
    got.notice_data = mrif.notice_data;
  }
  return got;
}

void Replay::request(const Request& request, const Response& expected, const Effects& effects) {
  flush_if_told();
  expect(effects);
  const Response got = translate(request);
  compare_response(request, expected, got);
  compare_effects();
}

void Replay::compare_response(const Request& request, const Response& expected,
                              const Response& got) {
  compare("status", got.status, expected.status);
  if (expected.status != 0) {
    if (request.kind != RequestKind::kAts) compare("cause", got.cause, expected.cause);
    return;
  }
  if (request.kind == RequestKind::kAts) {
    compare("R", got.readable, expected.readable);
    // A cached entry may not have seen that D was set since.
    const bool may_lack_write = !world_.flushes && request.ats.no_write && expected.writable;
    if (!may_lack_write || got.writable) compare("W", got.writable, expected.writable);
    compare("X", got.executable, expected.executable);
    compare("Priv", got.privileged, expected.privileged);
    compare("Global", got.global, expected.global);
    compare("U", got.untranslated_only, expected.untranslated_only);
    compare("CXL.io", got.cxl_io, expected.cxl_io);
    if (!expected.readable && !expected.writable) return;  // the address is nobody's
  }
  compare("MRIF", got.mrif, expected.mrif);
  if (expected.mrif && request.kind != RequestKind::kUntranslated) return;  // likewise
  compare("address", got.address, expected.address);
  compare("memory type", got.memory_type, expected.memory_type);
  compare("MSI", got.msi, expected.msi);
  compare("interrupt file", got.mrif_file, expected.mrif_file);
  compare("notice", got.notice_data, expected.notice_data);
  if (got.log2_size > expected.largest_log2) differ("size", got.log2_size, expected.largest_log2);
}

void Replay::page_request(std::size_t device, const PageRequest& request, const Effects& effects) {
  flush_if_told();
  expect(effects);
  devices_[device]->port->page_request(request);
  compare_effects();
}

void Replay::flush_if_told() {
  if (world_.flushes) flush();
}

/// A rewrite of ddtp drops everything and queues nothing.
void Replay::flush() {
  ++event_;
  iommu_->mmio_write(reg::kDdtp, iommu_->mmio_read(reg::kDdtp, 8), 8);
}

void Replay::poison(std::uint64_t address, std::uint64_t size_bytes, bool set) {
  ++event_;
  const auto done =
      set ? memory_.set_poison({address}, size_bytes) : memory_.clear_poison({address}, size_bytes);
  TANDEM_CHECK(done.has_value());
}

void Replay::reset(const Effects& effects) {
  expect(effects);
  iommu_->reset();
  unknown_queue_ = 0;
  compare_effects();
}

void Replay::qos_ids(std::size_t device, std::optional<QosIds> expected) {
  ++event_;
  flush_if_told();
  const auto got = devices_[device]->port->qos_ids();
  compare("QoS ids told", got.has_value(), expected.has_value());
  if (!got || !expected) return;
  compare("RCID", got->rcid, expected->rcid);
  compare("MCID", got->mcid, expected->mcid);
}

void Replay::debug(const DebugResponse& expected) {
  ++event_;
  const std::uint64_t got = iommu_->mmio_read(reg::kTrResponse, 8);
  compare("debug fault", TrResponse::Fault::get(got), expected.fault);
  if (expected.fault || TrResponse::Fault::get(got) != 0) return;  // the rest is UNSPECIFIED
  compare("debug memory type", TrResponse::Pbmt::get(got), expected.memory_type);
  const std::uint64_t page = TrResponse::Ppn::get(got);
  const unsigned log2_size =
      TrResponse::S::get(got) != 0 ? kPageShift + napot_log2_pages(page) : kPageShift;
  const std::uint64_t mask = size_mask(log2_size);
  compare("debug address", (page << kPageShift & ~mask) | (debug_address_ & mask),
          expected.address);
  if (log2_size > expected.largest_log2) differ("debug size", log2_size, expected.largest_log2);
}

void Replay::checkpoint(const Checkpoint& expected) {
  ++event_;
  for (const auto& [offset, value] : expected.registers) registers_[offset / 4] = value;
  for (std::uint32_t offset = 0; offset < reg::kReservedFrom; offset += 4) {
    if (!is_compared(offset)) continue;
    const std::uint32_t value = registers_[offset / 4];
    compare("register of the file", iommu_->mmio_read(offset, 4), value);
  }
  Hash hash;
  for (std::uint64_t i = 0; i < world_.ram_pages * kPageBytes; i += 8) hash.add(word_at(i));
  for (std::uint64_t i = kImageBytes - kIoBytes; i < kImageBytes; i += 8) hash.add(word_at(i));
  compare("memory", hash.value(), expected.memory_hash);
}

std::uint64_t Replay::word_at(std::uint64_t offset) const {
  std::uint64_t word;
  std::memcpy(&word, image_.data() + offset, sizeof word);
  return word;
}

void Replay::expect(const Effects& effects) {
  ++event_;
  effects_ = &effects;
  received_ = 0;
}

void Replay::receive(const Message& message) {
  static const Effects kNone;
  const Effects& effects = effects_ != nullptr ? *effects_ : kNone;
  if (received_++ >= effects.messages.size()) {
    return differ("number of messages", received_, effects.messages.size());
  }
  const Message& expected = effects.messages[received_ - 1];
  compare("kind of message", message.is_response, expected.is_response);
  compare("message to device", message.device, expected.device);
  compare("message with PASID", message.pasid.has_value(), expected.pasid.has_value());
  if (message.pasid && expected.pasid) {
    compare("PASID of message", message.pasid->value, expected.pasid->value);
  }
  compare("global invalidation", message.global, expected.global);
  compare("invalidated address", message.address, expected.address);
  compare("invalidated size", message.size_bytes, expected.size_bytes);
  compare("page request group", message.group, expected.group);
  compare("response code", message.code, expected.code);
}

/// Each answer in two ways, in turn.
InvalidationReply Replay::answer(std::size_t device, const AtsInvalidation& invalidation) {
  Message message;
  message.device = device;
  message.pasid = invalidation.pasid;
  message.global = invalidation.global;
  message.address = invalidation.address.value;
  message.size_bytes = invalidation.size_bytes;
  receive(message);
  if (received_ > effects_->messages.size()) return InvalidationReply::kCompleted;
  const bool other_way = invalidation.itag % 2 != 0;
  switch (effects_->messages[received_ - 1].answer) {
    case Answer::kNow:
      if (!other_way) return InvalidationReply::kCompleted;
      devices_[device]->port->complete_invalidation(invalidation.itag);
      return InvalidationReply::kPending;
    case Answer::kLate:
      late_.push_back({device, invalidation.itag});
      return InvalidationReply::kPending;
    case Answer::kNever:
      break;
  }
  somebody_never_answers_ = true;
  return other_way ? InvalidationReply::kTimedOut : InvalidationReply::kPending;
}

void Replay::settle() {
  if (settling_) return;
  settling_ = true;
  while (!late_.empty() || somebody_never_answers_) {
    if (late_.empty()) {
      somebody_never_answers_ = false;
      iommu_->advance(std::chrono::steady_clock::now() + std::chrono::hours(1));
      continue;
    }
    const Late last = late_.back();
    late_.pop_back();
    devices_[last.device]->port->complete_invalidation(last.itag);
  }
  settling_ = false;
}

void Replay::compare_effects() {
  settle();
  const Effects& expected = *effects_;
  compare("number of messages", received_, expected.messages.size());
  for (const auto& [i, value] : expected.registers) queue_[i] = value;
  for (std::size_t i = 0; i < queue_.size(); ++i) {
    if ((unknown_queue_ >> i & 1) != 0) continue;
    const std::uint32_t value = queue_[i];
    compare("queue register", iommu_->mmio_read(kQueueRegisters[i], 4), value);
  }
  compare_records("fault record", reg::kFqb, reg::kFqt, expected.fault_records);
  compare_records("page-request record", reg::kPqb, reg::kPqt, expected.page_records);
  effects_ = nullptr;
}

template <std::size_t Words>
void Replay::compare_records(const char* what, std::uint32_t base, std::uint32_t tail,
                             const std::vector<std::array<std::uint64_t, Words>>& expected) {
  if (expected.empty()) return;
  const std::uint64_t queue = iommu_->mmio_read(base, 8);
  const std::uint64_t entries = std::uint64_t{2} << QueueBase::Log2SizeMinus1::get(queue);
  const std::uint64_t first = QueueBase::Ppn::get(queue) << kPageShift;
  const std::uint64_t end = iommu_->mmio_read(tail, 4);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const std::uint64_t at = (end - expected.size() + i) & (entries - 1);
    for (std::size_t word = 0; word < Words; ++word) {
      const std::uint64_t address = first + (at * Words + word) * sizeof(std::uint64_t);
      compare(what, word_at(image_offset(address)), expected[i][word]);
    }
  }
}

void Replay::differ(const char* what, std::uint64_t got, std::uint64_t expected) {
  if (differs_) return;
  differs_ = true;
  std::ostringstream text;
  text << "world " << world_.seed << ", event " << event_ << ": " << what << ": " << std::hex
       << "got 0x" << got << ", the model has 0x" << expected;
  differences_.push_back(text.str());
}

}  // namespace tandem::iommu::golden
