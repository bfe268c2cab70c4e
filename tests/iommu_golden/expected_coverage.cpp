// SPDX-License-Identifier: Apache-2.0
#include "tests/iommu_golden/coverage.hpp"

namespace tandem::iommu::golden {
namespace {

constexpr Capability kCapabilities[] = {
    {"Sv32", Capabilities::Sv32::kMask},
    {"Sv39", Capabilities::Sv39::kMask},
    {"Sv48", Capabilities::Sv48::kMask},
    {"Sv57", Capabilities::Sv57::kMask},
    {"Svrsw60t59b", Capabilities::Svrsw60t59b::kMask},
    {"Svpbmt", Capabilities::Svpbmt::kMask},
    {"Sv32x4", Capabilities::Sv32x4::kMask},
    {"Sv39x4", Capabilities::Sv39x4::kMask},
    {"Sv48x4", Capabilities::Sv48x4::kMask},
    {"Sv57x4", Capabilities::Sv57x4::kMask},
    {"AMO_MRIF", Capabilities::AmoMrif::kMask},
    {"MSI_FLAT", Capabilities::MsiFlat::kMask},
    {"MSI_MRIF", Capabilities::MsiMrif::kMask},
    {"AMO_HWAD", Capabilities::AmoHwad::kMask},
    {"ATS", Capabilities::Ats::kMask},
    {"T2GPA", Capabilities::T2gpa::kMask},
    {"END", Capabilities::End::kMask},
    {"HPM", Capabilities::Hpm::kMask},
    {"DBG", Capabilities::Dbg::kMask},
    {"PD8", Capabilities::Pd8::kMask},
    {"PD17", Capabilities::Pd17::kMask},
    {"PD20", Capabilities::Pd20::kMask},
    {"QOSID", Capabilities::Qosid::kMask},
    {"NL", Capabilities::Nl::kMask},
    {"S", Capabilities::S::kMask},
};

/// All that a request can end with. What an interrupt file in memory answers (264, 271) comes to
/// who stores there, not to who translates; DMA is never misaligned (4, 6); there is no 272.
constexpr std::uint16_t kCauses[] = {1,   5,   7,   12,  13,  15,  20,  21,  23,  256, 257, 258,
                                     259, 260, 261, 262, 263, 265, 266, 267, 268, 269, 270, 274};
constexpr unsigned kTransactionTypes[] = {0, 1, 2, 3, 5, 6, 7, 8, 9};

constexpr std::uint64_t kModes[] = {0, 8, 9, 10};  // of iosatp and of iohgatp

constexpr const char* kOthers[] = {"stages Sv32, Bare",
                                   "stages Bare, Sv32x4",
                                   "stages Sv32, Sv32x4",
                                   "fctl.BE",
                                   "tc.SBE",
                                   "caches dropped before each request",
                                   "caches kept",
                                   "reset to Off",
                                   "reset to Bare",
                                   "fewer counters",
                                   "narrow counters",
                                   "fewer vectors",
                                   "narrow QoS ids",
                                   "IGS MSI",
                                   "IGS WSI",
                                   "IGS both",
                                   "ddtp Off",
                                   "ddtp Bare",
                                   "ddtp 1LVL",
                                   "ddtp 2LVL",
                                   "ddtp 3LVL",
                                   "untranslated read",
                                   "untranslated write",
                                   "untranslated execute",
                                   "translated read",
                                   "translated write",
                                   "translated execute",
                                   "translated guest address",
                                   "with PASID",
                                   "PASID 0",
                                   "privileged",
                                   "PD8",
                                   "PD17",
                                   "PD20",
                                   "Svnapot",
                                   "Svpbmt NC",
                                   "Svpbmt IO",
                                   "superpage",
                                   "MSI page table",
                                   "interrupt file in memory",
                                   "ATS: nothing granted",
                                   "ATS: R",
                                   "ATS: W",
                                   "ATS: X",
                                   "ATS: Priv",
                                   "ATS: Global",
                                   "ATS: U",
                                   "ATS: CXL.io",
                                   "ATS: Unsupported Request",
                                   "ATS: Completer Abort",
                                   "page request queued",
                                   "page response Success",
                                   "page response Invalid Request",
                                   "page response Response Failure",
                                   "page response with PASID",
                                   "invalidation completed at once",
                                   "invalidation completed later",
                                   "invalidation timed out",
                                   "invalidation of a PASID",
                                   "global invalidation",
                                   "invalidation of a range",
                                   "cqmf",
                                   "cmd_to",
                                   "cmd_ill",
                                   "fence_w_ip",
                                   "fqmf",
                                   "fqof",
                                   "pqmf",
                                   "pqof",
                                   "cip",
                                   "fip",
                                   "pmip",
                                   "pip",
                                   "counter overflow",
                                   "counter counts",
                                   "counter inhibited",
                                   "icvec",
                                   "masked vector",
                                   "iommu_qosid",
                                   "IOFENCE.C",
                                   "IOFENCE.C AV",
                                   "IOFENCE.C WSI",
                                   "IOFENCE.C PR",
                                   "IOFENCE.C PW",
                                   "ATS.INVAL",
                                   "ATS.PRGR",
                                   "illegal opcode",
                                   "poison",
                                   "reset",
                                   "store to a table",
                                   "register read",
                                   "QoS ids of a device",
                                   "debug fault",
                                   "debug translation",
                                   "big-endian for good",
                                   "events of a process",
                                   "events of a device",
                                   "events of many devices",
                                   "events of a PSCID",
                                   "events of a guest"};

/// What drops something that is cached: each has to be seen, and to have changed an answer.
constexpr const char* kInvalidations[] = {
    "IOTINVAL.VMA",         "IOTINVAL.VMA AV",         "IOTINVAL.VMA PSCV",
    "IOTINVAL.VMA AV PSCV", "IOTINVAL.VMA GV",         "IOTINVAL.VMA AV GV",
    "IOTINVAL.VMA PSCV GV", "IOTINVAL.VMA AV PSCV GV", "IOTINVAL.GVMA",
    "IOTINVAL.GVMA GV",     "IOTINVAL.GVMA AV GV",     "IOTINVAL.VMA range",
    "IOTINVAL.GVMA range",  "IOTINVAL.VMA non-leaf",   "IOTINVAL.GVMA non-leaf",
    "IODIR.INVAL_DDT",      "IODIR.INVAL_DDT DV",      "IODIR.INVAL_PDT"};
constexpr unsigned kLastEvent = 8;

}  // namespace

std::span<const Capability> capabilities() { return kCapabilities; }

std::set<std::string> Coverage::expected() {
  std::set<std::string> names(std::begin(kOthers), std::end(kOthers));
  for (const Capability& capability : kCapabilities) {
    names.insert(std::string("with ") + capability.name);
    names.insert(std::string("without ") + capability.name);
  }
  for (const std::uint16_t cause : kCauses) names.insert("cause " + std::to_string(cause));
  for (const char* const name : kInvalidations) {
    names.insert(name);
    names.insert(std::string("another answer after ") + name);
  }
  for (unsigned event = 1; event <= kLastEvent; ++event) {
    names.insert("event " + std::to_string(event));
  }
  // The one cause that no request ends with: a message of the IOMMU's own went nowhere.
  names.insert("record of cause 273");
  for (const unsigned type : kTransactionTypes) {
    names.insert("record of TTYP " + std::to_string(type));
  }
  for (const std::uint64_t first : kModes) {
    for (const std::uint64_t second : kModes) {
      names.insert(stages(Context::FirstMode::make(first) | Context::SecondMode::make(second)));
    }
  }
  return names;
}

}  // namespace tandem::iommu::golden
