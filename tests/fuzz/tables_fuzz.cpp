// SPDX-License-Identifier: Apache-2.0
// Directories and page tables of any content, requests of any kind.
#include <array>
#include <optional>

#include "iommu_world.hpp"
#include "tandem/memory/reader.hpp"

namespace tandem::fuzz {
namespace {

using namespace iommu;

class Tables : public IommuWorld {
 public:
  explicit Tables(Input& input) : IommuWorld(input) {
    if (input.flag()) write(reg::kFctl, input.take());
    write(reg::kFqb, QueueBase::make(4, (kRam >> 12) + kPages - 1), 8);
    write(reg::kFqcsr, Fqcsr::Fqen::make(1));
    write(reg::kPqb, QueueBase::make(4, (kRam >> 12) + kPages - 2), 8);
    write(reg::kPqcsr, Pqcsr::Pqen::make(1));
    write(reg::kCqb, QueueBase::make(1, (kRam >> 12) + kPages - 3), 8);
    write(reg::kCqcsr, Cqcsr::Cqen::make(1));
    set_ddtp();
  }

  void step() {
    switch (input().below(20)) {
      case 0:
        return store(any_word(), input().word());
      case 1:
      case 2:
      case 3:
      case 4:
        return store(any_word(), entry());
      case 5:
      case 6:
        return device_context();
      case 7:
        return process_context();
      case 8:
        return store(any_word(), DirectoryEntry::make(any_page()));
      case 9:
        return poison(any_word());
      case 10:
        return set_ddtp();
      case 11:
        return send_invalidation();
      case 12:
        return debug();
      case 13:
        return ats();
      case 14:
        return translated();
      case 15:
        return page_request();
      default:
        return translate();
    }
  }
  void check_all() {
    check_registers();
    write(reg::kFqh, read(reg::kFqt));
    write(reg::kFqcsr, Fqcsr::Fqen::kMask | Fqcsr::Fqmf::kMask | Fqcsr::Fqof::kMask);
    write(reg::kPqh, read(reg::kPqt));
  }

 private:
  void set_ddtp() {
    write(reg::kDdtp, Ddtp::make(static_cast<Ddtp::ModeValue>(input().take()), any_page()), 8);
  }

  std::uint64_t entry() {
    const std::uint64_t flags = input().take<std::uint16_t>() & 0x3ff;
    const std::uint64_t rare = input().below(8) == 0 ? input().word() : 0;
    return Pte::Ppn::make(any_page()) | flags | rare;
  }
  std::uint64_t mode_and_page(unsigned modes) {
    const std::uint64_t page = any_page();
    return std::uint64_t{input().below(modes)} << 60 | page;
  }
  void device_context() {
    const bool extended = Capabilities::MsiFlat::get(read(reg::kCapabilities, 8)) != 0;
    PhysAddr at{any_page() << 12};
    at = at.plus(std::uint64_t{kDevice} * (extended ? 64 : 32));
    std::uint64_t words[8] = {};
    words[0] = DeviceContext::Tc::V::kMask | input().take<std::uint16_t>();
    words[1] = input().flag() ? mode_and_page(11) & ~std::uint64_t{3} : 0;
    words[2] = DeviceContext::Ta::Pscid::make(input().below(4));
    words[3] = mode_and_page(11);
    words[4] = input().flag() ? mode_and_page(2) : 0;
    words[5] = input().take<std::uint16_t>();
    words[6] = any_page();
    if (input().below(8) == 0) words[input().below(8)] |= input().word();
    for (unsigned i = extended ? 8 : 4; i-- > 0;) store(at.plus(i * 8), words[i]);
  }
  void process_context() {
    const PhysAddr at = PhysAddr{any_page() << 12}.plus(input().below(5) * 16);
    store(at.plus(8), mode_and_page(11));
    store(at, ProcessContext::Ta::V::kMask | (input().take<std::uint16_t>() & 0xf007));
  }
  Iova iova() {
    if (input().below(4) == 0) return Iova{input().word()};
    // Indices that the entries written have a chance to be at.
    std::uint64_t at = input().take<std::uint16_t>() & 0xfff;
    for (unsigned shift = 12; shift < 57; shift += 9) {
      at |= std::uint64_t{input().below(8)} << shift;
    }
    return Iova{at};
  }
  void send_invalidation() {
    constexpr Command::OpcodeValue kOpcodes[] = {Command::OpcodeValue::kIotinval,
                                                 Command::OpcodeValue::kIodir};
    Command command;
    command.words[0] = Command::head(kOpcodes[input().below(2)], input().below(2)) |
                       (input().word() & ~std::uint64_t{0x3ff});
    command.words[1] = input().word();
    const PhysAddr ring{kRam + (kPages - 3) * kPageSize};
    const auto tail = static_cast<std::uint32_t>(read(reg::kCqt));
    store(ring.plus(tail * 16), command.words[0]);
    store(ring.plus(tail * 16 + 8), command.words[1]);
    write(reg::kCqt, (tail + 1) % 4);
    if (read(reg::kCqh) == read(reg::kCqt)) return;
    write(reg::kCqcsr, 0);
    write(reg::kCqt, 0);
    write(reg::kCqcsr, Cqcsr::Cqen::kMask);
  }
  void debug() {
    write(reg::kTrReqIova, iova().value, 8);
    write(reg::kTrReqCtl,
          TrReqCtl::Go::kMask | TrReqCtl::Did::make(kDevice) | (input().take() & 0xf) |
              TrReqCtl::Pid::make(input().below(4)) | TrReqCtl::Pv::make(input().below(2)),
          8);
    TANDEM_CHECK(TrReqCtl::Go::get(read(reg::kTrReqCtl, 8)) == 0);
  }
  void translate() {
    const Requester requester = any_requester();
    const Iova at = iova();
    const Access access = any_access();
    Mrif mrif;
    const auto made = port().translate(requester, at, access, &mrif);
    if (!made) return;
    check(*made);
    const bool granted = access == Access::kRead    ? made->readable
                         : access == Access::kWrite ? made->writable
                                                    : made->executable;
    TANDEM_CHECK(granted);
    if (made->mrif) {
      (void)port().write_msi(requester, mrif, at, input().take<std::uint16_t>());
      return;
    }
    // Nothing has changed since, so it is what a second request finds.
    const auto again = port().translate(requester, at, access);
    TANDEM_CHECK(again && again->address == made->address);
    std::array<std::byte, 64> data{};
    if (access == Access::kWrite) {
      (void)memory().write(made->address, data);
    } else {
      (void)memory().read(made->address, data);
    }
  }
  void ats() {
    const AtsCompletion made = port().ats_translate(
        any_requester(), iova(),
        AtsRequest{.no_write = input().flag(), .execute = input().flag(), .cxl = input().flag()});
    const bool grants = made.translation.readable || made.translation.writable;
    if (made.status != AtsCompletion::Status::kSuccess) return;
    if (grants) check(made.translation);
  }
  void translated() {
    const Requester requester = any_requester();
    Leftover left;
    const bool in_section = input().flag();
    const auto made = in_section
                          ? port().translated_in_section(requester, any_word(), any_access(), left)
                          : port().translated(requester, any_word(), any_access());
    if (in_section) port().finish(requester, left);
    if (made) TANDEM_CHECK(!made->guest_address);
  }
  void page_request() {
    PageRequest request;
    request.address = Iova{iova().value & ~std::uint64_t{0xfff}};
    request.pasid = any_requester().pasid;
    const unsigned bits = input().take();
    request.privileged = (bits & 1) != 0;
    request.execute = (bits & 2) != 0;
    request.read = (bits & 4) != 0;
    request.write = (bits & 8) != 0;
    request.last = (bits & 16) != 0;
    request.group = input().take();
    port().page_request(request);
  }
};

}  // namespace
}  // namespace tandem::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  tandem::fuzz::Input input({data, size});
  tandem::fuzz::Tables tables(input);
  while (!input.empty()) {
    const std::uint64_t tail = tables.read(tandem::iommu::reg::kFqt);
    tables.step();
    tables.check_records(tail);
    tables.check_all();
  }
  return 0;
}
