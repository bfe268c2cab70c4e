// SPDX-License-Identifier: Apache-2.0
// A command queue of any content, and devices that answer as they like.
#include "iommu_world.hpp"

namespace tandem::fuzz {
namespace {

using namespace iommu;

class Commands : public IommuWorld {
 public:
  explicit Commands(Input& input) : IommuWorld(input) {
    write(reg::kFctl, input.take());
    write(reg::kDdtp, Ddtp::make(static_cast<Ddtp::ModeValue>(input.below(5)), any_page()), 8);
    write(reg::kCqb, QueueBase::make(input.below(3) + 1, kRing >> 12), 8);
    write(reg::kFqb, QueueBase::make(3, (kRing >> 12) + 1), 8);
    write(reg::kFqcsr, Fqcsr::Fqen::make(1) | Fqcsr::Fie::make(1));
    write(reg::kCqcsr, kOn);
  }

  void step() {
    switch (input().below(8)) {
      case 0:
        return complete();
      case 1:
        return iommu().advance(std::chrono::steady_clock::now() +
                               std::chrono::minutes(input().take()));
      case 2:
        return write(reg::kCqcsr, input().word());
      case 3:
        return write(reg::kCqcsr, kOn | kErrors | Cqcsr::FenceWIp::kMask);
      default:
        return submit();
    }
  }
  /// Whatever the commands were: the queue is at its end, or says why not.
  void check_queue() {
    check_registers();
    const std::uint64_t csr = read(reg::kCqcsr);
    const bool ended = read(reg::kCqh) == read(reg::kCqt);
    const bool stopped = (csr & kErrors) != 0 || Cqcsr::Cqon::get(csr) == 0;
    TANDEM_CHECK(ended || stopped || !outstanding.empty());
    if (ended || Cqcsr::CmdIll::get(csr) == 0) return;
    // As a driver does: over the illegal one.
    const PhysAddr at{kRing + read(reg::kCqh) * sizeof(Command)};
    const Command fence = iofence_c({});
    store(at, fence.words[0]);
    store(at.plus(8), fence.words[1]);
    write(reg::kCqcsr, kOn | Cqcsr::CmdIll::kMask);
  }

 private:
  static constexpr std::uint64_t kRing = kRam + (kPages - 4) * kPageSize;
  static constexpr std::uint64_t kOn = Cqcsr::Cqen::kMask | Cqcsr::Cie::kMask;
  static constexpr std::uint64_t kErrors =
      Cqcsr::Cqmf::kMask | Cqcsr::CmdTo::kMask | Cqcsr::CmdIll::kMask;

  Command any_command() {
    Command command;
    command.words[0] = Command::head(static_cast<Command::OpcodeValue>(1 + input().below(4)), 0) |
                       std::uint64_t{input().below(3)} << 7;
    command.words[1] = input().word();
    switch (input().below(4)) {
      case 0:  // to our device
        command.words[0] |= Ats::Rid::make(kDevice) | Ats::Pv::make(input().below(2)) |
                            Ats::Pid::make(input().below(4));
        break;
      case 1:  // a fence that stores to a page of ours
        command.words[0] |= std::uint64_t{input().take()} << 10 | std::uint64_t{input().take()}
                                                                      << 32;
        command.words[1] = any_word().value >> 2;
        break;
      case 2:
        command.words[0] |= input().word() & ~std::uint64_t{0x3ff};
        break;
      default:
        command.words[0] ^= input().word();
    }
    return command;
  }
  void submit() {
    const Command command = any_command();
    const auto tail = static_cast<std::uint32_t>(read(reg::kCqt));
    const PhysAddr at{kRing + tail * sizeof(Command)};
    store(at, command.words[0]);
    store(at.plus(8), command.words[1]);
    const std::uint64_t entries = std::uint64_t{2}
                                  << QueueBase::Log2SizeMinus1::get(read(reg::kCqb, 8));
    write(reg::kCqt, input().below(8) == 0 ? input().take() : (tail + 1) % entries);
  }
  void complete() {
    if (outstanding.empty() || input().below(8) == 0) {
      port().complete_invalidation(input().take(), input().take());
      return;
    }
    const std::size_t which = input().below(static_cast<unsigned>(outstanding.size()));
    const AtsInvalidation request = outstanding[which];
    outstanding.erase(outstanding.begin() + static_cast<std::ptrdiff_t>(which));
    port().complete_invalidation(request.itag, 1, request.sequence);
  }
};

}  // namespace
}  // namespace tandem::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  tandem::fuzz::Input input({data, size});
  tandem::fuzz::Commands commands(input);
  while (!input.empty()) {
    commands.step();
    commands.check_queue();
  }
  return 0;
}
