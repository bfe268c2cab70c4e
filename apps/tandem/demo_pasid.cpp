// SPDX-License-Identifier: Apache-2.0
/// tandem demo pasid: one page fault, its walk, and the messages with their PASIDs.
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <string>

#include "apps/tandem/demo.hpp"
#include "tandem/abi/ring.h"
#include "tandem/base/mapping.hpp"
#include "tandem/engine/mem/mem.hpp"
#include "tandem/uacce/framework.hpp"

namespace tandem::cli {
namespace {

constexpr std::uint32_t kDepth = 16;

std::string yes_no(bool readable, bool writable) {
  if (readable && writable) return "read, write";
  return readable ? "read" : writable ? "write" : "nothing";
}

/// One message as a line: from whom, what, for which address space.
std::string describe(const pcie::Message& message) {
  using Kind = pcie::Message::Kind;
  const char* name = "";
  bool from_device = true;
  std::string details;
  const auto address = fmt::format("{:#x}", message.address.value);
  switch (message.kind) {
    case Kind::kMemoryRead:
      name = "memory read";
      details = fmt::format("{} bytes at {}", message.size_bytes, address);
      break;
    case Kind::kMemoryWrite:
      name = "memory write";
      details = fmt::format("{} bytes at {}", message.size_bytes, address);
      break;
    case Kind::kTranslationRequest:
      name = "translation request";
      details = fmt::format("{}, to {}", address, yes_no(message.readable, message.writable));
      break;
    case Kind::kTranslationCompletion:
      name = "translation completion";
      from_device = false;
      details = message.readable || message.writable
                    ? fmt::format("{:#x} ({} bytes): {}", message.physical_address,
                                  message.size_bytes, yes_no(message.readable, message.writable))
                    : "not present";
      break;
    case Kind::kPageRequest:
      name = "page request";
      details = fmt::format("{}, to {}, group {}", address,
                            yes_no(message.readable, message.writable), message.tag);
      break;
    case Kind::kPageResponse:
      name = "page request response";
      from_device = false;
      details = fmt::format("group {}: {}", message.tag,
                            message.status == 0   ? "success"
                            : message.status == 1 ? "invalid request: no such memory"
                                                  : "response failure");
      break;
    case Kind::kInvalidationRequest:
      name = "invalidation request";
      from_device = false;
      details = message.size_bytes == 0
                    ? "everything"
                    : fmt::format("{} bytes at {}", message.size_bytes, address);
      break;
    case Kind::kInvalidationCompletion:
      name = "invalidation completion";
      details = "no access through it is left";
      break;
  }
  return fmt::format("  {}  {:<23} {:<9} {}", from_device ? "device ->" : "device <-", name,
                     message.pasid ? fmt::format("PASID {}", message.pasid->value) : "", details);
}

/// A queue of the memory device, driven by hand: what wd does for applications.
class Bench {
 public:
  Result<void> open();
  /// One CRC-32C; returns its completion, or nothing if the queue gave none.
  std::optional<tandem_completion> crc32c(const void* data, std::uint32_t size);

  uacce::Framework& framework() { return *framework_; }
  uacce::Client& client() { return *client_; }

 private:
  std::unique_ptr<uacce::Framework> framework_;
  std::unique_ptr<uacce::Client> client_;
  std::uint32_t queue_ = 0, sent_ = 0;
  Mapping doorbell_, rings_;
};

Result<void> Bench::open() {
  uacce::Framework::Options options;
  options.engine_threads = 0;  // operations run when we say so
  auto framework = uacce::Framework::create(options);
  if (!framework) return Unexpected{framework.error()};
  framework_ = std::move(*framework);
  if (auto added = framework_->add_device(engine::mem::make_engine()); !added) return added;
  uacce::MmAccess access;
  access.kind = uacce::MmAccess::Kind::kSelf;
  auto client = framework_->connect(0, std::move(access), false);
  if (!client) return Unexpected{client.error()};
  client_ = std::move(*client);
  const auto queue = client_->open("memory", kDepth);
  if (!queue) return Unexpected{queue.error()};
  queue_ = queue->queue;
  auto mmio = client_->map(queue_, TANDEM_REGION_MMIO, queue->region_mmio_size);
  if (!mmio) return Unexpected{mmio.error()};
  auto dus = client_->map(queue_, TANDEM_REGION_DUS, queue->region_dus_size);
  if (!dus) return Unexpected{dus.error()};
  auto doorbell = Mapping::shared(mmio->get(), queue->region_mmio_size);
  if (!doorbell) return Unexpected{doorbell.error()};
  auto rings = Mapping::shared(dus->get(), queue->region_dus_size);
  if (!rings) return Unexpected{rings.error()};
  doorbell_ = std::move(*doorbell);
  rings_ = std::move(*rings);
  return client_->start(queue_);
}

std::optional<tandem_completion> Bench::crc32c(const void* data, std::uint32_t size) {
  tandem_descriptor descriptor{};
  descriptor.opcode = TANDEM_OP_CRC32C;
  descriptor.src = reinterpret_cast<std::uint64_t>(data);
  descriptor.src_len = size;
  descriptor.tag = sent_ + 1;
  const std::uint32_t slot = sent_ % kDepth;
  std::memcpy(rings_.data() + slot * sizeof descriptor, &descriptor, sizeof descriptor);
  ++sent_;
  auto& doorbell = *reinterpret_cast<tandem_doorbell*>(doorbell_.data());
  std::atomic_ref(doorbell.tail).store(sent_, std::memory_order_release);
  const auto ran = client_->run_in_caller(queue_);
  if (!ran || *ran != 1) return std::nullopt;
  tandem_completion completion{};
  std::memcpy(&completion, rings_.data() + kDepth * sizeof descriptor + slot * sizeof completion,
              sizeof completion);
  if (completion.tag != descriptor.tag) return std::nullopt;
  return completion;
}

void title(const std::string& text) { fmt::print("\n{}\n", bold(text, STDOUT_FILENO)); }

/// Prints a walk: level, address and content of the entry, what that means.
void print_walk(uacce::Framework& framework, iommu::Pasid pasid, std::uint64_t address) {
  for (const std::string& line : framework.describe_walk(pasid, address)) {
    // Its columns stand two spaces apart.
    std::array<std::string, 4> columns;
    std::size_t at = 0;
    for (auto& column : columns) {
      const auto end = &column == &columns.back() ? line.size() : line.find("  ", at);
      column = line.substr(at, end == std::string::npos ? end : end - at);
      at = end == std::string::npos ? line.size() : std::min(end + 2, line.size());
    }
    const auto number = [](const std::string& text) { return std::stoull(text, nullptr, 16); };
    fmt::print("  {:<26}{:#x}: {:#x}\n      {}\n", columns[0], number(columns[1]),
               number(columns[2]), columns[3]);
  }
}

int failed(const std::string& what) { return report({kFailure, "demo pasid: " + what}); }

}  // namespace

int demo_pasid() {
  Bench bench;
  if (const auto opened = bench.open(); !opened) return failed(opened.error().message());
  const iommu::Pasid pasid = bench.client().pasid();
  std::vector<pcie::Message> seen;
  const auto tapped = bench.framework().set_tap("mem-0", [&seen](const pcie::Message& message) {
    seen.push_back(message);
    fmt::print("{}\n", describe(message));
  });
  if (!tapped) return failed(tapped.error().message());
  const auto count = [&seen](pcie::Message::Kind kind) {
    std::size_t found = 0;
    for (const auto& message : seen) found += message.kind == kind ? 1u : 0u;
    return found;
  };

  auto memory = Mapping::anonymous(2 * kPageSize);
  if (!memory) return failed(memory.error().message());
  char* const text = reinterpret_cast<char*>(memory->data());
  std::memcpy(text, "123456789", sizeof "123456789");
  const auto address = reinterpret_cast<std::uint64_t>(text);
  fmt::print(
      "A device computes the CRC-32C of nine bytes at {:#x}, a plain pointer of this\n"
      "process. Its address space is PASID {} at the device.\n",
      address, pasid.value);

  title("1. Before: what the IOMMU's tables say about the address");
  print_walk(bench.framework(), pasid, address);

  title("2. First use: a page fault, answered by the operating system's part");
  auto done = bench.crc32c(text, 9);
  if (!done || done->status != TANDEM_STATUS_OK || done->result != 0xe3069283u) {
    return failed("the CRC-32C of \"123456789\" is not e3069283");
  }
  if (count(pcie::Message::Kind::kPageRequest) != 1) return failed("not exactly one page request");
  fmt::print("  result {:#x}, as it should be\n", done->result);

  title("3. After: the same walk");
  print_walk(bench.framework(), pasid, address);

  title("4. Second use: the device has kept the translation");
  seen.clear();
  done = bench.crc32c(text, 9);
  if (!done || done->status != TANDEM_STATUS_OK) return failed("the second use failed");
  if (count(pcie::Message::Kind::kTranslationRequest) != 0) return failed("it asked again");

  title("5. The page is taken away: the device has to forget it first");
  seen.clear();
  bench.client().revoke_page(address, true);
  if (count(pcie::Message::Kind::kInvalidationCompletion) == 0) return failed("no invalidation");

  title("6. Third use: refused, at the exact address; nobody else notices");
  seen.clear();
  done = bench.crc32c(text, 9);
  if (!done || done->status != TANDEM_STATUS_FAULT || done->fault_address != address) {
    return failed("the access to a revoked page did not fault");
  }
  fmt::print("  fault at {:#x}\n", done->fault_address);
  (void)bench.framework().set_tap("mem-0", {});
  for (const auto& message : seen) {
    if (message.pasid && *message.pasid != pasid) return failed("a message with another PASID");
  }
  return kOk;
}

}  // namespace tandem::cli
