// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/host.hpp"

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <mutex>
#include <utility>

#include "tandem/uacce/detail/host_state.hpp"

namespace tandem::uacce::detail {

using iommu::PageResponse;
using iommu::Pasid;

Host::State::State()
    : physical(std::make_shared<PhysicalSpace>()),
      iommu(physical->memory(), {.invalidation_timeout = IommuDriver::kInvalidationTimeout}),
      tables(physical->memory()),
      aperture(std::make_shared<Aperture>()),
      driver(physical->memory(), iommu, tables) {}

Host::State::~State() {
  if (aperture_region != memory::RegionId{}) {
    (void)physical->memory().remove(aperture_region);
  }
}

std::shared_ptr<Mm::State> Host::State::find(Pasid pasid) const {
  const std::scoped_lock section(spaces.domain());
  const Space* const space = spaces.load(pasid.value);
  return space == nullptr ? nullptr : space->state.lock();
}

PageResponse::Code Host::State::serve(const iommu::PageRequestRecord& record) {
  const auto process = record.process_id();
  const auto space = process ? find(Pasid{*process}) : nullptr;
  if (space == nullptr || record.privileged() || record.execute()) {
    return PageResponse::Code::kInvalidRequest;
  }
  return space->serve(record.address(), record.read(), record.write());
}

Host::Host(std::shared_ptr<State> state) : state_(std::move(state)) {}

Host::~Host() = default;

Result<std::unique_ptr<Host>> Host::create() {
  auto state = std::make_shared<State>();
  const auto region = state->physical->memory().add_io(
      kApertureBase, kApertureEnd.value - kApertureBase.value, state->aperture);
  if (!region) return Unexpected{region.error()};
  state->aperture_region = *region;
  const auto started = state->driver.start(
      [raw = state.get()](const iommu::PageRequestRecord& record) { return raw->serve(record); });
  if (!started) return Unexpected{started.error()};
  return std::unique_ptr<Host>(new Host(std::move(state)));
}

memory::Memory& Host::memory() { return state_->physical->memory(); }

iommu::Iommu& Host::iommu() { return state_->iommu; }

Result<std::unique_ptr<pcie::Endpoint>> Host::add_endpoint() {
  const auto device = state_->driver.add_device();
  if (!device) return Unexpected{device.error()};
  pcie::Endpoint::Options options;
  options.page_request_sent = [state = state_.get(),
                               id = *device](const iommu::PageRequest& request) {
    state->driver.serve_page_request(id, request);
  };
  auto endpoint = pcie::Endpoint::create(state_->iommu, *device, std::move(options));
  if (!endpoint) state_->driver.remove_device(*device);
  return endpoint;
}

void Host::remove_endpoint(pcie::Endpoint& endpoint) {
  state_->driver.remove_device(endpoint.id());
}

Result<std::shared_ptr<Mm>> Host::bind(MmAccess access, std::shared_ptr<TableQuota> quota) {
  std::shared_ptr<ClientMemory> client;
  if (access.kind != MmAccess::Kind::kReservedOnly) {
    auto opened = ClientMemory::open(std::move(access), state_->classifier);
    if (!opened) return Unexpected{opened.error()};
    client = std::move(*opened);
  }
  auto table = PageTable::create(state_->physical->memory(), state_->tables, std::move(quota));
  if (!table) return Unexpected{table.error()};
  const auto pasid = state_->pasids.allocate();
  if (!pasid) {
    table->free_all();
    return errno_error(ENOSPC);
  }
  const auto set = state_->driver.set_process(*pasid, table->root());
  if (!set) {
    // No device context leads there yet, except perhaps an upper directory level, which stays.
    table->free_all();
    state_->pasids.free(*pasid);
    return Unexpected{set.error()};
  }
  auto space = std::make_shared<Mm::State>(state_, *pasid, std::move(client), std::move(*table));
  auto entry = std::make_unique<State::Space>(space);
  std::shared_ptr<Mm> mm(new Mm(std::move(space)));
  const auto stored = state_->spaces.store(pasid->value, *entry);
  if (!stored) return Unexpected{stored.error()};
  (void)entry.release();  // unbind() retires it
  return mm;
}

std::vector<std::string> Host::describe_walk(Pasid pasid, std::uint64_t address) const {
  const auto space = state_->find(pasid);
  if (space == nullptr) return {};
  std::vector<std::string> lines;
  const auto add = [&](const char* level, const PageTable::Step& step, const std::string& meaning) {
    char line[128];
    std::snprintf(line, sizeof line, "%s  0x%014" PRIx64 "  0x%016" PRIx64 "  ", level,
                  step.at.value, step.entry);
    lines.push_back(line + meaning);
  };
  const auto hex = [](std::uint64_t value) {
    char text[32];
    std::snprintf(text, sizeof text, "0x%" PRIx64, value);
    return std::string(text);
  };
  using iommu::Pte;
  for (const auto& step : state_->driver.walk_directory(pasid)) {
    const std::string level = "process directory level " + std::to_string(step.level);
    std::string meaning = "not valid";
    if ((step.entry & 1) != 0) {
      meaning = step.level == 0
                    ? "process context, PSCID " +
                          std::to_string(iommu::ProcessContext::Ta::Pscid::get(step.entry))
                    : "next directory at " +
                          hex(iommu::DirectoryEntry::Ppn::get(step.entry) << iommu::kPageShift);
    }
    add(level.c_str(), step, meaning);
  }
  for (const auto& step : space->walk(address)) {
    const std::string level = "page table level " + std::to_string(step.level);
    const std::uint64_t to = Pte::Ppn::get(step.entry) << iommu::kPageShift;
    std::string meaning = "not present";
    if (Pte::V::get(step.entry) != 0 && Pte::R::get(step.entry) == 0) {
      meaning = "next table at " + hex(to);
    } else if (Pte::V::get(step.entry) != 0) {
      const char* const size = step.level == 0 ? "4 KiB" : step.level == 1 ? "2 MiB" : "1 GiB";
      meaning = std::string(size) + " page at " + hex(to) + ", " +
                (Pte::W::get(step.entry) != 0 ? "rw, " : "r, ") +
                (memory::PhysAddr{to} >= kApertureBase ? "aperture" : "host RAM");
    }
    add(level.c_str(), step, meaning);
  }
  return lines;
}

std::uint64_t Host::quarantined_pasids() const {
  const MutexLock lock(state_->mutex_);
  return state_->quarantined.size();
}

std::uint64_t Host::freed_table_pages() const { return state_->tables.pages_freed(); }

}  // namespace tandem::uacce::detail
