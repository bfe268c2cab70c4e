// SPDX-License-Identifier: Apache-2.0
// Reads and writes of registers, of every size and at every offset, with requests in between.
#include "iommu_world.hpp"

namespace tandem::fuzz {
namespace {

using namespace iommu;

/// Registers that change by themselves.
bool runs(std::uint32_t offset) { return offset / 8 == reg::kIohpmcycles / 8; }

std::uint32_t any_offset(Input& input) {
  constexpr std::uint32_t kInteresting[] = {
      reg::kFctl,       reg::kDdtp,      reg::kCqb,        reg::kCqt,         reg::kFqb,
      reg::kFqh,        reg::kPqb,       reg::kPqh,        reg::kCqcsr,       reg::kFqcsr,
      reg::kPqcsr,      reg::kIpsr,      reg::kIocountinh, reg::kIohpmcycles, reg::kIohpmctr1,
      reg::kIohpmevt1,  reg::kTrReqIova, reg::kTrReqCtl,   reg::kIommuQosid,  reg::kIcvec,
      reg::kMsiAddress, reg::kMsiData,   reg::kMsiControl};
  if (input.below(4) == 0) return input.take<std::uint16_t>() % 0x1008;
  const std::uint32_t offset = kInteresting[input.below(std::size(kInteresting))];
  if (offset < reg::kMsiAddress) return offset;
  return offset + input.below(16) * reg::kMsiEntryBytes;
}

void step(IommuWorld& world) {
  Input& input = world.input();
  const unsigned kind = input.below(16);
  if (kind == 0) {
    const std::uint64_t tail = world.read(reg::kFqt);
    (void)world.port().translate(world.any_requester(), Iova{input.word()}, world.any_access());
    return world.check_records(tail);
  }
  if (kind == 1) return world.iommu().advance();
  if (kind == 2 && input.below(16) == 0) return world.iommu().reset();
  const std::uint32_t offset = any_offset(input);
  const unsigned size_bytes = input.below(8) == 0 ? input.take() : (input.flag() ? 8 : 4);
  if (kind < 6) {
    const std::uint64_t value = world.read(offset, size_bytes);
    TANDEM_CHECK(size_bytes == 8 || value >> 32 == 0);
    if (!runs(offset)) TANDEM_CHECK(world.read(offset, size_bytes) == value);
    if (size_bytes == 8 && offset % 8 == 0 && !runs(offset) && offset < 0x1000) {
      const std::uint64_t halves = world.read(offset + 4) << 32 | world.read(offset);
      TANDEM_CHECK(halves == value);
    }
    return;
  }
  std::uint64_t value = input.word();
  // A page that exists.
  if (size_bytes == 8 && input.flag())
    value = (value & ~(0xffffffULL << 10)) | world.any_page() << 10;
  world.write(offset, value, size_bytes);
}

}  // namespace
}  // namespace tandem::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  tandem::fuzz::Input input({data, size});
  tandem::fuzz::IommuWorld world(input);
  unsigned levels = 0;
  world.iommu().on_wire([&](unsigned vector, bool level) {
    TANDEM_CHECK(vector < 16);
    TANDEM_CHECK((levels >> vector & 1) == (level ? 0U : 1U));
    levels ^= 1U << vector;
  });
  while (!input.empty()) {
    tandem::fuzz::step(world);
    world.check_registers();
  }
  return 0;
}
