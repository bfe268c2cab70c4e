// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/stall.hpp"

#include <execinfo.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <memory>

#include "tandem/base/futex.hpp"
#include "tandem/rcu/detail/caller_state.hpp"
#include "tandem/rcu/detail/core.hpp"
#include "tandem/rcu/detail/process.hpp"
#include "tandem/trace/trace.hpp"

namespace tandem::rcu {
namespace {

constexpr std::size_t kReadersMax = 16;
constexpr int kFramesMax = 32;
constexpr std::chrono::milliseconds kAnswerTime{100};

struct Options {
  std::atomic<std::int64_t> limit{std::chrono::nanoseconds(std::chrono::seconds(21)).count()};
  std::atomic<std::int64_t> expedited_limit{
      std::chrono::nanoseconds(std::chrono::milliseconds(20)).count()};
  std::atomic<void (*)(const stall_report&)> handler{nullptr};
  std::atomic<int> signal{0};
};
constinit Options options;
constinit Mutex options_mutex;
constinit std::array<struct sigaction, NSIG> before{};  // under options_mutex; set once

/// One question at a time: a thread is asked for its stack by a signal and answers in its handler.
struct Question {
  std::atomic<pid_t> thread{0};  // who is asked; 0: nobody
  std::array<void*, kFramesMax> frames{};
  int count = 0;
  std::atomic<std::uint32_t> answered{0};  // futex
};
constinit Question question;
constinit Mutex question_mutex;

/// In a forked child: who asks, or changes the options, does so in the parent.
void forget_other_threads() noexcept {
  std::construct_at(&options_mutex);
  std::construct_at(&question_mutex);
  question.thread.store(0, std::memory_order_relaxed);
}

void pass_on(int signal, siginfo_t* info, void* context) {
  const struct sigaction& earlier = before[static_cast<std::size_t>(signal)];
  if ((earlier.sa_flags & SA_SIGINFO) != 0) {
    if (earlier.sa_sigaction != nullptr) earlier.sa_sigaction(signal, info, context);
  } else if (earlier.sa_handler != SIG_DFL && earlier.sa_handler != SIG_IGN) {
    earlier.sa_handler(signal);
  }
}

void on_signal(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  pid_t self = ::gettid();
  if (info->si_code != SI_QUEUE || info->si_pid != ::getpid() ||
      info->si_value.sival_ptr != &question) {
    pass_on(signal, info, context);
  } else if (question.thread.compare_exchange_strong(self, -1, std::memory_order_acquire)) {
    question.count = ::backtrace(question.frames.data(), kFramesMax);
    question.answered.store(1, std::memory_order_release);
    futex_wake(question.answered);
  }  // else the answer comes too late
  errno = saved_errno;
}

/// The frames of `thread`, copied to `to`; 0 when it did not answer.
int ask_for_stack(pid_t thread, std::array<void*, kFramesMax>& to) {
  const int signal = options.signal.load(std::memory_order_acquire);
  if (signal == 0) return 0;
  const MutexLock lock(question_mutex);
  question.answered.store(0, std::memory_order_relaxed);
  question.thread.store(thread, std::memory_order_release);
  int frames = 0;
  siginfo_t info{};
  info.si_signo = signal;
  info.si_code = SI_QUEUE;
  info.si_pid = ::getpid();
  info.si_uid = ::getuid();
  info.si_value.sival_ptr = &question;  // by which the handler knows it
  if (::syscall(SYS_rt_tgsigqueueinfo, ::getpid(), thread, signal, &info) == 0) {
    const auto deadline = detail::Clock::now() + kAnswerTime;
    while (question.answered.load(std::memory_order_acquire) == 0) {
      const auto left = deadline - detail::Clock::now();
      if (left.count() <= 0) break;
      futex_wait(question.answered, 0, left);
    }
  }
  // Nobody answers a question that was withdrawn; one that is being answered is waited for.
  pid_t asked = thread;
  if (!question.thread.compare_exchange_strong(asked, 0, std::memory_order_acq_rel)) {
    while (question.answered.load(std::memory_order_acquire) == 0) {
      futex_wait(question.answered, 0, kAnswerTime);
    }
    frames = question.count;
    to = question.frames;
    question.thread.store(0, std::memory_order_relaxed);
  }
  return frames;
}

}  // namespace

Result<void> set_stall_options(const stall_options& wanted) {
  if (wanted.limit.count() <= 0 || wanted.expedited_limit.count() <= 0 || wanted.signal < 0 ||
      wanted.signal > SIGRTMAX || wanted.signal == SIGKILL || wanted.signal == SIGSTOP) {
    return errno_error(EINVAL);
  }
  detail::at_fork_child(forget_other_threads);
  const MutexLock lock(options_mutex);
  if (wanted.signal != 0 && wanted.signal != options.signal.load(std::memory_order_relaxed)) {
    void* frame = nullptr;
    (void)::backtrace(&frame, 1);  // loads what it needs, which a signal handler must not
    struct sigaction action {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    ::sigemptyset(&action.sa_mask);
    struct sigaction earlier {};
    if (::sigaction(wanted.signal, nullptr, &earlier) != 0) return errno_error(errno);
    const bool ours = (earlier.sa_flags & SA_SIGINFO) != 0 && earlier.sa_sigaction == on_signal;
    if (!ours) {
      before[static_cast<std::size_t>(wanted.signal)] = earlier;
      if (::sigaction(wanted.signal, &action, nullptr) != 0) return errno_error(errno);
    }
  }
  options.limit.store(wanted.limit.count(), std::memory_order_relaxed);
  options.expedited_limit.store(wanted.expedited_limit.count(), std::memory_order_relaxed);
  options.handler.store(wanted.handler, std::memory_order_relaxed);
  options.signal.store(wanted.signal, std::memory_order_release);
  return {};
}

void print_stall_report(const stall_report& report) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(report.age).count();
  std::fprintf(stderr,
               "tandem-rcu: %sgrace period stalled for %lld ms (report %u); %llu words, %llu bytes "
               "wait\n",
               report.expedited ? "expedited " : "", static_cast<long long>(ms), report.report,
               static_cast<unsigned long long>(report.waiting_words),
               static_cast<unsigned long long>(report.waiting_bytes));
  for (const stalled_reader& reader : report.readers) {
    std::fprintf(stderr, "tandem-rcu:   by thread %d, %u sections deep\n", reader.thread,
                 reader.nesting);
    if (!reader.stack.empty()) {
      ::backtrace_symbols_fd(reader.stack.data(), static_cast<int>(reader.stack.size()),
                             STDERR_FILENO);
    }
  }
}

namespace detail {

std::chrono::nanoseconds stall_limit(bool expedited) noexcept {
  return std::chrono::nanoseconds(
      (expedited ? options.expedited_limit : options.limit).load(std::memory_order_relaxed));
}

Clock::duration Core::report_stall(std::uint64_t bound, Clock::duration age, unsigned reports,
                                   bool expedited) noexcept {
  const NotCancelled guard;
  std::array<stalled_reader, kReadersMax> stalled;
  std::size_t count = 0;
  {
    const MutexLock lock(registry);
    for (const Reader* reader = readers; reader && count < stalled.size(); reader = reader->next) {
      const std::uint64_t state = reader->state.load(std::memory_order_acquire);
      if (state == 0 || state >= bound) continue;
      stalled[count].thread = reader->thread;
      stalled[count].nesting = static_cast<std::uint32_t>(state & kNesting);
      ++count;
    }
  }
  const Clock::duration next = age * 2;
  if (count == 0) return next;  // it has just moved
  std::array<std::array<void*, kFramesMax>, kReadersMax> stacks;
  for (std::size_t i = 0; i < count; ++i) {
    const int depth = ask_for_stack(stalled[i].thread, stacks[i]);
    stalled[i].stack = std::span<void* const>(stacks[i]).first(static_cast<std::size_t>(depth));
  }
  Counters::add(counters.stalls);
  TANDEM_TRACE(rcu_stall, this, stalled[0].thread);
  stall_report report;
  report.age = age;
  report.report = reports;
  report.expedited = expedited;
  report.waiting_words = backlog_words.load(std::memory_order_relaxed);
  report.waiting_bytes = backlog_bytes.load(std::memory_order_relaxed);
  report.readers = std::span(stalled).first(count);
  const auto handler = options.handler.load(std::memory_order_relaxed);
  (handler != nullptr ? handler : print_stall_report)(report);
  return next;
}

}  // namespace detail

}  // namespace tandem::rcu
