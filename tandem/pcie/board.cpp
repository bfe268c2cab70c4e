// SPDX-License-Identifier: Apache-2.0
#include "tandem/pcie/board.hpp"

#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "tandem/memory/transfer.hpp"
#include "tandem/pcie/detail/alarm.hpp"
#include "tandem/pcie/spec.hpp"

namespace tandem::pcie {
namespace {

using memory::AccessSizes;
using memory::Fault;
using memory::Outcome;

/// Registers behind an I/O region: little-endian words of at most eight bytes. A fence or a message
/// of the IOMMU that stores to them is refused: what they do may need the command queue, or send
/// that message again. So is a write to configuration registers that comes out of an access to
/// another region, as of a device that is accessed and accesses memory in return: moving a BAR, or
/// a reset, waits for that access.
template <class Read, class Write>
class Registers final : public memory::IoRegion {
 public:
  Registers(const iommu::Iommu& iommu, AccessSizes sizes, unsigned most_nesting, Read read,
            Write write)
      : iommu_(iommu),
        sizes_(sizes),
        most_nesting_(most_nesting),
        read_(std::move(read)),
        write_(std::move(write)) {}
  AccessSizes access_sizes() const override { return sizes_; }
  Outcome read(std::uint64_t offset, std::span<std::byte> to) override {
    const std::uint64_t value = read_(offset, static_cast<unsigned>(to.size()));
    std::memcpy(to.data(), &value, to.size());
    return {to.size(), Fault::kNone};
  }
  Outcome write(std::uint64_t offset, std::span<const std::byte> from) override {
    if (iommu_.is_storing() || memory::io_nesting() > most_nesting_) return {0, Fault::kRefused};
    std::uint64_t value = 0;
    std::memcpy(&value, from.data(), from.size());
    write_(offset, value, static_cast<unsigned>(from.size()));
    return {from.size(), Fault::kNone};
  }

 private:
  const iommu::Iommu& iommu_;
  AccessSizes sizes_;
  unsigned most_nesting_;  // of writes, this one included
  Read read_;
  Write write_;
};

template <class Read, class Write>
std::shared_ptr<memory::IoRegion> make_registers(const iommu::Iommu& iommu, AccessSizes sizes,
                                                 unsigned most_nesting, Read read, Write write) {
  return std::make_shared<Registers<Read, Write>>(iommu, sizes, most_nesting, std::move(read),
                                                  std::move(write));
}

constexpr std::uint64_t kBusBytes = std::uint64_t{1} << 20;

std::uint32_t register_of(std::uint64_t offset) {
  return static_cast<std::uint32_t>(offset % config::kBytes);
}
Bdf function_of(std::uint64_t offset) {
  return Bdf::of({static_cast<std::uint32_t>(offset / config::kBytes)});
}

}  // namespace

Board::Board(const Options& options)
    : options_(options),
      alarm_(std::make_unique<detail::Alarm>([this] { return let_time_pass(); })) {}

Result<std::unique_ptr<Board>> Board::create(Options options) {
  std::unique_ptr<Board> board(new Board(options));
  if (const auto wired = board->wire(); !wired) return Unexpected{wired.error()};
  return board;
}

Result<void> Board::wire() {
  if (options_.buses > 256) return errno_error(EINVAL);
  auto ram = Mapping::anonymous(options_.ram_bytes);
  if (!ram) return Unexpected{ram.error()};
  ram_ = std::move(*ram);
  iommu_ = std::make_unique<iommu::Iommu>(memory_, options_.iommu);
  iommu_->on_deadline([this](iommu::Iommu::TimePoint when) { alarm_->set(when); });
  if (const auto deadline = iommu_->next_deadline()) alarm_->set(*deadline);
  const auto registers = make_registers(
      *iommu_, {.min_bytes = 4, .max_bytes = 8, .aligned = true}, /*most_nesting=*/~0U,
      [this](std::uint64_t offset, unsigned size_bytes) {
        return iommu_->mmio_read(static_cast<std::uint32_t>(offset), size_bytes);
      },
      [this](std::uint64_t offset, std::uint64_t value, unsigned size_bytes) {
        iommu_->mmio_write(static_cast<std::uint32_t>(offset), value, size_bytes);
      });
  const auto configuration = make_registers(
      *iommu_, {.min_bytes = 1, .max_bytes = 4, .aligned = true}, /*most_nesting=*/1,
      [this](std::uint64_t offset, unsigned size_bytes) {
        return config_read(function_of(offset), register_of(offset), size_bytes);
      },
      [this](std::uint64_t offset, std::uint64_t value, unsigned size_bytes) {
        config_write(function_of(offset), register_of(offset), static_cast<std::uint32_t>(value),
                     size_bytes);
      });
  for (const auto& region :
       {memory_.add_host_ram(options_.ram, ram_.bytes()),
        memory_.add_io(options_.iommu_registers, kPageSize, registers),
        memory_.add_io(options_.configuration, options_.buses * kBusBytes, configuration)}) {
    if (!region) return Unexpected{region.error()};
  }
  return {};
}

Board::~Board() { alarm_->stop(); }

std::optional<iommu::Iommu::TimePoint> Board::let_time_pass() {
  iommu_->advance();
  return iommu_->next_deadline();
}

Result<std::reference_wrapper<Endpoint>> Board::plug(Bdf slot, Endpoint::Options options) {
  if (slot.bus >= options_.buses || slot.device >= 32 || slot.function >= 8) {
    return errno_error(EINVAL);
  }
  if (options.bar_memory == nullptr) options.bar_memory = &memory_;
  auto made = Endpoint::create(*iommu_, slot.id(), std::move(options));
  if (!made) return Unexpected{made.error()};
  Endpoint& endpoint = **made;
  const MutexLock lock(mutex_);
  functions_.emplace(slot.id(), std::move(*made));
  return std::ref(endpoint);
}

Result<void> Board::unplug(Bdf slot) {
  std::shared_ptr<Endpoint> gone;
  {
    const MutexLock lock(mutex_);
    const auto found = functions_.find(slot.id());
    if (found == functions_.end()) return errno_error(ENOENT);
    gone = std::move(found->second);
    functions_.erase(found);
  }
  while (gone.use_count() > 1) std::this_thread::yield();  // configuration accesses
  if (gone->reset()) return {};
  const MutexLock lock(mutex_);
  functions_.emplace(slot.id(), std::move(gone));
  return errno_error(EBUSY);
}

std::shared_ptr<Endpoint> Board::find(Bdf slot) const {
  const MutexLock lock(mutex_);
  const auto found = functions_.find(slot.id());
  return found == functions_.end() ? nullptr : found->second;
}

std::uint32_t Board::config_read(Bdf slot, std::uint32_t offset, unsigned size_bytes) const {
  const auto function = find(slot);
  return function == nullptr ? config::nobody(size_bytes)
                             : function->config_read(offset, size_bytes);
}

void Board::config_write(Bdf slot, std::uint32_t offset, std::uint32_t value, unsigned size_bytes) {
  if (const auto function = find(slot)) function->config_write(offset, value, size_bytes);
}

}  // namespace tandem::pcie
