// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <string>
#include <thread>

#include "tandem/rcu/quiescent.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::rcu {

/// What the litmus tests need of a kind of reader: made on the reading thread, which may be in a
/// section from enter() to leave(), and is in none from rest() to resume().
struct PlainReader {
  static constexpr const char* kName = "Plain";
  explicit PlainReader(rcu_domain& in) : domain(in) {}
  void enter() { domain.lock(); }
  void leave() { domain.unlock(); }
  void rest() {}
  void resume() {}
  rcu_domain& domain;
};

struct FencedReader {
  static constexpr const char* kName = "Fenced";
  explicit FencedReader(rcu_domain& domain) : reader(domain) {}
  void enter() { reader.lock(); }
  void leave() { reader.unlock(); }
  void rest() {}
  void resume() {}
  fenced_reader reader;
};

/// A section goes from one quiescent state to the next.
struct QuiescentReader {
  static constexpr const char* kName = "Quiescent";
  explicit QuiescentReader(rcu_domain& domain) : reader(domain) {}
  void enter() {}
  void leave() { reader.quiescent(); }
  void rest() { reader.offline(); }
  void resume() { reader.online(); }
  quiescent_reader reader;
};

/// As that, but offline between sections.
struct OnlineReader {
  static constexpr const char* kName = "Online";
  explicit OnlineReader(rcu_domain& domain) : reader(domain) { reader.offline(); }
  void enter() { reader.online(); }
  void leave() { reader.offline(); }
  void rest() {}
  void resume() {}
  quiescent_reader reader;
};

/// A plain one that once waited for a grace period while there were others, of which none is left:
/// it did not count as plain meanwhile.
struct FormerWaiter : PlainReader {
  explicit FormerWaiter(rcu_domain& in) : PlainReader(in) {
    { const std::scoped_lock section(in); }
    std::atomic<bool> waited{false};
    std::atomic<bool> there{false};
    std::thread other([&] {
      { const std::scoped_lock section(in); }
      there = true;
      there.notify_one();
      waited.wait(false);
    });
    there.wait(false);
    rcu_synchronize(in);
    waited = true;
    waited.notify_one();
    other.join();
  }
};

/// Every litmus test runs once for each.
using ReaderKinds = ::testing::Types<PlainReader, FencedReader, QuiescentReader, OnlineReader>;

struct ReaderKindNames {
  template <class Reader>
  static std::string GetName(int /*index*/) {
    return Reader::kName;
  }
};

}  // namespace tandem::rcu
