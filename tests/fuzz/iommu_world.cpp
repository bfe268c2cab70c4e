// SPDX-License-Identifier: Apache-2.0
#include "iommu_world.hpp"

namespace tandem::fuzz {
namespace {

using iommu::Capabilities;
using iommu::Cause;
using iommu::FaultRecord;
using iommu::TransactionType;
namespace reg = iommu::reg;

/// Answers nothing.
class Refusing final : public memory::IoRegion {
 public:
  memory::Outcome read(std::uint64_t, std::span<std::byte>) override {
    return {0, memory::Fault::kRefused};
  }
  memory::Outcome write(std::uint64_t, std::span<const std::byte>) override {
    return {0, memory::Fault::kRefused};
  }
};

/// Mostly everything, without some of it.
std::uint64_t any_capabilities(Input& input) {
  std::uint64_t without = input.flag() ? input.word() : 0;
  without &= ~(Capabilities::Version::kMask | Capabilities::Pas::kMask | Capabilities::Igs::kMask);
  std::uint64_t offered = iommu::kAllCapabilities & ~without;
  // Sv57 ⇒ Sv48 ⇒ Sv39, and each needs what it is made of.
  if (Capabilities::Sv39::get(offered) == 0) offered &= ~Capabilities::Sv48::kMask;
  if (Capabilities::Sv48::get(offered) == 0) offered &= ~Capabilities::Sv57::kMask;
  if (Capabilities::Sv39x4::get(offered) == 0) offered &= ~Capabilities::Sv48x4::kMask;
  if (Capabilities::Sv48x4::get(offered) == 0) offered &= ~Capabilities::Sv57x4::kMask;
  return Capabilities::Igs::set(offered, input.below(3));
}

bool is_cause(std::uint64_t value) {
  switch (static_cast<Cause>(value)) {
    case Cause::kInstructionAccessFault:
    case Cause::kReadAccessFault:
    case Cause::kWriteAccessFault:
    case Cause::kInstructionPageFault:
    case Cause::kReadPageFault:
    case Cause::kWritePageFault:
    case Cause::kInstructionGuestPageFault:
    case Cause::kReadGuestPageFault:
    case Cause::kWriteGuestPageFault:
      return true;
    default:
      return value >= 256 && value <= 274 && value != 272;
  }
}

}  // namespace

IommuWorld::IommuWorld(Input& input) : input_(input), capabilities_(any_capabilities(input)) {
  const auto base = PhysAddr{kRam};
  TANDEM_CHECK(memory_.add_host_ram(base, ram_.bytes()).has_value());
  TANDEM_CHECK(
      memory_.add_host_ram(base.plus(kPages * kPageSize), read_only_.bytes(), false).has_value());
  TANDEM_CHECK(
      memory_.add_io(base.plus((kPages + 1) * kPageSize), kPageSize, std::make_shared<Refusing>())
          .has_value());
  iommu::Iommu::Options options;
  options.capabilities = capabilities_;
  options.vector_bits = input.below(5);
  options.invalidation_timeout = std::chrono::hours(1);
  iommu_ = std::make_unique<iommu::Iommu>(memory_, options);
  port_ = std::move(*iommu_->attach({kDevice}, *this));
}

IommuWorld::~IommuWorld() { port_.reset(); }

iommu::Requester IommuWorld::any_requester() {
  iommu::Requester requester;
  if (input_.below(4) != 0) requester.pasid = iommu::Pasid{input_.below(5)};
  if (input_.below(32) == 31) requester.pasid = iommu::Pasid{input_.take<std::uint32_t>()};
  requester.privileged = input_.flag();
  return requester;
}

iommu::InvalidationReply IommuWorld::invalidate(const iommu::AtsInvalidation& request) {
  // The range is naturally aligned; 2^64 is written as 0.
  TANDEM_CHECK(request.size_bytes == 0 ? request.address.value == 0
                                       : (request.size_bytes & (request.size_bytes - 1)) == 0 &&
                                             request.size_bytes >= kPageSize &&
                                             request.address.value % request.size_bytes == 0);
  TANDEM_CHECK(request.itag < 32 && (request.pasid || !request.global));
  const auto reply = static_cast<iommu::InvalidationReply>(input_.below(3));
  if (reply == iommu::InvalidationReply::kPending) outstanding.push_back(request);
  return reply;
}

void IommuWorld::page_response(const iommu::PageResponse& response) {
  TANDEM_CHECK(response.group < 512);
}

void IommuWorld::check_registers() {
  using namespace iommu;
  const auto zero = [&](std::uint32_t offset, unsigned size_bytes, std::uint64_t defined) {
    TANDEM_CHECK((read(offset, size_bytes) & ~defined) == 0);
  };
  TANDEM_CHECK(read(reg::kCapabilities, 8) == capabilities_);
  const std::uint64_t base =
      QueueBase::Log2SizeMinus1::kMask | QueueBase::Ppn::kMask;  // of all three queues
  zero(reg::kFctl, 4, Fctl::Be::kMask | Fctl::Wsi::kMask | Fctl::Gxl::kMask);
  zero(reg::kDdtp, 8, Ddtp::Mode::kMask | Ddtp::Ppn::kMask);
  zero(reg::kCqcsr, 4,
       Cqcsr::Cqen::kMask | Cqcsr::Cie::kMask | Cqcsr::Cqmf::kMask | Cqcsr::CmdTo::kMask |
           Cqcsr::CmdIll::kMask | Cqcsr::FenceWIp::kMask | Cqcsr::Cqon::kMask);
  const std::uint64_t record_queue = Fqcsr::Fqen::kMask | Fqcsr::Fie::kMask | Fqcsr::Fqmf::kMask |
                                     Fqcsr::Fqof::kMask | Fqcsr::Fqon::kMask;
  zero(reg::kFqcsr, 4, record_queue);
  zero(reg::kPqcsr, 4, record_queue);
  zero(reg::kIpsr, 4, 0xf);
  zero(reg::kIcvec, 8, 0xffff);
  // While a queue is off the index that hardware owns may be past a ring that was made smaller.
  const auto in_ring = [&](std::uint32_t base_at, std::uint32_t csr, std::uint32_t softwares,
                           std::uint32_t hardwares) {
    zero(base_at, 8, base);
    const std::uint64_t entries = std::uint64_t{2}
                                  << QueueBase::Log2SizeMinus1::get(read(base_at, 8));
    TANDEM_CHECK(read(softwares) < entries);
    TANDEM_CHECK(Fqcsr::Fqon::get(read(csr)) == 0 || read(hardwares) < entries);
  };
  static_assert(Cqcsr::Cqon::kMask == Fqcsr::Fqon::kMask);
  in_ring(reg::kCqb, reg::kCqcsr, reg::kCqt, reg::kCqh);
  in_ring(reg::kFqb, reg::kFqcsr, reg::kFqh, reg::kFqt);
  in_ring(reg::kPqb, reg::kPqcsr, reg::kPqh, reg::kPqt);
}

void IommuWorld::check_records(std::uint64_t from) {
  const std::uint64_t base = read(reg::kFqb, 8);
  const std::uint64_t tail = read(reg::kFqt);
  const std::uint64_t entries = std::uint64_t{2} << iommu::QueueBase::Log2SizeMinus1::get(base);
  for (std::uint64_t at = from; at != tail; at = (at + 1) % entries) {
    const PhysAddr record{(iommu::QueueBase::Ppn::get(base) << 12) + at * sizeof(FaultRecord)};
    const auto loaded = memory_.load64(record, std::memory_order_relaxed);
    if (!loaded) return;  // software changed what is there
    const std::uint64_t head = in_byte_order(*loaded);
    TANDEM_CHECK(is_cause(FaultRecord::CauseBits::get(head)));
    TANDEM_CHECK(FaultRecord::Ttyp::get(head) <=
                     static_cast<std::uint64_t>(TransactionType::kMessageRequest) &&
                 FaultRecord::Ttyp::get(head) != 4);
    if (FaultRecord::Pv::get(head) == 0) {
      TANDEM_CHECK(FaultRecord::Pid::get(head) == 0 && FaultRecord::Priv::get(head) == 0);
    }
  }
}

void IommuWorld::check(const iommu::Translation& translation) {
  TANDEM_CHECK(translation.log2_size >= 12 && translation.log2_size <= 57);
  TANDEM_CHECK(translation.mrif || translation.guest_address ||
               translation.address.value >> memory::kPhysAddrBits == 0);
}

}  // namespace tandem::fuzz
