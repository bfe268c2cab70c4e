// SPDX-License-Identifier: Apache-2.0
/// An engine without memory, for tests of the framework.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "tandem/uacce/device.hpp"

namespace tandem::uacce::detail {

/// Answers operation kOperate by `operate`, every other one with UNKNOWN_OPCODE.
class TestEngine final : public Engine {
 public:
  static constexpr std::uint16_t kOperate = TANDEM_OP_SRC_IN | 0x700;
  using Operate = std::function<Completion(const tandem_descriptor&)>;

  explicit TestEngine(std::string name, Operate operate = {})
      : name_(std::move(name)), operate_(std::make_shared<Operate>(std::move(operate))) {}

  DeviceTraits traits() const override {
    DeviceTraits traits;
    traits.name = name_;
    traits.api = "tandem_test_v1";
    traits.algorithms = {"test", name_ + "-alg"};
    traits.queues_max = queues_max;
    traits.sva = sva;
    traits.quick = quick;
    return traits;
  }
  std::unique_ptr<Worker> make_worker() override {
    if (failing_workers > 0) {
      --failing_workers;
      throw std::bad_alloc();
    }
    return std::make_unique<TestWorker>(operate_);
  }

  std::uint32_t queues_max = 20000;
  bool sva = true;
  bool quick = false;
  std::atomic<int> failing_workers{0};  ///< so many calls of make_worker() throw

 private:
  class TestWorker final : public Worker {
   public:
    explicit TestWorker(std::shared_ptr<Operate> operate) : operate_(std::move(operate)) {}
    Completion execute(const tandem_descriptor& descriptor, const pcie::AddressSpace&,
                       Session*) override {
      if (descriptor.opcode == kOperate && *operate_) return (*operate_)(descriptor);
      Completion completion;
      completion.status = TANDEM_STATUS_UNKNOWN_OPCODE;
      return completion;
    }

   private:
    std::shared_ptr<Operate> operate_;
  };

  const std::string name_;
  const std::shared_ptr<Operate> operate_;
};

}  // namespace tandem::uacce::detail
