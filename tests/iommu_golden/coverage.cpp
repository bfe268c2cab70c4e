// SPDX-License-Identifier: Apache-2.0
#include "tests/iommu_golden/coverage.hpp"

#include <array>
#include <initializer_list>

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
  big_endian_ = options.big_endian;
  reach_if(big_endian_, "big-endian for good");
  flushes_ = world.flushes;
  answers_.clear();
  invalidations_.clear();
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
  if (offset == reg::kFctl && set<Capabilities::End>(capabilities_)) {
    big_endian_ = set<Fctl::Be>(value);
  }
  if (offset >= reg::kIohpmevt1 && offset < reg::kTrReqIova) selected(value);
  effects(brought);
}

void Coverage::selected(std::uint64_t selector) {
  reach("event " + std::to_string(Iohpmevt::EventId::get(selector)));
  const bool by_space = set<Iohpmevt::Idt>(selector);
  reach_if(set<Iohpmevt::PvPscv>(selector), by_space ? "events of a PSCID" : "events of a process");
  reach_if(set<Iohpmevt::DvGscv>(selector), by_space ? "events of a guest" : "events of a device");
  reach_if(set<Iohpmevt::Dmask>(selector), "events of many devices");
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
        invalidated(name + " range");
      }
      if (means_address && set<Capabilities::Nl>(capabilities_) && set<Iotinval::Nl>(low)) {
        invalidated(name + " non-leaf");
      }
      if (has_address) name += " AV";
      if (set<Iotinval::Pscv>(low)) name += " PSCV";
      if (set<Iotinval::Gv>(low)) name += " GV";
      return invalidated(name);
    }
    case Command::OpcodeValue::kIofence:
      reach_if(function == Iofence::kC, "IOFENCE.C");
      reach_if(set<Iofence::Av>(low), "IOFENCE.C AV");
      reach_if(set<Iofence::Wsi>(low), "IOFENCE.C WSI");
      reach_if(set<Iofence::Pr>(low), "IOFENCE.C PR");
      return reach_if(set<Iofence::Pw>(low), "IOFENCE.C PW");
    case Command::OpcodeValue::kIodir:
      if (function == Iodir::kInvalDdt) {
        return invalidated(set<Iodir::Dv>(low) ? "IODIR.INVAL_DDT DV" : "IODIR.INVAL_DDT");
      }
      if (function == Iodir::kInvalPdt) invalidated("IODIR.INVAL_PDT");
      return;
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
  if (!flushes_) compare_with_last(request, response);
  effects(brought);
}

void Coverage::compare_with_last(const Request& request, const Response& response) {
  const auto mix = [](std::initializer_list<std::uint64_t> words) {
    std::uint64_t hash = 0;
    for (const std::uint64_t word : words) hash = (hash ^ word) * 0x9e37'79b9'7f4a'7c15;
    return hash;
  };
  const auto& pasid = request.requester.pasid;
  const std::uint64_t key =
      mix({request.device, static_cast<std::uint64_t>(request.kind),
           pasid ? std::uint64_t{pasid->value} + 1 : 0, request.requester.privileged,
           static_cast<std::uint64_t>(request.access), request.ats.no_write, request.ats.execute,
           request.at.value / kPageBytes});
  const std::uint64_t hash =
      mix({response.status, static_cast<std::uint64_t>(response.cause), response.readable,
           response.writable, response.executable, response.address / kPageBytes});
  Last& last = answers_[key];
  if (last.hash != hash && last.hash != 0) {
    for (std::size_t i = last.invalidations; i < invalidations_.size(); ++i) {
      reach("another answer after " + invalidations_[i]);
    }
  }
  last = {hash, invalidations_.size()};
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
