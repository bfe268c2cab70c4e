// SPDX-License-Identifier: Apache-2.0
// A guest that reads and writes the configuration space, BARs and the IOMMU's registers of a board
// as it likes, while the functions make accesses.
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <memory>
#include <vector>

#include "input.hpp"
#include "tandem/base/check.hpp"
#include "tandem/pcie/board.hpp"
#include "tandem/pcie/spec.hpp"

namespace tandem::fuzz {
namespace {

using namespace pcie;
using memory::PhysAddr;

/// What is behind a BAR: every access has to lie in it.
class Scratch final : public memory::IoRegion {
 public:
  explicit Scratch(std::uint64_t size_bytes) : size_bytes_(size_bytes) {}
  memory::Outcome read(std::uint64_t offset, std::span<std::byte> to) override {
    TANDEM_CHECK(offset < size_bytes_ && to.size() <= size_bytes_ - offset);
    std::ranges::fill(to, std::byte{0x5a});
    return {to.size(), memory::Fault::kNone};
  }
  memory::Outcome write(std::uint64_t offset, std::span<const std::byte> from) override {
    TANDEM_CHECK(offset < size_bytes_ && from.size() <= size_bytes_ - offset);
    return {from.size(), memory::Fault::kNone};
  }

 private:
  std::uint64_t size_bytes_;
};

class Guest {
 public:
  explicit Guest(Input& input)
      : input_(input),
        board_(std::move(
            *Board::create({.ram_bytes = kRamBytes,
                            .buses = 1,
                            .iommu = {.reset_mode = input.flag() ? iommu::Ddtp::ModeValue::kBare
                                                                 : iommu::Ddtp::ModeValue::kOff,
                                      .invalidation_timeout = std::chrono::milliseconds(0)}}))) {
    plug(kSlots[0], {.enabled = input.flag(),
                     .pasid_bits = input.below(21),
                     .execute = input.flag(),
                     .privileged = input.flag(),
                     .msi_vectors = 4,
                     .bars = {bar(4096, true), bar(65536, false)}});
    plug(kSlots[1], {.pasid = input.flag(),
                     .ats = input.flag(),
                     .pri = false,
                     .enabled = input.flag(),
                     .bars = {bar(4096, false), bar(std::uint64_t{1} << 34, true)}});
    for (const Bdf slot : kSlots) constant_.push_back(constants(slot));
  }

  void step() {
    const Bdf slot = kSlots[input_.below(2)];
    switch (input_.below(8)) {
      case 0:
        return access(slot);
      case 1:
        return touch(any_address());
      case 2:
        return touch(Board::Options().iommu_registers.plus(input_.take<std::uint16_t>() % 1024));
      case 3:
        return read(slot);
      case 4:
        return interrupt(slot);
      default:
        return write(slot);
    }
  }
  void check() {
    for (std::size_t i = 0; i < constant_.size(); ++i) {
      TANDEM_CHECK(constants(kSlots[i]) == constant_[i]);
    }
  }

 private:
  static constexpr Bdf kSlots[] = {{0, 3, 0}, {0, 31, 7}};
  static constexpr std::uint64_t kRamBytes = 64 << 10;

  static Bar bar(std::uint64_t size_bytes, bool is_64_bit) {
    return {.size_bytes = size_bytes,
            .region = std::make_shared<Scratch>(size_bytes),
            .is_64_bit = is_64_bit};
  }
  void plug(Bdf slot, Endpoint::Options options) {
    options.page_request_timeout = std::chrono::milliseconds(0);
    options.reset_timeout = std::chrono::milliseconds(0);
    functions_.push_back(&board_->plug(slot, std::move(options)).value().get());
  }

  /// What no write may change, by register.
  std::vector<std::uint32_t> constants(Bdf slot) {
    const auto word = [&](std::uint32_t offset, unsigned size_bytes = 4) {
      return board_->config_read(slot, offset, size_bytes);
    };
    std::vector<std::uint32_t> values = {
        word(config::kVendorId), word(config::kRevisionId), word(config::kHeaderType, 1),
        word(config::kSubsystemVendorId), word(config::kCapabilitiesPointer)};
    const std::uint32_t pcie = word(config::kCapabilitiesPointer, 1);
    values.push_back(word(pcie));
    values.push_back(word(pcie + config::kDeviceCapabilities));
    if (const std::uint32_t msi = word(pcie + 1, 1); msi != 0) {
      using Control = config::MsiControl;
      constexpr std::uint64_t kWritable =
          (Control::Enable::kMask | Control::MultipleMessageEnable::kMask) << 16;
      values.push_back(word(msi) & ~static_cast<std::uint32_t>(kWritable));
      values.push_back(word(msi + config::kMsiAddress) & 3);
      TANDEM_CHECK((word(msi + config::kMsiPending) | word(msi + config::kMsiMask)) < 16);
    }
    for (std::uint32_t at = config::kExtendedCapabilities; at != 0;) {
      const std::uint32_t header = word(at);
      values.push_back(header);
      const auto id = config::ExtendedCapability::Id::get(header);
      if (id != config::ExtendedCapability::kPageRequest) values.push_back(word(at + 4, 2));
      at = static_cast<std::uint32_t>(config::ExtendedCapability::Next::get(header));
      TANDEM_CHECK(at % 4 == 0 && values.size() < 64);
    }
    // Sizes of BARs: address bits below them, and flags, are constant.
    const bool first = slot.device == kSlots[0].device;
    values.push_back(word(config::kBar0) & 0xfff);
    values.push_back(word(config::kBar0 + (first ? 8 : 4)) & (first ? 0xffffU : ~0U));
    if (!first) values.push_back(word(config::kBar0 + 8) & 3);
    return values;
  }
  std::uint32_t any_register() {
    switch (input_.below(4)) {
      case 0:
        return config::kBar0 + input_.below(24);
      case 1:
        return input_.below(160);
      case 2:
        return config::kExtendedCapabilities + input_.below(48);
      default:
        return input_.take<std::uint16_t>() % 4200;
    }
  }
  unsigned any_size() { return input_.below(16) == 0 ? input_.take() : 1U << input_.below(3); }
  void read(Bdf slot) {
    const std::uint32_t offset = any_register();
    const unsigned size_bytes = any_size();
    const std::uint32_t value = board_->config_read(slot, offset, size_bytes);
    // The same through memory, which makes several accesses of one that is none.
    if (!std::has_single_bit(size_bytes) || size_bytes > 4 || offset % size_bytes != 0 ||
        offset + size_bytes > config::kBytes)
      return;
    std::uint32_t seen = 0;
    const auto bytes = std::as_writable_bytes(std::span(&seen, 1)).first(size_bytes);
    TANDEM_CHECK(board_->memory().read(board_->config_address(slot, offset), bytes).ok());
    TANDEM_CHECK(seen == value);
  }
  void write(Bdf slot) {
    const std::uint32_t offset = any_register();
    const unsigned size_bytes = any_size();
    const auto value = static_cast<std::uint32_t>(input_.word());
    if (input_.flag()) {
      board_->config_write(slot, offset, value, size_bytes);
      return;
    }
    const std::size_t length = std::min<std::size_t>(size_bytes, sizeof value);
    (void)board_->memory().write(board_->config_address(slot, offset % config::kBytes),
                                 std::as_bytes(std::span(&value, 1)).first(length));
  }
  PhysAddr any_address() {
    switch (input_.below(4)) {
      case 0:
        return Board::Options().ram.plus(input_.take<std::uint16_t>());
      case 1:
        return PhysAddr{std::uint64_t{input_.take<std::uint16_t>()} << 16};
      case 2: {
        const std::uint32_t low = board_->config_read(kSlots[input_.below(2)], config::kBar0, 4);
        return PhysAddr{low & ~0xfU}.plus(input_.take());
      }
      default:
        return PhysAddr{input_.word()};
    }
  }
  void touch(PhysAddr at) {
    std::array<std::byte, 8> data{};
    const auto bytes = std::span(data).first(std::size_t{1} << input_.below(4));
    if (input_.flag()) {
      (void)board_->memory().read(at, bytes);
      return;
    }
    for (std::byte& byte : bytes) byte = std::byte{input_.take()};
    (void)board_->memory().write(at, bytes);
  }
  /// By a function, which may reach what the guest let it.
  void access(Bdf slot) {
    Endpoint& device = *functions_[slot.device == kSlots[0].device ? 0 : 1];
    std::optional<Pasid> pasid;
    if (input_.flag()) pasid = Pasid{input_.take()};
    const Iova at{any_address().value};
    std::array<std::byte, 64> data{};
    const std::uint8_t how = input_.take();
    const AddressSpace space =
        pasid && (how & 2) != 0 ? device.supervisor_space(*pasid) : device.space(pasid);
    const DmaResult result = (how & 1) == 0   ? space.write(at, data)
                             : (how & 4) == 0 ? space.read(at, data)
                                              : space.fetch(at, data);
    TANDEM_CHECK(result.ok() == (result.done_bytes == data.size()));
    if (result.fault) TANDEM_CHECK(result.fault->address.value == at.value + result.done_bytes);
  }

  void interrupt(Bdf slot) {
    Endpoint& device = *functions_[slot.device == kSlots[0].device ? 0 : 1];
    (void)device.send_msi(input_.below(40));
  }

  Input& input_;
  std::unique_ptr<Board> board_;
  std::vector<Endpoint*> functions_;
  std::vector<std::vector<std::uint32_t>> constant_;
};

}  // namespace
}  // namespace tandem::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  tandem::fuzz::Input input({data, size});
  tandem::fuzz::Guest guest(input);
  while (!input.empty()) {
    guest.step();
    guest.check();
  }
  return 0;
}
