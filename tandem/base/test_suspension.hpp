// SPDX-License-Identifier: Apache-2.0
/// Threads that are stopped in the midst of something, while others go on. For tests; not
/// installed.
#pragma once

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <functional>
#include <thread>

#include "tandem/base/check.hpp"
#include "tandem/base/futex.hpp"

namespace tandem {

#if defined(__x86_64__)
/// Whether the thread gets SIGTRAP after each of its instructions.
inline void set_trap_flag(bool on) noexcept {
  constexpr unsigned long kTrap = 1ul << 8;
  const unsigned long flags = __builtin_ia32_readeflags_u64();
  __builtin_ia32_writeeflags_u64(on ? flags | kTrap : flags & ~kTrap);
}
#else
inline void set_trap_flag(bool) noexcept {}
#endif

/// Stops a thread after each of its instructions until another thread has done something.
/// Thread safety: one at a time.
class Suspension {
 public:
  /// Runs `operation`. Whenever it has gone on by an instruction it stands still, whatever it has
  /// begun, until `others`, on another thread, has returned once. That nothing which `operation`
  /// holds is waited for there is what can be seen by it: else this does not return.
  ///
  /// `operation` blocks no SIGTRAP and has no restartable sequence, which would start for ever.
  /// `others` allocates nothing: `operation` may stand in the allocator.
  /// Returns: how often it stood still; 0 where signals do not come so (no x86, ThreadSanitizer).
  static long at_each_instruction(const std::function<void()>& operation,
                                  const std::function<void()>& others) {
    Suspension suspension;
    current_ = &suspension;
    struct sigaction action {};
    struct sigaction before {};
    action.sa_handler = [](int) { current_->stand_still(); };
    TANDEM_CHECK(::sigaction(SIGTRAP, &action, &before) == 0);
    std::thread other([&] { suspension.serve(others); });
#if !defined(__SANITIZE_THREAD__)
    set_trap_flag(true);
#endif
    operation();
#if !defined(__SANITIZE_THREAD__)
    set_trap_flag(false);
#endif
    suspension.ask(kEnd);
    other.join();
    TANDEM_CHECK(::sigaction(SIGTRAP, &before, nullptr) == 0);
    return suspension.count_;
  }

 private:
  enum Turn : std::uint32_t { kOperation, kOthers, kEnd };

  void ask(Turn turn) noexcept {
    turn_.store(turn);
    futex_wake(turn_);
  }
  /// Sleeps at once: atomic::wait() yields before, which where other processes are busy costs a
  /// time slice after each instruction.
  void wait_while(Turn turn) noexcept {
    while (turn_.load() == turn) futex_wait(turn_, turn);
  }
  void stand_still() noexcept {
    const int before = errno;
    ++count_;
    ask(kOthers);
    wait_while(kOthers);
    errno = before;
  }
  void serve(const std::function<void()>& others) {
    for (;;) {
      wait_while(kOperation);
      if (turn_.load() == kEnd) return;
      others();
      ask(kOperation);
    }
  }

  static inline Suspension* current_ = nullptr;
  std::atomic<std::uint32_t> turn_{kOperation};
  long count_ = 0;
};

}  // namespace tandem
