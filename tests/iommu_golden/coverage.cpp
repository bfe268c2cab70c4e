// SPDX-License-Identifier: Apache-2.0
#include "tests/iommu_golden/coverage.hpp"

#include <array>

namespace tandem::iommu::golden {
namespace {

template <class F>
bool set(std::uint64_t word) {
  return F::get(word) != 0;
}

constexpr const char* kFirstModes[] = {"Bare", "Sv39", "Sv48", "Sv57"};
constexpr const char* kSecondModes[] = {"Bare", "Sv39x4", "Sv48x4", "Sv57x4"};

}  // namespace

std::string stages(std::uint64_t context) {
  const std::uint64_t first = Context::FirstMode::get(context);
  const std::uint64_t second = Context::SecondMode::get(context);
  const auto name = [](const char* const(&names)[4], std::uint64_t mode) {
    return mode == 0 ? names[0] : names[mode - 7];
  };
  std::string text = "stages ";
  text += first != 0 && Context::Sxl::get(context) != 0 ? "Sv32" : name(kFirstModes, first);
  text += ", ";
  text += second != 0 && Context::Gxl::get(context) != 0 ? "Sv32x4" : name(kSecondModes, second);
  return text;
}

void Coverage::begin(const World& world) {
  ++worlds_;
  const Iommu::Options& options = world.options;
  capabilities_ = options.capabilities;
  for (const Capability& capability : capabilities()) {
    const bool has = (capabilities_ & capability.mask) != 0;
    reach(std::string(has ? "with " : "without ") + capability.name);
  }
  constexpr const char* kIgs[] = {"IGS MSI", "IGS WSI", "IGS both"};
  reach(kIgs[Capabilities::Igs::get(capabilities_)]);
  reach(world.flushes ? "caches dropped before each request" : "caches kept");
  reach(options.reset_mode == Ddtp::ModeValue::kOff ? "reset to Off" : "reset to Bare");
  reach_if(options.counters < 30, "fewer counters");
  reach_if(options.counter_bits < 64, "narrow counters");
  reach_if(options.vector_bits < 4, "fewer vectors");
  reach_if(options.rcid_bits < 12 && options.mcid_bits < 12, "narrow QoS ids");
  big_endian_ = false;
}

void Coverage::effects(const Effects& effects) {
  for (const auto& record : effects.fault_records) {
    reach("record of cause " + std::to_string(FaultRecord::CauseBits::get(record[0])));
    reach("record of TTYP " + std::to_string(FaultRecord::Ttyp::get(record[0])));
  }
  reach_if(!effects.page_records.empty(), "page request queued");
  for (const Message& message : effects.messages) {
    if (message.is_response) {
      reach_if(message.code == 0, "page response Success");
      reach_if(message.code == 1, "page response Invalid Request");
      reach_if(message.code == 15, "page response Response Failure");
      reach_if(message.pasid.has_value(), "page response with PASID");
      continue;
    }
    reach_if(message.answer == Answer::kNow, "invalidation completed at once");
    reach_if(message.answer == Answer::kLate, "invalidation completed later");
    reach_if(message.answer == Answer::kNever, "invalidation timed out");
    reach_if(message.pasid.has_value(), "invalidation of a PASID");
    reach_if(message.global, "global invalidation");
    reach_if(message.size_bytes > kPageBytes, "invalidation of a range");
  }
  for (const auto& [i, value] : effects.registers) {
    switch (kQueueRegisters[i]) {
      case reg::kCqcsr:
        reach_if(set<Cqcsr::Cqmf>(value), "cqmf");
        reach_if(set<Cqcsr::CmdTo>(value), "cmd_to");
        reach_if(set<Cqcsr::CmdIll>(value), "cmd_ill");
        reach_if(set<Cqcsr::FenceWIp>(value), "fence_w_ip");
        break;
      case reg::kFqcsr:
        reach_if(set<Fqcsr::Fqmf>(value), "fqmf");
        reach_if(set<Fqcsr::Fqof>(value), "fqof");
        break;
      case reg::kPqcsr:
        reach_if(set<Pqcsr::Pqmf>(value), "pqmf");
        reach_if(set<Pqcsr::Pqof>(value), "pqof");
        break;
      case reg::kIpsr:
        reach_if(set<Ipsr::Cip>(value), "cip");
        reach_if(set<Ipsr::Fip>(value), "fip");
        reach_if(set<Ipsr::Pmip>(value), "pmip");
        reach_if(set<Ipsr::Pip>(value), "pip");
        break;
      default:
        break;
    }
  }
}

void Coverage::write(std::uint32_t offset, unsigned /*size_bytes*/, std::uint64_t value,
                     const Effects& brought) {
  if (offset == reg::kDdtp) {
    constexpr const char* kDdtp[] = {"ddtp Off", "ddtp Bare", "ddtp 1LVL", "ddtp 2LVL",
                                     "ddtp 3LVL"};
    const std::uint64_t mode = Ddtp::Mode::get(value);
    if (mode < std::size(kDdtp)) reach(kDdtp[mode]);
  }
  if (offset == reg::kFctl) big_endian_ = set<Fctl::Be>(value);
  effects(brought);
}

void Coverage::read(std::uint32_t, unsigned, std::uint64_t) { reach("register read"); }

void Coverage::command(std::uint64_t, const std::array<std::uint64_t, 2>& words) {
  std::uint64_t low = words[0], high = words[1];
  if (big_endian_) low = __builtin_bswap64(low), high = __builtin_bswap64(high);
  const std::uint64_t function = Command::Func3::get(low);
  switch (static_cast<Command::OpcodeValue>(Command::Opcode::get(low))) {
    case Command::OpcodeValue::kIotinval: {
      if (function > Iotinval::kGvma) return;
      std::string name = function == Iotinval::kVma ? "IOTINVAL.VMA" : "IOTINVAL.GVMA";
      const bool has_address = set<Iotinval::Av>(low);
      const bool means_address =
          has_address && (function == Iotinval::kVma || set<Iotinval::Gv>(low));
      if (means_address && set<Capabilities::S>(capabilities_) && set<Iotinval::S>(high)) {
        reach(name + " range");
      }
      if (means_address && set<Capabilities::Nl>(capabilities_) && set<Iotinval::Nl>(low)) {
        reach(name + " non-leaf");
      }
      if (has_address) name += " AV";
      if (set<Iotinval::Pscv>(low)) name += " PSCV";
      if (set<Iotinval::Gv>(low)) name += " GV";
      return reach(name);
    }
    case Command::OpcodeValue::kIofence:
      reach_if(function == Iofence::kC, "IOFENCE.C");
      reach_if(set<Iofence::Av>(low), "IOFENCE.C AV");
      reach_if(set<Iofence::Wsi>(low), "IOFENCE.C WSI");
      reach_if(set<Iofence::Pr>(low), "IOFENCE.C PR");
      return reach_if(set<Iofence::Pw>(low), "IOFENCE.C PW");
    case Command::OpcodeValue::kIodir:
      if (function == Iodir::kInvalDdt) {
        return reach(set<Iodir::Dv>(low) ? "IODIR.INVAL_DDT DV" : "IODIR.INVAL_DDT");
      }
      return reach_if(function == Iodir::kInvalPdt, "IODIR.INVAL_PDT");
    case Command::OpcodeValue::kAts:
      reach_if(function == Ats::kInval, "ATS.INVAL");
      return reach_if(function == Ats::kPrgr, "ATS.PRGR");
  }
  reach("illegal opcode");
}

void Coverage::request(const Request& request, const Response& response, const Effects& brought) {
  ++requests_;
  if (response.status == 0) {
    translated(request, response);
  } else {
    reach("cause " + std::to_string(static_cast<unsigned>(response.cause)));
    reach_if(request.kind == RequestKind::kAts && response.status == 1, "ATS: Unsupported Request");
    reach_if(request.kind == RequestKind::kAts && response.status == 4, "ATS: Completer Abort");
  }
  effects(brought);
}

void Coverage::translated(const Request& request, const Response& response) {
  const std::uint64_t context = response.context;
  const std::uint64_t second = Context::SecondMode::get(context);
  constexpr const char* kAccesses[] = {"read", "write", "execute"};
  const char* const access = kAccesses[static_cast<std::size_t>(request.access)];
  reach_if(request.requester.pasid.has_value(), "with PASID");
  reach_if(request.requester.pasid == Pasid{0}, "PASID 0");
  reach_if(request.requester.pasid && request.requester.privileged, "privileged");
  switch (request.kind) {
    case RequestKind::kUntranslated:
      reach(std::string("untranslated ") + access);
      reach(stages(context));
      reach_if(response.mrif, "interrupt file in memory");
      break;
    case RequestKind::kTranslated:
      reach(std::string("translated ") + access);
      reach_if(second != 0 && response.address != request.at.value, "translated guest address");
      break;
    case RequestKind::kAts:
      reach_if(!response.readable && !response.writable, "ATS: nothing granted");
      reach_if(response.readable, "ATS: R");
      reach_if(response.writable, "ATS: W");
      reach_if(response.executable, "ATS: X");
      reach_if(response.privileged, "ATS: Priv");
      reach_if(response.global, "ATS: Global");
      reach_if(response.untranslated_only, "ATS: U");
      reach_if(response.cxl_io, "ATS: CXL.io");
      break;
  }
  constexpr const char* kDirectories[] = {nullptr, "PD8", "PD17", "PD20"};
  const std::uint64_t directory = Context::PdtpMode::get(context);
  if (set<Context::Pdtv>(context) && directory != 0) reach(kDirectories[directory]);
  reach_if(set<Context::Be>(context), "fctl.BE");
  reach_if(set<Context::Sbe>(context), "tc.SBE");
  reach_if(set<Context::Napot>(context), "Svnapot");
  reach_if(response.memory_type == 1, "Svpbmt NC");
  reach_if(response.memory_type == 2, "Svpbmt IO");
  reach_if(response.log2_size == 21, "superpage");
  reach_if(response.msi, "MSI page table");
}

void Coverage::page_request(std::size_t, const PageRequest&, const Effects& brought) {
  effects(brought);
}

void Coverage::reset(const Effects& brought) {
  reach("reset");
  effects(brought);
}

void Coverage::qos_ids(std::size_t, std::optional<QosIds> expected) {
  reach_if(expected && expected->rcid != 0 && expected->mcid != 0, "QoS ids of a device");
}

void Coverage::debug(const DebugResponse& expected) {
  reach(expected.fault ? "debug fault" : "debug translation");
}

void Coverage::checkpoint(const Checkpoint& expected) {
  ++checkpoints_;
  constexpr std::uint32_t kMsiEnd = reg::kMsiAddress + reg::kMsiEntries * reg::kMsiEntryBytes;
  for (const auto& [offset, value] : expected.registers) {
    if (value == 0) continue;
    reach_if(offset == reg::kIocountovf, "counter overflow");
    reach_if(offset == reg::kIocountinh, "counter inhibited");
    reach_if(offset >= reg::kIohpmctr1 && offset < reg::kIohpmevt1, "counter counts");
    reach_if(offset == reg::kIcvec, "icvec");
    reach_if(offset == reg::kIommuQosid, "iommu_qosid");
    const bool control = (offset - reg::kMsiControl) % reg::kMsiEntryBytes == 0;
    reach_if(control && offset >= reg::kMsiControl && offset < kMsiEnd, "masked vector");
  }
}

}  // namespace tandem::iommu::golden
