// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "tandem/rcu/rcu.hpp"

namespace tandem::rcu {

/// What the litmus tests need of a kind of reader: made on the reading thread, which may be in a
/// section from enter() to leave().
struct PlainReader {
  static constexpr const char* kName = "Plain";
  explicit PlainReader(rcu_domain& in) : domain(in) {}
  void enter() { domain.lock(); }
  void leave() { domain.unlock(); }
  rcu_domain& domain;
};

/// Every litmus test runs once for each.
using ReaderKinds = ::testing::Types<PlainReader>;

struct ReaderKindNames {
  template <class Reader>
  static std::string GetName(int /*index*/) {
    return Reader::kName;
  }
};

}  // namespace tandem::rcu
