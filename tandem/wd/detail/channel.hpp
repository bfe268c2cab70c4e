// SPDX-License-Identifier: Apache-2.0
/// What a Queue of wd.hpp and its Ops share. Not for clients.
#pragma once

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "tandem/base/result.hpp"
#include "tandem/wd/error.hpp"
#include "tandem/wd/wd.h"

namespace tandem::wd::detail {

/// Sleeps until `fd` is readable, at most `longest_ms`, when `armed`, which arm() returned, says
/// that it will be. After an error nobody signals it (no descriptor is left, say): a nap, to look
/// again.
inline void await_signal(int armed, int fd, std::int64_t longest_ms) {
  constexpr std::int64_t kNapMs = 1, kMostMs = 1000;
  pollfd event{armed < 0 ? -1 : fd, POLLIN, 0};
  (void)::poll(&event, 1, static_cast<int>(std::min(longest_ms, armed < 0 ? kNapMs : kMostMs)));
}

/// One struct wd_queue and the slots of the operations on it. Shared, without atomics, by the Queue
/// and its Ops: they belong to one thread at a time.
class Channel {
 public:
  enum class State : std::uint8_t { kFree, kPending, kDone };
  struct Slot {
    wd_request request{};
    State state = State::kFree;
    Slot* next = nullptr;  // in the list of free ones, or of those whose waiter is to be called
    void (*call)(void*) = nullptr;  // the waiter: what poll_and_call() calls when it is done
    void* argument = nullptr;
  };

  /// Returns nullptr and sets `error` on failure.
  static Channel* open(const char* algorithm, Path path, std::uint32_t depth, int& error) {
    auto channel = std::make_unique<Channel>();
    channel->queue_.algorithm = algorithm;
    channel->queue_.path = static_cast<std::uint32_t>(path);
    channel->queue_.depth = depth;
    error = wd_request_queue(&channel->queue_);
    if (error != 0) return nullptr;
    channel->slots_ = std::vector<Slot>(channel->queue_.depth);
    for (Slot& slot : channel->slots_) channel->give_back(&slot);
    return channel.release();
  }
  Channel() = default;
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;
  ~Channel() { wd_release_queue(&queue_); }

  void add_reference() { ++references_; }
  void drop_reference() {
    if (--references_ == 0) delete this;
  }

  wd_queue& queue() { return queue_; }
  Path path() const { return static_cast<Path>(queue_.path); }

  Slot* take(const wd_request& request) {
    Slot* const slot = free_;
    if (slot == nullptr) return nullptr;
    free_ = slot->next;
    slot->request = request;
    return slot;
  }
  void give_back(Slot* slot) {
    slot->state = State::kFree;
    slot->next = free_;
    free_ = slot;
  }

  int poll(int most) {
    int received = 0;
    for (wd_request* got = nullptr; received < most && wd_recv(&queue_, &got) == 1; ++received) {
      finish(got);
    }
    return received;
  }
  /// Also calls who waits for what is done by now, in that order. Returns how many were received.
  int poll_and_call(int most) {
    const int received = poll(most);
    if (waiters_ != 0 && wd_in_flight(&queue_) == 0) lose_pending();
    while (to_call_ != nullptr) {
      Slot* const slot = to_call_;
      to_call_ = slot->next;
      --waiters_;
      std::exchange(slot->call, nullptr)(slot->argument);
    }
    return received;
  }
  /// Returns: 1 when there is something for poll_and_call() to do, 0 when wd_fd() tells when there
  ///          is, a negative errno when it cannot.
  int arm() { return to_call_ != nullptr ? 1 : wd_arm(&queue_); }
  void set_waiter(Slot& slot, void (*call)(void*), void* argument) {
    forget_waiter(slot);
    slot.call = call;
    slot.argument = argument;
    ++waiters_;
  }
  /// Nobody waits for `slot` any more.
  void forget_waiter(Slot& slot) {
    if (slot.call == nullptr) return;
    slot.call = nullptr;
    --waiters_;
    for (Slot** at = &to_call_; *at != nullptr; at = &(*at)->next) {
      if (*at == &slot) {
        *at = slot.next;
        return;
      }
    }
  }
  /// Waits until `slot` is done.
  void settle(Slot& slot) {
    while (slot.state == State::kPending) {
      wd_request* got = nullptr;
      if (wd_in_flight(&queue_) != 0 && wd_recv_sync(&queue_, &got) == 1) {
        finish(got);
      } else {
        lose_pending();
      }
    }
  }
  /// Nothing is in flight any more: what is still pending was another process's, or a dead queue's.
  void lose_pending() {
    for (Slot& slot : slots_) {
      if (slot.state != State::kPending) continue;
      slot.request.status = TANDEM_STATUS_DEVICE_LOST;
      slot.request.done = 0;
      slot.request.fault_address = 0;
      slot.request.opaque[0] = 0;
      finish(slot);
    }
  }
  /// Like settle(), until `deadline`. Returns whether the slot is done.
  bool settle_until(Slot& slot, std::chrono::steady_clock::time_point deadline) {
    while (slot.state == State::kPending) {
      if (wd_in_flight(&queue_) == 0) lose_pending();
      if (poll(1) != 0) continue;
      const auto left = deadline - std::chrono::steady_clock::now();
      if (left <= left.zero()) return false;
      const int armed = wd_arm(&queue_);
      if (armed > 0) continue;
      const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
      await_signal(armed, armed < 0 ? -1 : wd_fd(&queue_), ms);
    }
    return true;
  }

  Result<Done, Error> outcome(const Slot& slot) const {
    const wd_request& request = slot.request;
    if (request.status != TANDEM_STATUS_OK) return Unexpected{Error::from_request(request)};
    return Done{request.done,
                request.result,
                path(),
                queue_.device,
                (request.result_flags & TANDEM_CPL_ZERO_COPY) != 0,
                (request.result_flags & TANDEM_CPL_STREAM_END) != 0};
  }

 private:
  void finish(wd_request* request) {
    static_assert(std::is_standard_layout_v<Slot>);  // the request is the slot's first member
    finish(*reinterpret_cast<Slot*>(request));
  }
  void finish(Slot& slot) {
    slot.state = State::kDone;
    if (slot.call == nullptr) return;
    Slot** end = &to_call_;
    while (*end != nullptr) end = &(*end)->next;
    slot.next = nullptr;
    *end = &slot;
  }

  wd_queue queue_ = WD_QUEUE_INIT;
  std::vector<Slot> slots_;
  Slot* free_ = nullptr;
  Slot* to_call_ = nullptr;  // done, in that order
  unsigned waiters_ = 0;     // slots with a waiter
  unsigned references_ = 1;
};

/// Counts a reference to a Channel.
class ChannelRef {
 public:
  ChannelRef() = default;
  explicit ChannelRef(Channel* owned) : channel_(owned) {}
  ChannelRef(const ChannelRef& other) : channel_(other.channel_) {
    if (channel_ != nullptr) channel_->add_reference();
  }
  ChannelRef(ChannelRef&& other) noexcept : channel_(std::exchange(other.channel_, nullptr)) {}
  ChannelRef& operator=(ChannelRef other) noexcept {
    std::swap(channel_, other.channel_);
    return *this;
  }
  ~ChannelRef() {
    if (channel_ != nullptr) channel_->drop_reference();
  }
  Channel* operator->() const { return channel_; }
  explicit operator bool() const { return channel_ != nullptr; }

 private:
  Channel* channel_ = nullptr;
};

}  // namespace tandem::wd::detail
