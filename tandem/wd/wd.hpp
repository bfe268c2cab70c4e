// SPDX-License-Identifier: Apache-2.0
/// WarpDrive for C++: queues, operations and results over wd.h.
///
///     auto q = tandem::wd::open("gzip").value();
///     auto n = q.run(tandem::wd::Gzip{out, in});     // Result<Done, Error>
///
/// Operations are aggregates over memory; any pointer works, reserved memory only removes faults
/// and copies. A Queue is move-only and belongs to one thread at a time, and so do the Ops it
/// handed out. Header-only over the C ABI. Nothing here throws, but for std::bad_alloc while
/// opening a queue, making a batch or listing devices.
///
/// Fork: a child may go on with a Queue; Ops that were pending are the parent's and end here with
/// Code::kDeviceLost.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <memory_resource>
#include <new>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "tandem/base/result.hpp"
#include "tandem/wd/detail/channel.hpp"
#include "tandem/wd/error.hpp"
#include "tandem/wd/operations.hpp"
#include "tandem/wd/wd.h"

namespace tandem::wd {

namespace detail {

/// Of an operation whose request() is nothing.
inline Error too_long() { return {Code::kInvalid, 0, 0, "an operand of 4 GiB or more: divide it"}; }

}  // namespace detail

/// A submitted operation. Its buffers must live until it is done; destroying a pending one waits.
///
/// Thread safety: belongs to the thread of its Queue. Allocates nothing.
class [[nodiscard]] Op {
 public:
  Op(Op&& other) noexcept
      : channel_(std::move(other.channel_)),
        slot_(std::exchange(other.slot_, nullptr)),
        error_(other.error_) {}
  Op& operator=(Op&& other) noexcept {
    finish();
    channel_ = std::move(other.channel_);
    slot_ = std::exchange(other.slot_, nullptr);
    error_ = other.error_;
    return *this;
  }
  ~Op() { finish(); }

  /// Whether get() would not wait.
  bool ready() {
    if (slot_ == nullptr) return true;
    if (pending()) {
      (void)channel_->poll(std::numeric_limits<int>::max());
      if (wd_in_flight(&channel_->queue()) == 0) channel_->lose_pending();
    }
    return !pending();
  }
  /// Waits for the result. The same however often it is asked for.
  Result<Done, Error> get() {
    if (slot_ == nullptr) return Unexpected{error_};
    channel_->settle(*slot_);
    return channel_->outcome(*slot_);
  }
  /// Waits until `deadline`; Code::kDeadline when it is not done by then: it goes on, ask again.
  Result<Done, Error> get_until(std::chrono::steady_clock::time_point deadline) {
    if (slot_ != nullptr && !channel_->settle_until(*slot_, deadline)) {
      return Unexpected{Error{Code::kDeadline, 0, 0,
                              "not done in time; the operation goes on: wait again or cancel()"}};
    }
    return get();
  }
  /// Has Queue::poll() call `call(argument)` once when it is done; false, and no call, when it is
  /// already. For adapters to whatever runs the program: see coroutine.hpp.
  bool call_when_done(void (*call)(void*), void* argument) {
    if (ready()) return false;
    channel_->set_waiter(*slot_, call, argument);
    return true;
  }
  /// Tries to withdraw it. Returns whether the attempt was in time to be made; get() then says
  /// Code::kCancelled, or the result when the engine was faster.
  bool cancel() {
    return slot_ != nullptr && pending() && wd_cancel(&channel_->queue(), &slot_->request) == 0;
  }

 private:
  friend class Queue;
  friend class Batch;
  explicit Op(Error error) : error_(error) {}
  Op(detail::ChannelRef channel, detail::Channel::Slot* slot)
      : channel_(std::move(channel)), slot_(slot) {}

  bool pending() const { return slot_->state == detail::Channel::State::kPending; }
  void finish() {
    if (slot_ == nullptr) return;
    channel_->forget_waiter(*slot_);
    channel_->settle(*slot_);
    channel_->give_back(slot_);
    slot_ = nullptr;
  }

  detail::ChannelRef channel_;
  detail::Channel::Slot* slot_ = nullptr;  // nullptr: error_ is the result
  Error error_;
};

/// Operations that one doorbell submits together.
class Batch {
 public:
  template <Operation T>
  Batch& add(const T& operation) {
    requests_.push_back(operation.request());
    return *this;
  }
  std::size_t size() const { return requests_.size(); }

  /// Submits them, in order, and starts anew. What was not taken ends with Code::kBusy or why.
  std::vector<Op> submit() {
    std::vector<Op> ops;
    std::vector<wd_request*> to_send;
    ops.reserve(requests_.size());
    to_send.reserve(requests_.size());
    for (const auto& request : requests_) {
      detail::Channel::Slot* const slot = request ? channel_->take(*request) : nullptr;
      if (slot == nullptr) {
        ops.push_back(Op(request ? Error::from_errno(-EBUSY) : detail::too_long()));
      } else {
        to_send.push_back(&slot->request);
        ops.push_back(Op(channel_, slot));
      }
    }
    const int sent =
        wd_send_batch(&channel_->queue(), to_send.data(), static_cast<unsigned>(to_send.size()));
    std::size_t taken = sent < 0 ? 0 : static_cast<std::size_t>(sent);
    for (Op& op : ops) {
      if (op.slot_ == nullptr) continue;
      if (taken != 0) {
        op.slot_->state = detail::Channel::State::kPending;
        --taken;
      } else {
        channel_->give_back(std::exchange(op.slot_, nullptr));
        op.error_ = Error::from_errno(sent < 0 ? sent : -EBUSY);
      }
    }
    requests_.clear();
    return ops;
  }

 private:
  friend class Queue;
  explicit Batch(detail::ChannelRef channel) : channel_(std::move(channel)) {}
  detail::ChannelRef channel_;
  std::vector<std::optional<wd_request>> requests_;
};

/// Reserved memory: engines reach it without copies. Given back by the destructor, when no engine
/// reaches it any more. Fork: not inherited; a child must not touch the memory, and destroying the
/// object there does nothing.
class Reserved {
 public:
  Reserved(Reserved&& other) noexcept
      : channel_(std::move(other.channel_)),
        bytes_(std::exchange(other.bytes_, {})),
        id_(other.id_),
        resource_(std::move(other.resource_)) {}
  Reserved& operator=(Reserved&& other) noexcept {
    std::swap(channel_, other.channel_);
    std::swap(bytes_, other.bytes_);
    std::swap(id_, other.id_);
    std::swap(resource_, other.resource_);
    return *this;
  }
  ~Reserved() {
    // What starts there may be another reservation by now: that of a forked child.
    if (bytes_.data() == nullptr || wd_memory_id(bytes_.data()) != id_) return;
    (void)wd_release_memory(&channel_->queue(), bytes_.data());
  }

  std::span<std::byte> bytes() const { return bytes_; }
  /// Allocates from it, from the start, and frees nothing before the end; std::bad_alloc when full.
  std::pmr::memory_resource* resource() {
    if (!resource_) {
      resource_ = std::make_unique<std::pmr::monotonic_buffer_resource>(
          bytes_.data(), bytes_.size(), std::pmr::null_memory_resource());
    }
    return resource_.get();
  }

 private:
  friend class Queue;
  Reserved(detail::ChannelRef channel, std::span<std::byte> bytes)
      : channel_(std::move(channel)), bytes_(bytes), id_(wd_memory_id(bytes.data())) {}
  detail::ChannelRef channel_;
  std::span<std::byte> bytes_;
  std::uint64_t id_ = 0;  // which reservation
  std::unique_ptr<std::pmr::monotonic_buffer_resource> resource_;
};

struct Options {
  Path path = Path::kAuto;
  std::uint32_t depth = 0;       ///< operations at once, a power of two; 0: 256
  std::size_t inline_below = 0;  ///< operations on fewer input bytes run in the caller, if they can
};

/// A queue: one device, one thread at a time.
class Queue {
 public:
  /// Errors: kNoDevice, kDenied, kNoMemory, kInvalid, kDeadline (a broker that does not answer).
  static Result<Queue, Error> open(const char* algorithm, const Options& options = {}) {
    int error = 0;
    detail::ChannelRef main(detail::Channel::open(algorithm, options.path, options.depth, error));
    if (!main) return Unexpected{Error::from_errno(error)};
    Queue queue(std::move(main));
    if (options.inline_below != 0 && queue.main_->path() != Path::kInline) {
      queue.inline_ =
          detail::ChannelRef(detail::Channel::open(algorithm, Path::kInline, options.depth, error));
      if (queue.inline_) queue.inline_below_ = options.inline_below;
    }
    return queue;
  }

  /// Runs `operation` and waits for it.
  template <Operation T>
  Result<Done, Error> run(const T& operation) {
    return submit(operation).get();
  }

  /// Starts `operation`; never waits. When it cannot be started the Op is ready and says why.
  template <Operation T>
  Op submit(const T& operation) {
    const auto request = operation.request();
    if (!request) return Op(detail::too_long());
    detail::ChannelRef& channel = channel_for(request->src_len);
    detail::Channel::Slot* const slot = channel->take(*request);
    if (slot == nullptr) return Op(Error::from_errno(-EBUSY));
    if (const int sent = wd_send(&channel->queue(), &slot->request); sent != 0) {
      channel->give_back(slot);
      return Op(Error::from_errno(sent));
    }
    slot->state = detail::Channel::State::kPending;
    return Op(channel, slot);
  }

  Batch make_batch() { return Batch(main_); }

  /// Errors: kInvalid for zero bytes, or more than an address space has; those of
  ///         wd_reserve_memory(), kNoMemory above all.
  Result<Reserved, Error> reserve(std::size_t size_bytes) {
    void* const memory = wd_reserve_memory(&main_->queue(), size_bytes);
    if (memory == nullptr) {
      Error error = Error::from_errno(-errno);
      if (error.code == Code::kInvalid) {
        error.hint =
            "a size that cannot be reserved: ask for at least 1 byte, and less than the "
            "quota of reserved memory";
      }
      return Unexpected{error};
    }
    return Reserved(main_, {static_cast<std::byte*>(memory), size_bytes});
  }

  /// For event loops: a descriptor that is readable after arm() once something is done, or the
  /// queue has died. Errors: those of wd_fd(), a negative errno.
  int fd() { return wd_fd(&main_->queue()); }
  /// Returns: 1 when there is something for poll() to do already, or the queue has died; 0 when
  ///          fd() tells when there is; a negative errno, as wd_arm(): nothing signals fd(), so
  ///          poll() from time to time.
  int arm() { return inline_waits() ? 1 : main_->arm(); }
  /// Finishes at most `most` operations and goes on with coroutines that await them. Returns how
  /// many it finished.
  int poll(int most) {
    const detail::ChannelRef main(main_), small(inline_);  // who is called may end the queue
    const int finished = main->poll_and_call(most);
    return small ? finished + small->poll_and_call(most) : finished;
  }
  /// Operations started and not finished.
  unsigned in_flight() {
    return wd_in_flight(&main_->queue()) + (inline_ ? wd_in_flight(&inline_->queue()) : 0);
  }

  /// Opens it again after Code::kDeviceLost, with the same parameters.
  Result<void, Error> reopen() {
    const int error = wd_reinit(&main_->queue());
    if (error != 0) return Unexpected{Error::from_errno(error)};
    main_->lose_pending();
    return {};
  }

  Path path() const { return main_->path(); }
  std::string_view device() const { return main_->queue().device; }
  /// For calls of wd.h that are not here.
  wd_queue& c_queue() { return main_->queue(); }

 private:
  explicit Queue(detail::ChannelRef main) : main_(std::move(main)) {}
  detail::ChannelRef& channel_for(std::size_t size_bytes) {
    return size_bytes < inline_below_ ? inline_ : main_;
  }
  /// What runs in the caller is run by poll(), not by waiting for the descriptor.
  bool inline_waits() {
    return inline_ && (wd_in_flight(&inline_->queue()) != 0 || inline_->arm() > 0);
  }

  detail::ChannelRef main_, inline_;
  std::size_t inline_below_ = 0;
};

/// Opens a queue for `algorithm`, or on the device of that name.
inline Result<Queue, Error> open(const char* algorithm, const Options& options = {}) {
  return Queue::open(algorithm, options);
}

/// Runs `operation` on this thread's own queue, which the first call opens.
template <Operation T>
Result<Done, Error> run(const T& operation) {
  struct Entry {
    std::string_view algorithm;
    Queue queue;
  };
  thread_local std::vector<Entry> queues;
  auto entry = std::ranges::find(queues, std::string_view(T::kAlgorithm), &Entry::algorithm);
  if (entry == queues.end()) {
    auto opened = Queue::open(T::kAlgorithm);
    if (!opened) return Unexpected{opened.error()};
    queues.push_back({T::kAlgorithm, std::move(*opened)});
    entry = std::prev(queues.end());
  }
  auto result = entry->queue.run(operation);
  if (!result && result.error().code == Code::kDeviceLost) {
    queues.erase(entry);  // the next call finds a device again, if there is one
  }
  return result;
}

}  // namespace tandem::wd
