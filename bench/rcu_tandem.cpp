// SPDX-License-Identifier: Apache-2.0
// tandem::rcu, and std::shared_mutex, in the terms of rcu_measure.hpp.
#include <shared_mutex>

#include "bench/rcu_measure.hpp"
#include "tandem/rcu/call.hpp"
#include "tandem/rcu/grace_period.hpp"
#include "tandem/rcu/hash_table.hpp"
#include "tandem/rcu/quiescent.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::bench {
namespace {

class TandemThread {
 public:
  using Head = rcu::callback_head;

  void lock() { rcu::rcu_default_domain().lock(); }
  void unlock() { rcu::rcu_default_domain().unlock(); }
  void synchronize() { rcu::rcu_synchronize(); }
  void call(Head& head, void (*function)(Head*) noexcept) { rcu::call(head, function, 64); }
  void drain() { rcu::rcu_barrier(); }
  static void prepare() { (void)rcu::prepare_polling(); }
};

class QuiescentThread {
 public:
  void lock() {}
  void unlock() { reader_.quiescent(); }

 private:
  rcu::quiescent_reader reader_;
};

/// In a domain of their own, since a plain reader anywhere in it costs an interrupt.
class FencedThread {
 public:
  void lock() { reader_.lock(); }
  void unlock() { reader_.unlock(); }
  void synchronize() { rcu::rcu_synchronize(domain_); }

 private:
  static rcu::rcu_domain& domain() {
    static rcu::rcu_domain one;
    return one;
  }
  rcu::rcu_domain& domain_ = domain();
  rcu::fenced_reader reader_{domain_};
};

class SharedMutexThread {
 public:
  void lock() { mutex().lock_shared(); }
  void unlock() { mutex().unlock_shared(); }

 private:
  static std::shared_mutex& mutex() {
    static std::shared_mutex one;
    return one;
  }
};

class Table {
 public:
  Table() {
    TandemThread self;
    for (std::uint64_t key = 0; key < kHashKeys; ++key) replace(self, key);
  }
  ~Table() {
    for (std::uint64_t key = 0; key < kHashKeys; ++key) delete table_.erase(key);
  }
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;

  bool find(std::uint64_t key) const { return table_.find(key) != nullptr; }

  void replace(TandemThread&, std::uint64_t key) {
    auto* const fresh = new Element;
    fresh->key = key;
    if (Element* const old = table_.insert_or_replace(*fresh)) rcu::free(old);
  }

 private:
  struct Element : rcu::callback_head, rcu::hash_node {
    std::uint64_t key = 0;
  };
  struct KeyOf {
    std::uint64_t operator()(const Element& element) const { return element.key; }
  };
  struct Hash {
    std::uint64_t operator()(std::uint64_t key) const { return hash_of(key); }
  };

  rcu::hash_table<Element, KeyOf, Hash> table_{{.buckets = kHashBuckets, .automatic = false}};
};

}  // namespace

RcuImplementation tandem_rcu() {
  return {.name = "tandem::rcu",
          .section_ns = section_ns<TandemThread>,
          .synchronize_ns = synchronize_ns<TandemThread>,
          .synchronize_rate = synchronize_rate<TandemThread>,
          .enqueue_ns = enqueue_ns<TandemThread>,
          .callback_us = callback_us<TandemThread>,
          .flood_rate = flood_rate<TandemThread>,
          .hash_rates = hash_rates<TandemThread, Table>};
}

RcuImplementation tandem_quiescent() {
  return {.name = "quiescent_reader", .section_ns = section_ns<QuiescentThread>};
}

RcuImplementation tandem_fenced() {
  return {.name = "fenced_reader",
          .section_ns = section_ns<FencedThread>,
          .synchronize_ns = synchronize_ns<FencedThread>};
}

RcuImplementation shared_mutex() {
  return {.name = "std::shared_mutex", .section_ns = section_ns<SharedMutexThread>};
}

}  // namespace tandem::bench
