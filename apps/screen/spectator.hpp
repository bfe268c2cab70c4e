// SPDX-License-Identifier: Apache-2.0
/// A board that is watched is a coroutine, which its moves resume:
///
///     Spectator spectate(View& view) {
///       for (;;) view.put(co_await next_move());
///     }
///     auto spectator = spectate(view);     // runs to its first co_await
///     spectator.feed(move);                // … to the next one
#pragma once

#include <coroutine>
#include <exception>
#include <utility>

namespace tandem::screen {

/// What `co_await next_move()` waits for. Cells: row * width + column.
struct SeenMove {
  int cell = 0;
};

struct NextMove {};
constexpr NextMove next_move() { return {}; }

/// Owns the coroutine's frame. Thread safety: one thread at a time.
class [[nodiscard]] Spectator {
 public:
  struct promise_type {
    SeenMove move;

    Spectator get_return_object() { return Spectator(Handle::from_promise(*this)); }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { std::terminate(); }

    auto await_transform(NextMove) noexcept {
      struct Awaiter {
        promise_type& promise;
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<>) const noexcept {}
        SeenMove await_resume() const noexcept { return promise.move; }
      };
      return Awaiter{*this};
    }
  };

  Spectator(Spectator&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Spectator& operator=(Spectator&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Spectator() {
    if (handle_) handle_.destroy();
  }

  /// Resumes the coroutine with a move. One that has ended takes no more.
  void feed(SeenMove move) {
    if (handle_.done()) return;
    handle_.promise().move = move;
    handle_.resume();
  }

 private:
  using Handle = std::coroutine_handle<promise_type>;
  explicit Spectator(Handle handle) : handle_(handle) {}
  Handle handle_;
};

}  // namespace tandem::screen
