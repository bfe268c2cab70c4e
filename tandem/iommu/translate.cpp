// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "tandem/iommu/detail/directory.hpp"
#include "tandem/iommu/detail/msi_translate.hpp"
#include "tandem/iommu/detail/state.hpp"
#include "tandem/iommu/detail/walk.hpp"

namespace tandem::iommu {
namespace {

using detail::Transaction;
using detail::TransactionFault;

/// "Recommended that the translation range size be large" where a stage is Bare (§3.6).
constexpr unsigned kBareLog2Size = 30;

using detail::WalkFault;

/// The address space that a transaction's contexts select.
struct FirstStage {
  FirstStageMode mode = FirstStageMode::kBare;
  std::uint64_t root_ppn = 0;
  std::uint32_t pscid = 0;
  bool sum = false;
};

FirstStage make_first_stage(std::uint64_t fsc, std::uint64_t pscid, bool sum) {
  return {static_cast<FirstStageMode>(Fsc::Mode::get(fsc)), Fsc::Ppn::get(fsc),
          static_cast<std::uint32_t>(pscid), sum};
}

bool is_translation_request(TransactionType type) {
  return type == TransactionType::kAtsTranslationRequest;
}

bool is_translated(TransactionType type) {
  return type == TransactionType::kTranslatedExecute || type == TransactionType::kTranslatedRead ||
         type == TransactionType::kTranslatedWrite;
}

/// With tc.T2GPA a device is told guest physical addresses. Spec: §3.1.3.1 "Translation control
/// (tc)".
bool answers_with_guest_address(const Transaction& transaction, const DeviceContext& device) {
  return is_translation_request(transaction.type) && device.returns_guest_addresses();
}

/// The address as it is: where the first stage, or no stage, translates.
Translation pass_through(const Transaction& transaction) {
  Translation translation;
  translation.address = PhysAddr{transaction.at.value};
  translation.log2_size = kBareLog2Size;
  translation.readable = translation.writable = translation.executable = true;
  return translation;
}

/// What both stages allow, in the smaller of the two pages. The first stage's memory type, if it
/// names one, is the one that counts.
Translation combined(const Translation& first, const detail::GuestPage& second) {
  Translation translation = first;
  translation.address = second.address;
  translation.log2_size = std::min(first.log2_size, second.log2_size);
  translation.readable = first.readable && Pte::R::get(second.pte) != 0;
  translation.writable =
      first.writable && Pte::W::get(second.pte) != 0 && Pte::D::get(second.pte) != 0;
  translation.executable = first.executable && Pte::X::get(second.pte) != 0;
  if (first.memory_type == MemoryType::kPma) {
    translation.memory_type = static_cast<MemoryType>(Pte::Pbmt::get(second.pte));
  }
  return translation;
}

/// Step 7: whether the device context allows the transaction.
bool type_allowed(const Transaction& transaction, const DeviceContext& context) {
  const bool needs_ats =
      is_translated(transaction.type) || is_translation_request(transaction.type);
  if (needs_ats && !context.ats_enabled()) return false;
  if (!transaction.requester.pasid) return true;
  if (!context.uses_process_directory()) return false;
  const auto mode = static_cast<PdtpMode>(Fsc::Mode::get(context.fsc));
  const std::uint32_t pasid = transaction.requester.pasid->value;
  return pasid >> kPasidBits == 0 && detail::process_id_fits(mode, pasid);
}

/// Steps 10 to 16: which first stage translates.
Result<FirstStage, WalkFault> select_first_stage(const memory::Memory& memory,
                                                 const detail::Config& config,
                                                 const Transaction& transaction,
                                                 const DeviceContext& context,
                                                 detail::WalkCounts& counts) {
  if (!context.uses_process_directory()) {
    return make_first_stage(context.fsc, DeviceContext::Ta::Pscid::get(context.ta), false);
  }
  const auto& pasid = transaction.requester.pasid;
  if (!pasid && !context.has_default_process()) return FirstStage{};
  if (static_cast<PdtpMode>(Fsc::Mode::get(context.fsc)) == PdtpMode::kBare) return FirstStage{};
  const std::uint32_t process = pasid ? pasid->value : 0;
  counts.ids.process = Pasid{process};
  ++counts.process_directory;
  const auto found = detail::load_process_context(memory, config, context, process,
                                                  transaction.access, &counts.second_stage);
  if (!found) return Unexpected{found.error()};
  if (pasid && transaction.requester.privileged && !found->allows_supervisor()) {
    return Unexpected{WalkFault{Cause::kTtypeBlocked}};
  }
  return make_first_stage(found->fsc, ProcessContext::Ta::Pscid::get(found->ta),
                          found->supervisor_may_use_user_pages());
}

}  // namespace

/// Spec: §3.3 "Process to translate an IOVA", steps 1 to 6.
Result<ExtendedDeviceContext, Cause> Iommu::State::locate_device(DeviceId device,
                                                                 detail::WalkCounts* counts) const {
  const std::uint64_t pointer = ddtp.load(std::memory_order_acquire);
  const auto mode = static_cast<Ddtp::ModeValue>(Ddtp::Mode::get(pointer));
  if (mode == Ddtp::ModeValue::kOff) return Unexpected{Cause::kAllInboundDisallowed};
  if (mode == Ddtp::ModeValue::kBare) return Unexpected{Cause::kTtypeBlocked};
  if (!detail::device_id_fits(config, detail::ddt_levels(pointer), device.value)) {
    return Unexpected{Cause::kTtypeBlocked};
  }
  if (counts != nullptr) ++counts->device_directory;
  return detail::load_device_context(memory, config, pointer, device.value);
}

/// Step 17: to a guest physical address where there is a second stage, else to the result.
Result<Translation, WalkFault> Iommu::State::walk_first(const Transaction& transaction,
                                                        const detail::Walk& walk) {
  if (walk.mode == FirstStageMode::kBare) return pass_through(transaction);
  walks.fetch_add(1, std::memory_order_relaxed);
  return detail::walk_first_stage(memory, config, walk);
}

/// Step 18.
Result<Translation, WalkFault> Iommu::State::reach_interrupt_file(
    const Transaction& transaction, const ExtendedDeviceContext& device, const Translation& first) {
  const auto found = detail::translate_msi(memory, config, device, first.address.value);
  if (!found) return Unexpected{WalkFault{found.error()}};
  if (transaction.access == Access::kExecute && !is_translation_request(transaction.type)) {
    return Unexpected{WalkFault{Cause::kInstructionAccessFault}};
  }
  if (found->mrif && transaction.for_debug) return Unexpected{WalkFault{Cause::kTtypeBlocked}};
  Translation both = first;
  if (found->mrif || !answers_with_guest_address(transaction, device)) {
    both.address = found->address;
  }
  both.mrif = found->mrif.has_value();
  if (found->mrif && transaction.mrif != nullptr) *transaction.mrif = *found->mrif;
  both.log2_size = kPageShift;
  both.executable = false;
  both.global = false;
  both.msi = true;
  return both;
}

/// Step 19.
Result<Translation, WalkFault> Iommu::State::walk_second(const Transaction& transaction,
                                                         const ExtendedDeviceContext& device,
                                                         const detail::SecondStage& stage,
                                                         const Translation& first) {
  const std::uint64_t address = first.address.value;
  if (stage.is_bare()) {
    if (address >> memory::kPhysAddrBits == 0) return first;
    return Unexpected{WalkFault{detail::access_fault(transaction.access)}};
  }
  const detail::AccessTypes types = is_translation_request(transaction.type)
                                        ? detail::AccessTypes{}
                                        : detail::AccessTypes::of(transaction.access);
  const auto page =
      detail::translate_guest(memory, config, stage, address, types, transaction.wants_write);
  if (page) {
    Translation both = combined(first, *page);
    both.log2_size =
        static_cast<std::uint8_t>(detail::without_interrupt_files(device, address, both.log2_size));
    if (answers_with_guest_address(transaction, device)) both.address = first.address;
    return both;
  }
  if (page.error() == detail::GuestFault::kAccessFault) {
    return Unexpected{WalkFault{detail::access_fault(transaction.access)}};
  }
  return Unexpected{
      WalkFault{detail::guest_page_fault(transaction.access),
                detail::guest_fault_value(address, /*implicit=*/false, /*write=*/false)}};
}

Result<Translation, TransactionFault> Iommu::State::translate(const Transaction& transaction,
                                                              detail::IotlbContext context) {
  detail::WalkCounts counts{
      .ids = {.device = transaction.device, .process = transaction.requester.pasid}};
  const auto made = translate_counted(transaction, context, counts);
  count_walks(counts);
  return made;
}

Result<Translation, TransactionFault> Iommu::State::translate_counted(
    const Transaction& transaction, detail::IotlbContext context, detail::WalkCounts& counts) {
  iotlb_misses.fetch_add(1, std::memory_order_relaxed);
  const std::uint64_t epoch = iotlb.epoch();
  const auto mode =
      static_cast<Ddtp::ModeValue>(Ddtp::Mode::get(ddtp.load(std::memory_order_acquire)));
  if (mode == Ddtp::ModeValue::kBare && !is_translated(transaction.type) &&
      !is_translation_request(transaction.type)) {
    const auto passed =
        walk_second(transaction, ExtendedDeviceContext{}, {}, pass_through(transaction));
    if (!passed) return Unexpected{TransactionFault{passed.error().cause}};
    return *passed;
  }

  const auto device = locate_device(transaction.device, &counts);
  if (!device) return Unexpected{TransactionFault{device.error()}};
  const auto fault = [&](const WalkFault& why) {
    return Unexpected{TransactionFault{why.cause, device->hides_translation_faults(), why.iotval2}};
  };
  if (!type_allowed(transaction, *device)) return fault({Cause::kTtypeBlocked});
  if (is_translated(transaction.type) && !device->returns_guest_addresses()) {
    const auto passed =
        walk_second(transaction, ExtendedDeviceContext{}, {}, pass_through(transaction));
    if (!passed) return fault(passed.error());
    iotlb.fill(epoch, context, {}, transaction.at, *passed, passed->log2_size);
    return *passed;
  }

  FirstStage stage;
  if (!is_translated(transaction.type)) {
    const auto selected = select_first_stage(memory, config, transaction, *device, counts);
    if (!selected) return fault(selected.error());
    stage = *selected;
  }
  const Requester& requester = transaction.requester;
  detail::Walk walk;
  walk.mode = stage.mode;
  walk.root_ppn = stage.root_ppn;
  walk.at = transaction.at;
  walk.access = transaction.access;
  walk.report_permissions = is_translation_request(transaction.type);
  walk.wants_write = transaction.wants_write;
  walk.supervisor = requester.pasid.has_value() && requester.privileged;
  walk.sum = stage.sum;
  walk.updates_ad = device->updates_accessed_dirty();
  walk.second_stage = detail::make_second_stage(*device, &counts.second_stage);
  if (stage.mode != FirstStageMode::kBare) {
    counts.ids.pscid = stage.pscid;
    ++counts.first_stage;
  }
  if (device->has_second_stage()) counts.ids.gscid = device->gscid();
  ++counts.tlb_misses;
  const auto first = walk_first(transaction, walk);
  if (!first) return fault(first.error());
  const auto made = detail::is_interrupt_file(*device, first->address.value)
                        ? reach_interrupt_file(transaction, *device, *first)
                        : walk_second(transaction, *device, walk.second_stage, *first);
  if (!made) return fault(made.error());
  detail::AddressSpaceId space{std::nullopt, stage.pscid};
  if (device->has_second_stage()) space.gscid = device->gscid();
  if (!made->mrif) iotlb.fill(epoch, context, space, transaction.at, *made, first->log2_size);
  return *made;
}

}  // namespace tandem::iommu
