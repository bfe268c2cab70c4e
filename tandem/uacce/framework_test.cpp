// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/framework.hpp"

#include <gtest/gtest.h>

#include <cerrno>

#include "tandem/uacce/detail/raw_queue.hpp"
#include "tandem/uacce/detail/test_engine.hpp"

namespace tandem::uacce {
namespace {

using detail::RawQueue;
using detail::TestEngine;

template <class T>
int error_of(const Result<T>& result) {
  return result ? 0 : result.error().value();
}

std::unique_ptr<Framework> make(Framework::Options options = {}) {
  auto created = Framework::create(options);
  TANDEM_CHECK(created);
  return std::move(*created);
}

TEST(Framework, DeviceNamesAreUniqueAndTraitsFitTheAbi) {
  auto framework = make();
  EXPECT_TRUE(framework->add_device(std::make_unique<TestEngine>("one")));
  EXPECT_EQ(error_of(framework->add_device(std::make_unique<TestEngine>("one"))), EEXIST);
  EXPECT_EQ(error_of(framework->add_device(std::make_unique<TestEngine>(std::string(32, 'x')))),
            EINVAL);
  EXPECT_EQ(error_of(framework->add_device(std::make_unique<TestEngine>("a b"))), EINVAL);
  EXPECT_EQ(error_of(framework->remove_device("two")), ENOENT);
  const auto devices = framework->devices();
  ASSERT_EQ(devices.size(), 1u);
  EXPECT_STREQ(devices[0].name, "one");
  EXPECT_STREQ(devices[0].algorithms, "test\none-alg");
  EXPECT_EQ(devices[0].flags, TANDEM_DEVICE_SVA);
}

TEST(Framework, AnAlgorithmGoesToTheDeviceWithTheFewestQueues) {
  auto framework = make();
  ASSERT_TRUE(framework->add_device(std::make_unique<TestEngine>("one")));
  ASSERT_TRUE(framework->add_device(std::make_unique<TestEngine>("two")));
  auto client = framework->connect(1, {});
  ASSERT_TRUE(client);
  EXPECT_EQ((*client)->open("test", 64)->device, "one");
  EXPECT_EQ((*client)->open("test", 64)->device, "two");
  EXPECT_EQ((*client)->open("two-alg", 64)->device, "two");
  const auto devices = framework->devices();
  EXPECT_EQ(devices[1].queues_used, 2u);
  EXPECT_EQ(devices[1].clients, 1u);
}

TEST(Framework, QueuesOfATenantAreLimitedOverItsClients) {
  Framework::Options options;
  options.queues_per_tenant = 3;
  auto framework = make(options);
  ASSERT_TRUE(framework->add_device(std::make_unique<TestEngine>("one")));
  auto a = framework->connect(1, {});
  auto b = framework->connect(1, {});
  auto other = framework->connect(2, {});
  ASSERT_TRUE(a && b && other);
  auto first = (*a)->open("test", 64);
  EXPECT_TRUE(first && (*a)->open("test", 64) && (*b)->open("test", 64));
  EXPECT_EQ(error_of((*b)->open("test", 64)), EMFILE);
  EXPECT_TRUE((*other)->open("test", 64));
  EXPECT_TRUE((*a)->put(first->queue));
  EXPECT_TRUE((*b)->open("test", 64));
  (*a)->disconnect(TANDEM_QUEUE_OWNER_GONE);
  EXPECT_TRUE((*b)->open("test", 64));
}

TEST(Framework, ReservedMemoryOfATenantIsLimited) {
  Framework::Options options;
  options.reserved_bytes_per_tenant = 3 * kPageSize;
  auto framework = make(options);
  auto client = framework->connect(1, {});
  ASSERT_TRUE(client);
  EXPECT_EQ(error_of((*client)->reserve(0)), EINVAL);
  EXPECT_EQ(error_of((*client)->reserve(~std::uint64_t{0})), ENOMEM);
  auto one = (*client)->reserve(kPageSize + 1);
  ASSERT_TRUE(one);
  EXPECT_EQ(one->size_bytes, 2 * kPageSize);
  EXPECT_EQ(error_of((*client)->reserve(2 * kPageSize)), ENOMEM);
  EXPECT_EQ((*client)->stats().reserved_bytes, 2 * kPageSize);
  EXPECT_EQ(error_of((*client)->release_reserved(99)), ENOENT);
  EXPECT_TRUE((*client)->release_reserved(one->id));
  EXPECT_EQ(error_of((*client)->release_reserved(one->id)), ENOENT);
  EXPECT_TRUE((*client)->reserve(3 * kPageSize));
}

TEST(Framework, RemovingADeviceEndsItsQueuesOnly) {
  auto framework = make();
  ASSERT_TRUE(framework->add_device(std::make_unique<TestEngine>("one")));
  ASSERT_TRUE(framework->add_device(std::make_unique<TestEngine>("two")));
  auto client = framework->connect(1, {});
  ASSERT_TRUE(client);
  RawQueue one(**client, "one");
  RawQueue two(**client, "two");
  ASSERT_TRUE(framework->remove_device("one"));
  EXPECT_EQ(one.state(), TANDEM_QUEUE_DEVICE_REMOVED);
  EXPECT_EQ(error_of((*client)->open("one", 64)), ENOENT);
  two.submit(TANDEM_OP_NOP, 5);
  EXPECT_EQ(two.wait()->tag, 5u);
}

TEST(Framework, DisconnectEndsQueuesAndCountsWhatItCleanedUp) {
  auto framework = make();
  ASSERT_TRUE(framework->add_device(std::make_unique<TestEngine>("one")));
  auto client = framework->connect(1, {});
  ASSERT_TRUE(client);
  RawQueue queue(**client, "one");
  ASSERT_TRUE((*client)->reserve(kPageSize));
  (*client)->disconnect(TANDEM_QUEUE_OWNER_GONE);
  (*client)->disconnect(TANDEM_QUEUE_PUT);
  EXPECT_EQ(queue.state(), TANDEM_QUEUE_OWNER_GONE);
  EXPECT_EQ(error_of((*client)->open("one", 64)), ESHUTDOWN);
  EXPECT_EQ(error_of((*client)->put(queue.id())), ESHUTDOWN);
  const auto cleanup = framework->cleanup();
  EXPECT_EQ(cleanup.clients, 1u);
  EXPECT_EQ(cleanup.queues, 1u);
  EXPECT_EQ(cleanup.reserved_bytes, kPageSize);
  EXPECT_EQ(cleanup.quarantined_pasids, 0u);
}

TEST(Framework, ItsEndIsSeenByClientsThatOutliveIt) {
  auto framework = make();
  ASSERT_TRUE(framework->add_device(std::make_unique<TestEngine>("one")));
  auto client = framework->connect(1, {});
  ASSERT_TRUE(client);
  RawQueue queue(**client, "one");
  framework.reset();
  EXPECT_EQ(queue.state(), TANDEM_QUEUE_DEVICE_REMOVED);
  EXPECT_EQ(error_of((*client)->open("one", 64)), ESHUTDOWN);
}

TEST(Framework, ADeviceWithoutSvaServesOneClientAtATime) {
  auto framework = make();
  auto engine = std::make_unique<TestEngine>("one");
  engine->sva = false;
  ASSERT_TRUE(framework->add_device(std::move(engine)));
  auto a = framework->connect(1, {});
  auto b = framework->connect(2, {});
  ASSERT_TRUE(a && b);
  auto queue = (*a)->open("one", 64);
  ASSERT_TRUE(queue);
  EXPECT_EQ(queue->device_flags, 0u);
  EXPECT_EQ(error_of((*b)->open("one", 64)), EBUSY);
  ASSERT_TRUE((*a)->put(queue->queue));
  EXPECT_TRUE((*b)->open("one", 64));
}

TEST(FrameworkDeath, AnInlineEngineMustNotRunQueuesItself) {
  EXPECT_DEATH(
      {
        Framework::Options options;
        options.engine_threads = 0;
        auto framework = make(options);
        Client* self = nullptr;
        std::uint32_t id = 0;
        (void)framework->add_device(
            std::make_unique<TestEngine>("one", [&](const tandem_descriptor&) {
              (void)self->run_in_caller(id);
              return Completion{};
            }));
        auto client = framework->connect(1, {});
        self = client->get();
        RawQueue queue(*self, "one");
        id = queue.id();
        queue.submit(TestEngine::kOperate, 1);
        (void)self->run_in_caller(id);
      },
      "invariant");
}

TEST(Framework, InlineQueuesNeverAskToBeWokenAndServeCallersOfManyThreads) {
  Framework::Options options;
  options.engine_threads = 0;
  auto framework = make(options);
  ASSERT_TRUE(framework->add_device(std::make_unique<TestEngine>("one")));
  auto client = framework->connect(1, {});
  ASSERT_TRUE(client);
  RawQueue queue(**client, "one", 1024);
  EXPECT_EQ(queue.parked(), 0u);
  std::atomic<bool> stop{false};
  std::jthread helper([&] {
    while (!stop.load()) (void)(*client)->run_in_caller(queue.id());
  });
  for (std::uint64_t tag = 0; tag < 50000; ++tag) {
    queue.submit(TANDEM_OP_NOP, tag);
    (void)(*client)->run_in_caller(queue.id());
    const auto completion = queue.wait();
    ASSERT_TRUE(completion);
    ASSERT_EQ(completion->tag, tag);
  }
  stop = true;
  EXPECT_EQ(queue.parked(), 0u);
}

}  // namespace
}  // namespace tandem::uacce
