// SPDX-License-Identifier: Apache-2.0
/// Shared by tests.
#pragma once

#include <atomic>
#include <latch>

#include "tandem/memory/memory.hpp"

namespace tandem::pcie::detail {

/// A region that stays in write() until it is let go.
class Gate : public memory::IoRegion {
 public:
  explicit Gate(bool looks_after = false) : looks_after_(looks_after) {}
  bool looks_after_accesses() const override { return looks_after_; }
  memory::Outcome read(std::uint64_t, std::span<std::byte> to) override {
    return {to.size(), memory::Fault::kNone};
  }
  memory::Outcome write(std::uint64_t, std::span<const std::byte> from) override {
    entered.count_down();
    let_go.wait();
    done = true;
    return {from.size(), memory::Fault::kNone};
  }
  std::latch entered{1}, let_go{1};
  std::atomic<bool> done{false};

 private:
  const bool looks_after_;
};

}  // namespace tandem::pcie::detail
