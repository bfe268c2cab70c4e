// SPDX-License-Identifier: Apache-2.0
// Concurrency Kit's epochs.
extern "C" {
#include <ck_epoch.h>
}

#include "bench/rcu_measure.hpp"

namespace tandem::bench {
namespace {

ck_epoch_t& epoch() {
  static ck_epoch_t one = [] {
    ck_epoch_t fresh;
    ck_epoch_init(&fresh);
    return fresh;
  }();
  return one;
}

/// kBare: sections without section objects, which keep one long section from holding everybody up;
/// callbacks without ever asking whether some can run, which nobody does but the thread itself.
template <bool kBare>
class CkThread {
 public:
  using Head = ck_epoch_entry_t;

  // Records cannot be freed, only used again.
  CkThread() : record_(ck_epoch_recycle(&epoch(), nullptr)) {
    if (record_ != nullptr) return;
    record_ = static_cast<ck_epoch_record_t*>(
        std::aligned_alloc(alignof(ck_epoch_record_t), sizeof(ck_epoch_record_t)));
    if (record_ == nullptr) throw std::bad_alloc();
    ck_epoch_register(&epoch(), record_, nullptr);
  }
  ~CkThread() {
    ck_epoch_barrier(record_);
    ck_epoch_unregister(record_);
  }
  CkThread(const CkThread&) = delete;
  CkThread& operator=(const CkThread&) = delete;

  void lock() { ck_epoch_begin(record_, kBare ? nullptr : &section_); }
  void unlock() { ck_epoch_end(record_, kBare ? nullptr : &section_); }
  void synchronize() { ck_epoch_synchronize(record_); }
  void call(Head& head, ck_epoch_cb_t* function) {
    ck_epoch_call(record_, &head, function);
    if (!kBare && ++calls_ % 64 == 0) ck_epoch_poll(record_);
  }
  void drain() { ck_epoch_barrier(record_); }
  static void prepare() {}

 private:
  ck_epoch_record_t* record_;
  ck_epoch_section_t section_{};
  unsigned calls_ = 0;
};

}  // namespace

RcuImplementation ck_epochs() {
  return {.name = "ck 0.7.1 epochs, with sections, polled every 64 calls",
          .section_ns = section_ns<CkThread<false>>,
          .synchronize_ns = synchronize_ns<CkThread<false>>,
          .synchronize_rate = synchronize_rate<CkThread<false>>,
          .enqueue_ns = enqueue_ns<CkThread<false>>};
}

RcuImplementation ck_epochs_bare() {
  return {.name = "ck 0.7.1 epochs, without section objects, never polled",
          .section_ns = section_ns<CkThread<true>>,
          .synchronize_ns = synchronize_ns<CkThread<true>>,
          .synchronize_rate = synchronize_rate<CkThread<true>>,
          .enqueue_ns = enqueue_ns<CkThread<true>>};
}

}  // namespace tandem::bench
