// SPDX-License-Identifier: Apache-2.0
#include "bench/iommu_faults.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "bench/harness.hpp"
#include "bench/memory.hpp"
#include "tandem/base/check.hpp"
#include "tandem/base/mapping.hpp"
#include "tandem/uacce/framework.hpp"

namespace tandem::bench {
namespace {

using uacce::Client;
using uacce::Completion;
using uacce::Framework;
using uacce::MmAccess;

constexpr std::uint16_t kRead = TANDEM_OP_SRC_IN | 0x700;
constexpr const char* kDevice = "twice";

/// Reads its operand twice and adds up how long that took.
class TwiceEngine final : public uacce::Engine {
 public:
  explicit TwiceEngine(ReadTimes& sums) : sums_(sums) {}
  uacce::DeviceTraits traits() const override {
    uacce::DeviceTraits traits;
    traits.name = traits.api = kDevice;
    traits.algorithms = {kDevice};
    return traits;
  }
  std::unique_ptr<uacce::Worker> make_worker() override {
    return std::make_unique<TwiceWorker>(sums_);
  }

 private:
  class TwiceWorker final : public uacce::Worker {
   public:
    explicit TwiceWorker(ReadTimes& sums) : sums_(sums) {}
    Completion execute(const tandem_descriptor& descriptor, const pcie::AddressSpace& space,
                       uacce::Session*) override {
      std::array<std::byte, 64> buffer{};
      for (double* const sum : {&sums_.faulting, &sums_.warm}) {
        const auto start = now_ns();
        TANDEM_CHECK(space.read({descriptor.src}, buffer).ok());
        *sum += static_cast<double>(now_ns() - start);
      }
      return {};
    }

   private:
    ReadTimes& sums_;
  };
  ReadTimes& sums_;
};

/// A framework whose one device reads, on the thread that asks.
class Host {
 public:
  Host() {
    Framework::Options options;
    options.engine_threads = 0;
    framework_ = Framework::create(options).value();
    framework_->add_device(std::make_unique<TwiceEngine>(sums_)).value();
  }
  Framework& framework() { return *framework_; }
  ReadTimes& sums() { return sums_; }

  std::unique_ptr<Client> connect(Reach reach) {
    MmAccess access;
    access.kind = MmAccess::Kind::kSelf;
    if (reach == Reach::kBroker) {
      access.kind = MmAccess::Kind::kDescriptors;
      access.mem = UniqueFd(::open("/proc/self/mem", O_RDWR | O_CLOEXEC));
      access.maps = UniqueFd(::open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
    }
    return framework_->connect(/*tenant=*/0, std::move(access)).value();
  }

 private:
  ReadTimes sums_;
  std::unique_ptr<Framework> framework_;
};

/// A queue of the device.
class ReadQueue {
 public:
  explicit ReadQueue(Client& client)
      : client_(client), info_(client.open(kDevice, TANDEM_MIN_DEPTH).value()) {
    const auto map = [&](std::uint32_t region, std::uint64_t bytes) {
      const auto fd = client_.map(info_.queue, region, bytes).value();
      return Mapping::shared(fd.get(), bytes).value();
    };
    doorbell_ = map(TANDEM_REGION_MMIO, info_.region_mmio_size);
    rings_ = map(TANDEM_REGION_DUS, info_.region_dus_size);
    client_.start(info_.queue).value();
  }
  ~ReadQueue() { client_.put(info_.queue).value(); }
  ReadQueue(const ReadQueue&) = delete;
  ReadQueue& operator=(const ReadQueue&) = delete;

  void read(std::uint64_t address) {
    tandem_descriptor descriptor{};
    descriptor.opcode = kRead;
    descriptor.src = address;
    descriptor.src_len = 64;
    const std::size_t slot = tail_++ % info_.depth;
    std::memcpy(rings_.data() + slot * sizeof descriptor, &descriptor, sizeof descriptor);
    auto& tail = reinterpret_cast<tandem_doorbell*>(doorbell_.data())->tail;
    std::atomic_ref(tail).store(tail_, std::memory_order_release);
    TANDEM_CHECK(client_.run_in_caller(info_.queue).value() == 1);
  }

 private:
  Client& client_;
  const uacce::QueueInfo info_;
  Mapping doorbell_;
  Mapping rings_;
  std::uint32_t tail_ = 0;
};

/// Pages of ordinary memory that are a mapping of their own: neighbours are not accessible.
class OwnMapping {
 public:
  static constexpr std::size_t kPages = 16;
  OwnMapping() : all_(Mapping::anonymous((kPages + 2) * kPageSize).value()) {
    TANDEM_CHECK(::mprotect(all_.data(), kPageSize, PROT_NONE) == 0);
    TANDEM_CHECK(::mprotect(all_.data() + (kPages + 1) * kPageSize, kPageSize, PROT_NONE) == 0);
    std::memset(all_.data() + kPageSize, 1, kPages * kPageSize);
  }
  std::uint64_t address() const { return reinterpret_cast<std::uint64_t>(all_.data()) + kPageSize; }

 private:
  Mapping all_;
};

/// Reserved memory of as many pages.
class Reserved {
 public:
  explicit Reserved(Client& client) {
    constexpr std::size_t kBytes = OwnMapping::kPages * kPageSize;
    const auto info = client.reserve(kBytes).value();
    mapping_ = Mapping::shared(info.fd.get(), kBytes).value();
    std::memset(mapping_.data(), 1, kBytes);
    client.attach_reserved(info.id, address()).value();
  }
  std::uint64_t address() const { return reinterpret_cast<std::uint64_t>(mapping_.data()); }

 private:
  Mapping mapping_;
};

/// How many address spaces of twice as many, with three descriptors each, this process may have.
int most_address_spaces(int wanted) {
  rlimit files{};
  TANDEM_CHECK(::getrlimit(RLIMIT_NOFILE, &files) == 0);
  files.rlim_cur = files.rlim_max;
  TANDEM_CHECK(::setrlimit(RLIMIT_NOFILE, &files) == 0);
  return static_cast<int>(std::min<rlim_t>(static_cast<rlim_t>(wanted), files.rlim_cur / 8));
}

}  // namespace

ReadTimes read_times(Reach reach, int rounds, bool elsewhere) {
  Host host;
  const auto client = host.connect(reach);
  ReadQueue queue(*client);
  const std::vector<OwnMapping> ordinary(elsewhere ? 16 : 1);
  std::optional<Reserved> reserved;
  if (reach == Reach::kReserved) reserved.emplace(*client);
  const int warm_up = rounds / 10;
  for (int i = 0; i < warm_up + rounds; ++i) {
    if (i == warm_up) host.sums() = {};
    const std::uint64_t address =
        reserved ? reserved->address()
                 : ordinary[static_cast<std::size_t>(i) % ordinary.size()].address();
    client->revoke_page(address, /*refuse=*/false);
    queue.read(address);
  }
  return {host.sums().faulting / rounds, host.sums().warm / rounds};
}

double bytes_per_pasid(int count) {
  count = most_address_spaces(count);
  Host host;
  const OwnMapping memory;
  std::vector<std::unique_ptr<Client>> clients;
  clients.reserve(2 * static_cast<std::size_t>(count));
  const auto bind_and_use = [&] {
    clients.push_back(host.connect(Reach::kBroker));
    ReadQueue(*clients.back()).read(memory.address());
  };
  for (int i = 0; i < count; ++i) bind_and_use();
  const double before = held_bytes("Anonymous");
  for (int i = 0; i < count; ++i) bind_and_use();
  const double grown = held_bytes("Anonymous") - before;
  // What is freed with them tells how many pages of tables they had.
  clients.resize(static_cast<std::size_t>(count));
  const auto tables = static_cast<double>(host.framework().cleanup().page_tables);
  return grown / count - tables / count * static_cast<double>(kPageSize);
}

}  // namespace tandem::bench
