// SPDX-License-Identifier: Apache-2.0
/// Coroutines over WarpDrive: `co_await queue.submit(operation)`.
///
///     wd::Task<std::size_t> pack(wd::Queue& queue, Out dst, In src) {
///       auto done = co_await queue.submit(wd::Gzip{dst, src});   // Result<Done, Error>
///       if (!done) co_return Unexpected{done.error()};
///       co_return done->value;
///     }
///     auto first = pack(queue, a, b), second = pack(queue, c, d);   // both are under way
///     auto size = wd::drive(queue, first);                          // Result<std::size_t, Error>
///
/// A coroutine goes on inside Queue::poll(), on the thread that calls it, and nowhere else: drive()
/// is one such loop, an event loop over Queue::fd() another. An Op can be awaited in any coroutine
/// type. Nothing here throws; an exception that leaves a Task's body becomes its Error.
#pragma once

#include "tandem/wd/wd.hpp"

#if defined(__cpp_impl_coroutine)  // clang 14 has none in C++20

#include <coroutine>
#include <exception>
#include <new>

namespace tandem::wd {

/// What `co_await op` does. The Op stays the caller's; it must outlive the suspension.
class OpAwaiter {
 public:
  explicit OpAwaiter(Op& op) : op_(op) {}
  bool await_ready() { return op_.ready(); }
  bool await_suspend(std::coroutine_handle<> waiter) {
    return op_.call_when_done(
        [](void* address) { std::coroutine_handle<>::from_address(address).resume(); },
        waiter.address());
  }
  Result<Done, Error> await_resume() { return op_.get(); }

 private:
  Op& op_;
};
inline OpAwaiter operator co_await(Op& op) { return OpAwaiter(op); }
inline OpAwaiter operator co_await(Op&& op) { return OpAwaiter(op); }

/// A coroutine with a result. It starts at once and runs to its first unfinished operation.
///
/// Destroying one that is not done waits for the operation it awaits and then ends it there.
/// Thread safety: belongs to the thread of its queues.
template <class T>
class [[nodiscard]] Task {
 public:
  struct promise_type {
    std::optional<Result<T, Error>> result;

    Task get_return_object() { return Task(Handle::from_promise(*this)); }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    void return_value(Result<T, Error> value) { result.emplace(std::move(value)); }
    void unhandled_exception() noexcept {
      try {
        throw;
      } catch (const std::bad_alloc&) {
        result.emplace(Unexpected{Error::from_errno(-ENOMEM)});
      } catch (...) {
        result.emplace(Unexpected{
            Error{Code::kSystem, 0, 0, "the coroutine threw an exception: catch it in its body"}});
      }
    }
  };

  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Task() {
    if (handle_) handle_.destroy();
  }

  bool done() const { return handle_.done(); }
  /// Code::kBusy until it is done.
  Result<T, Error> result() const {
    if (done()) return *handle_.promise().result;
    return Unexpected{
        Error{Code::kBusy, 0, 0, "the coroutine is not done: drive() it or poll() its queue"}};
  }

 private:
  using Handle = std::coroutine_handle<promise_type>;
  explicit Task(Handle handle) : handle_(handle) {}
  Handle handle_;
};

/// Polls `queue`, and sleeps in between, until `task` is done or `deadline` has come.
///
/// Errors: the task's own; kDeadline: it goes on, drive it again; kInvalid: nothing is in flight on
///         `queue`, so nothing here will ever resume it.
template <class T>
Result<T, Error> drive(Queue& queue, const Task<T>& task,
                       std::optional<std::chrono::steady_clock::time_point> deadline = {}) {
  constexpr int kAtOnce = 256;
  while (!task.done()) {
    if (queue.poll(kAtOnce) != 0 || task.done()) continue;
    if (queue.in_flight() == 0) {
      return Unexpected{Error{Code::kInvalid, 0, 0, "the coroutine awaits nothing on this queue"}};
    }
    std::int64_t longest = 1000;
    if (deadline) {
      const auto left = *deadline - std::chrono::steady_clock::now();
      if (left <= left.zero()) {
        return Unexpected{Error{Code::kDeadline, 0, 0, "not done in time; drive() it again"}};
      }
      longest = std::min(longest, std::chrono::ceil<std::chrono::milliseconds>(left).count());
    }
    const int armed = queue.arm();
    if (armed > 0) continue;
    detail::await_signal(armed, armed < 0 ? -1 : queue.fd(), longest);
  }
  return task.result();
}

}  // namespace tandem::wd

#endif
