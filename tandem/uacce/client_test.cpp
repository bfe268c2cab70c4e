// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "tandem/uacce/detail/raw_queue.hpp"
#include "tandem/uacce/device.hpp"
#include "tandem/uacce/framework.hpp"

namespace tandem::uacce {
namespace {

using detail::RawQueue;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kAt = 0x200000000;

template <class Condition>
bool eventually(Condition condition, milliseconds limit = std::chrono::seconds(20)) {
  const auto deadline = Clock::now() + limit;
  while (!condition()) {
    if (Clock::now() >= deadline) return false;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return true;
}

template <class T>
int error_of(const Result<T>& result) {
  return result ? 0 : result.error().value();
}

/// What operations of these tests do until the test lets them go.
class Gate {
 public:
  void block() {
    std::unique_lock lock(mutex_);
    inside_.fetch_add(1);
    changed_.wait(lock, [this] { return open_.load(); });
    inside_.fetch_sub(1);
  }
  void compute() {
    inside_.fetch_add(1);
    while (!open_.load(std::memory_order_relaxed)) cpu_pause();
    inside_.fetch_sub(1);
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void close() { open_ = false; }
  int inside() const { return inside_.load(); }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> open_{false};
  std::atomic<int> inside_{0};
};

constexpr std::uint16_t kBlock = TANDEM_OP_SRC_IN | 0x700;    // waits at the gate
constexpr std::uint16_t kCompute = TANDEM_OP_SRC_IN | 0x701;  // is busy until the gate opens
constexpr std::uint16_t kWork = TANDEM_OP_SRC_IN | 0x702;     // likewise, in place on its source
constexpr std::uint16_t kRead = TANDEM_OP_SRC_IN | 0x703;     // result: first byte of the source

class GateEngine final : public Engine {
 public:
  GateEngine(std::shared_ptr<Gate> gate, bool sva, std::string name = "gate")
      : gate_(std::move(gate)), sva_(sva), name_(std::move(name)) {}
  DeviceTraits traits() const override {
    DeviceTraits traits;
    traits.name = name_;
    traits.api = "tandem_test_v1";
    traits.algorithms = {"test"};
    traits.sva = sva_;
    return traits;
  }
  std::unique_ptr<Worker> make_worker() override { return std::make_unique<GateWorker>(gate_); }

 private:
  class GateWorker final : public Worker {
   public:
    explicit GateWorker(std::shared_ptr<Gate> gate) : gate_(std::move(gate)) {}
    Completion execute(const tandem_descriptor& descriptor, const pcie::AddressSpace& space,
                       Session*) override {
      Completion completion;
      if (descriptor.opcode == kBlock) gate_->block();
      if (descriptor.opcode == kCompute) gate_->compute();
      if (descriptor.opcode == kWork) {
        const auto window =
            space.map(pcie::Iova{descriptor.src}, descriptor.src_len, pcie::Access::kRead);
        if (!window) return Completion::from_fault(window.error(), 0);
        gate_->compute();
      }
      if (descriptor.opcode == kRead) {
        std::byte byte{};
        const auto read = space.read(pcie::Iova{descriptor.src}, {&byte, 1});
        if (read.fault) return Completion::from_fault(*read.fault, 0);
        completion.result = std::to_integer<std::uint64_t>(byte);
      }
      return completion;
    }

   private:
    const std::shared_ptr<Gate> gate_;
  };

  const std::shared_ptr<Gate> gate_;
  const bool sva_;
  const std::string name_;
};

class ClientTest : public testing::Test {
 protected:
  /// Reserved memory at kAt; returns its id.
  static std::uint64_t reserve_and_attach(Client& client, std::uint64_t size_bytes) {
    const auto memory = client.reserve(size_bytes);
    EXPECT_TRUE(memory);
    if (!memory) return 0;
    EXPECT_TRUE(client.attach_reserved(memory->id, kAt));
    return memory->id;
  }
  void make(Framework::Options options, bool sva = true) {
    auto created = Framework::create(options);
    ASSERT_TRUE(created);
    framework_ = std::move(*created);
    ASSERT_TRUE(framework_->add_device(std::make_unique<GateEngine>(gate_, sva)));
  }
  ~ClientTest() override { gate_->open(); }

  std::unique_ptr<Client> connect(std::uint32_t tenant, std::uint32_t user = 7) {
    auto client = framework_->connect(tenant, {}, user);
    TANDEM_CHECK(client);
    return std::move(*client);
  }
  static void submit(RawQueue& queue, std::uint16_t opcode, std::uint64_t address = 0) {
    tandem_descriptor descriptor{};
    descriptor.opcode = opcode;
    descriptor.src = address;
    descriptor.src_len = 16;
    queue.write(descriptor);
    queue.publish();
  }
  bool inside(int count) {
    return eventually([&] { return gate_->inside() == count; });
  }

  const std::shared_ptr<Gate> gate_ = std::make_shared<Gate>();
  std::unique_ptr<Framework> framework_;
};

// ---- Operations that outlast their client -------------------------------------------------------

TEST_F(ClientTest, ThatEndsInASlowOperationIsFreedWithItsQuotaWhenTheOperationEnds) {
  Framework::Options options;
  options.stuck_after = milliseconds(1000);  // on a busy machine 200 without a CPU happen
  options.reserved_bytes_per_tenant = 4 * kPageSize;
  make(options);
  auto client = connect(1);
  auto other = connect(1);
  ASSERT_TRUE(client->reserve(3 * kPageSize));
  RawQueue queue(*client, "gate");
  submit(queue, kCompute);
  ASSERT_TRUE(inside(1));
  const auto ended = client->disconnect(TANDEM_QUEUE_OWNER_GONE);
  EXPECT_EQ(ended.reserved_bytes_freed, 0u) << "the operation still runs";
  EXPECT_EQ(ended.reserved_bytes_kept, 3 * kPageSize);
  EXPECT_FALSE(ended.stuck) << "it computes";
  EXPECT_EQ(framework_->cleanup().reserved_bytes, 0u);
  EXPECT_EQ(error_of(other->reserve(2 * kPageSize)), ENOMEM) << "a quota for what is not freed";
  gate_->open();
  EXPECT_TRUE(eventually([&] { return framework_->cleanup().clients == 1; }));
  EXPECT_EQ(framework_->cleanup().reserved_bytes, 3 * kPageSize);
  EXPECT_EQ(framework_->cleanup().queues, 1u);
  EXPECT_EQ(framework_->cleanup().quarantined_pasids, 0u);
  EXPECT_TRUE(other->reserve(4 * kPageSize));
}

TEST_F(ClientTest, ThatEndsInAStuckOperationIsFreedWithItsQuotaWhenItReturnsAfterAll) {
  Framework::Options options;
  options.stuck_after = milliseconds(50);
  options.reserved_bytes_per_tenant = 4 * kPageSize;
  make(options);
  auto client = connect(1);
  auto other = connect(1);
  const auto memory = client->reserve(3 * kPageSize);
  ASSERT_TRUE(memory);
  ASSERT_TRUE(client->attach_reserved(memory->id, kAt));
  RawQueue queue(*client, "gate");
  submit(queue, kBlock);
  ASSERT_TRUE(inside(1));
  ASSERT_TRUE(eventually([&] { return queue.state() == TANDEM_QUEUE_STUCK; }));
  const auto ended = client->disconnect(TANDEM_QUEUE_OWNER_GONE);
  EXPECT_TRUE(ended.stuck);
  EXPECT_EQ(ended.reserved_bytes_freed, 0u);
  EXPECT_EQ(ended.reserved_bytes_kept, 3 * kPageSize);
  EXPECT_EQ(framework_->cleanup().quarantined_pasids, 1u);
  EXPECT_EQ(error_of(other->reserve(2 * kPageSize)), ENOMEM);
  gate_->open();
  EXPECT_TRUE(eventually([&] { return framework_->cleanup().quarantined_pasids == 0; }));
  EXPECT_TRUE(eventually([&] { return framework_->cleanup().reserved_bytes == 3 * kPageSize; }));
  EXPECT_TRUE(eventually([&] { return other->reserve(4 * kPageSize).has_value(); }));
}

TEST_F(ClientTest, ThatPutAStuckQueueBeforeIsNotFreedBeforeTheOperationReturns) {
  Framework::Options options;
  options.stuck_after = milliseconds(50);
  make(options);
  auto client = connect(1);
  ASSERT_TRUE(client->reserve(kPageSize));
  {
    RawQueue queue(*client, "gate");
    submit(queue, kBlock);
    ASSERT_TRUE(inside(1));
    ASSERT_TRUE(eventually([&] { return queue.state() == TANDEM_QUEUE_STUCK; }));
    ASSERT_TRUE(client->put(queue.id()));
  }
  EXPECT_TRUE(client->disconnect(TANDEM_QUEUE_OWNER_GONE).stuck);
  EXPECT_EQ(framework_->cleanup().clients, 0u);
  gate_->open();
  EXPECT_TRUE(eventually([&] { return framework_->cleanup().clients == 1; }));
}

// ---- Devices without SVA ------------------------------------------------------------------------

TEST_F(ClientTest, OfADeviceWithoutSvaReachesReservedMemoryOnly) {
  make({}, false);
  ASSERT_TRUE(framework_->add_device(std::make_unique<GateEngine>(gate_, true, "sva")));
  MmAccess access;
  access.kind = MmAccess::Kind::kSelf;
  auto client = framework_->connect(1, std::move(access), false);
  ASSERT_TRUE(client);
  static const char ordinary[16] = "o";
  const auto ordinary_address = reinterpret_cast<std::uint64_t>(&ordinary);
  const auto early = (*client)->reserve(kPageSize);
  ASSERT_TRUE(early);
  ASSERT_TRUE((*client)->attach_reserved(early->id, kAt));
  RawQueue queue(**client, "gate");
  RawQueue with_sva(**client, "sva");
  const auto late = (*client)->reserve(kPageSize);
  ASSERT_TRUE(late);
  ASSERT_TRUE((*client)->attach_reserved(late->id, kAt + kPageSize));
  for (RawQueue* const each : {&queue, &with_sva}) {
    const bool sva = each == &with_sva;
    const auto status = [&](std::uint64_t address) {
      submit(*each, kRead, address);
      const auto completion = each->wait();
      return completion ? static_cast<int>(completion->status) : -1;
    };
    EXPECT_EQ(status(kAt), TANDEM_STATUS_OK);
    EXPECT_EQ(status(kAt + kPageSize), TANDEM_STATUS_OK);
    EXPECT_EQ(status(ordinary_address), sva ? TANDEM_STATUS_OK : TANDEM_STATUS_NEEDS_STAGING);
  }
  ASSERT_TRUE((*client)->release_reserved(early->id));
  submit(queue, kRead, kAt);
  const auto completion = queue.wait();
  ASSERT_TRUE(completion);
  EXPECT_EQ(completion->status, TANDEM_STATUS_NEEDS_STAGING) << "it was released";
  EXPECT_EQ((*client)->disconnect(TANDEM_QUEUE_OWNER_GONE).reserved_bytes_freed, kPageSize);
}

// ---- Quotas -------------------------------------------------------------------------------------

TEST_F(ClientTest, RingsOfATenantAreLimitedOverItsClients) {
  Framework::Options options;
  options.ring_bytes_per_tenant = 2 * (kPageSize + (TANDEM_MAX_DEPTH * std::uint64_t{96}));
  make(options);
  auto client = connect(1);
  auto other = connect(1);
  const auto one = client->open("gate", TANDEM_MAX_DEPTH);
  ASSERT_TRUE(one && other->open("gate", TANDEM_MAX_DEPTH));
  EXPECT_EQ(error_of(other->open("gate", TANDEM_MIN_DEPTH)), ENOMEM);
  EXPECT_TRUE(connect(2)->open("gate", TANDEM_MIN_DEPTH));
  ASSERT_TRUE(client->put(one->queue));
  EXPECT_TRUE(other->open("gate", TANDEM_MAX_DEPTH));
  other->disconnect(TANDEM_QUEUE_OWNER_GONE);
  EXPECT_TRUE(client->open("gate", TANDEM_MAX_DEPTH));
  EXPECT_TRUE(client->open("gate", TANDEM_MAX_DEPTH));
}

// ---- Lost engine threads ------------------------------------------------------------------------

TEST_F(ClientTest, ThatLosesThreadsAndReconnectsIsTheSameUser) {
  Framework::Options options;
  options.stuck_after = milliseconds(20);
  make(options);
  for (std::uint32_t tenant = 1; tenant <= 2; ++tenant) {  // two processes of one user
    auto client = connect(tenant);
    for (int i = 0; i < 2; ++i) {
      RawQueue queue(*client, "gate");
      submit(queue, kBlock);
      ASSERT_TRUE(eventually([&] { return queue.state() == TANDEM_QUEUE_STUCK; }));
    }
    client->disconnect(TANDEM_QUEUE_OWNER_GONE);
  }
  EXPECT_TRUE(inside(4));
  EXPECT_EQ(error_of(connect(3)->open("gate", 64)), EMFILE);
  EXPECT_TRUE(connect(3, 8)->open("gate", 64)) << "another user";
  gate_->open();
  EXPECT_TRUE(eventually([&] { return connect(3)->open("gate", 64).has_value(); }))
      << "the threads have come back";
}

// ---- Releasing memory that an operation works on ------------------------------------------------

TEST_F(ClientTest, ReleasedMemoryInUseIsFreedWithItsQuotaWhenTheOperationEnds) {
  Framework::Options options;
  options.reserved_bytes_per_tenant = 4 * kPageSize;
  make(options);
  auto client = connect(1);
  const std::uint64_t memory = reserve_and_attach(*client, 3 * kPageSize);
  RawQueue queue(*client, "gate");
  submit(queue, kWork, kAt);
  ASSERT_TRUE(inside(1));
  EXPECT_EQ(error_of(client->release_reserved(memory)), ETIMEDOUT);
  EXPECT_EQ(error_of(client->release_reserved(memory)), ENOENT) << "it is given back";
  EXPECT_EQ(client->stats().reserved_bytes, 0u);
  EXPECT_EQ(error_of(client->reserve(2 * kPageSize)), ENOMEM) << "it is not free yet";
  gate_->open();
  ASSERT_TRUE(queue.wait());
  EXPECT_TRUE(eventually([&] { return client->reserve(4 * kPageSize).has_value(); }));
  submit(queue, kRead, kAt);
  const auto completion = queue.wait();
  ASSERT_TRUE(completion);
  EXPECT_NE(completion->status, TANDEM_STATUS_OK) << "it is detached";
}

TEST_F(ClientTest, DetachedMemoryInUseCanBeAttachedAgainAndReleasedLater) {
  Framework::Options options;
  options.reserved_bytes_per_tenant = 4 * kPageSize;
  make(options);
  auto client = connect(1);
  const std::uint64_t memory = reserve_and_attach(*client, 3 * kPageSize);
  RawQueue queue(*client, "gate");
  submit(queue, kWork, kAt);
  ASSERT_TRUE(inside(1));
  EXPECT_EQ(error_of(client->detach_reserved(memory)), ETIMEDOUT);
  EXPECT_EQ(error_of(client->detach_reserved(memory)), EINVAL) << "it is detached";
  EXPECT_TRUE(client->attach_reserved(memory, kAt + (1 << 20)));
  gate_->open();
  ASSERT_TRUE(queue.wait());
  EXPECT_TRUE(eventually([&] { return client->release_reserved(memory).has_value(); }));
  EXPECT_TRUE(client->reserve(4 * kPageSize));
}

}  // namespace
}  // namespace tandem::uacce
