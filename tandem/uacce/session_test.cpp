// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <memory>

#include "tandem/uacce/detail/raw_queue.hpp"

namespace tandem::uacce {
namespace {

using detail::RawQueue;

/// What sessions were told, and what a client could see at that time.
struct Story {
  std::atomic<std::uint32_t> tenant{0};
  std::atomic<int> stops{0};
  std::atomic<int> late{0};  // stops that came after the client knew of the death
  std::atomic<RawQueue*> queue{nullptr};
};

class StoryEngine final : public Engine {
 public:
  explicit StoryEngine(Story& story) : story_(story) {}
  DeviceTraits traits() const override {
    return {.name = "story", .api = "tandem_test_v1", .algorithms = {"story"}};
  }
  std::unique_ptr<Worker> make_worker() override { return nullptr; }
  std::unique_ptr<Session> make_session_for(std::uint32_t tenant) override {
    story_.tenant = tenant;
    return std::make_unique<StorySession>(story_);
  }

 private:
  class StorySession final : public Session {
   public:
    explicit StorySession(Story& story) : story_(story) {}
    void stop() noexcept override {
      RawQueue* const queue = story_.queue;
      if (story_.stops.fetch_add(1) == 0 && queue != nullptr && queue->state() != 0) ++story_.late;
    }

   private:
    Story& story_;
  };
  Story& story_;
};

class SessionStop : public testing::TestWithParam<int> {
 protected:
  SessionStop() {
    Framework::Options options;
    options.engine_threads = GetParam();
    framework_ = std::move(*Framework::create(options));
    TANDEM_CHECK(framework_->add_device(std::make_unique<StoryEngine>(story_)));
    client_ = std::move(*framework_->connect(77, {}));
    queue_ = std::make_unique<RawQueue>(*client_, "story");
    story_.queue = queue_.get();
  }
  ~SessionStop() override { story_.queue = nullptr; }
  void expect_stopped() {
    EXPECT_GE(story_.stops, 1);
    EXPECT_EQ(story_.late, 0);
    EXPECT_NE(queue_->state(), 0u);
  }

  Story story_;
  std::unique_ptr<RawQueue> queue_;  // outlives the threads that look at it
  std::unique_ptr<Framework> framework_;
  std::unique_ptr<Client> client_;
};

INSTANTIATE_TEST_SUITE_P(Threads, SessionStop, testing::Values(0, 1), [](const auto& chosen) {
  return "Engines" + std::to_string(chosen.param);
});

TEST_P(SessionStop, KnowsItsTenantAndIsNotStoppedWhileTheQueueLives) {
  EXPECT_EQ(story_.tenant, 77u);
  EXPECT_EQ(story_.stops, 0);
}

TEST_P(SessionStop, ComesBeforeTheClientLearnsThatItsQueueWasPut) {
  ASSERT_TRUE(client_->put(queue_->id()));
  expect_stopped();
}

TEST_P(SessionStop, ComesBeforeDisconnectReturns) {
  (void)client_->disconnect(TANDEM_QUEUE_OWNER_GONE);
  expect_stopped();
}

TEST_P(SessionStop, ComesWhenTheDeviceIsRemoved) {
  ASSERT_TRUE(framework_->remove_device("story"));
  expect_stopped();
}

TEST_P(SessionStop, ComesWhenTheQueueDiesOfItsTail) {
  RawQueue::word(queue_->doorbell().tail).store(1u << 30);
  (void)::eventfd_write(client_->wake_descriptor()->get(), 1);
  if (GetParam() == 0) (void)client_->run_in_caller(queue_->id());
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (queue_->state() == 0 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  expect_stopped();
}

}  // namespace
}  // namespace tandem::uacce
