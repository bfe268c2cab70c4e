// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <mutex>

#if defined(__clang__)
#define TANDEM_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define TANDEM_THREAD_ANNOTATION(x)
#endif
#define TANDEM_CAPABILITY(x) TANDEM_THREAD_ANNOTATION(capability(x))
#define TANDEM_SCOPED_CAPABILITY TANDEM_THREAD_ANNOTATION(scoped_lockable)
#define TANDEM_GUARDED_BY(x) TANDEM_THREAD_ANNOTATION(guarded_by(x))
#define TANDEM_REQUIRES(...) TANDEM_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define TANDEM_EXCLUDES(...) TANDEM_THREAD_ANNOTATION(locks_excluded(__VA_ARGS__))
#define TANDEM_ACQUIRE(...) TANDEM_THREAD_ANNOTATION(acquire_capability(__VA_ARGS__))
#define TANDEM_RELEASE(...) TANDEM_THREAD_ANNOTATION(release_capability(__VA_ARGS__))
#define TANDEM_TRY_ACQUIRE(...) TANDEM_THREAD_ANNOTATION(try_acquire_capability(__VA_ARGS__))
#define TANDEM_NO_THREAD_SAFETY_ANALYSIS TANDEM_THREAD_ANNOTATION(no_thread_safety_analysis)

namespace tandem {

/// Whether the calling thread holds `mutex`. For assertions: asks the kernel who it is. Where the C
/// library does not say who holds a mutex, true.
inline bool held_by_this_thread([[maybe_unused]] std::mutex& mutex) noexcept {
#ifdef __GLIBC__
  return __atomic_load_n(&mutex.native_handle()->__data.__owner, __ATOMIC_RELAXED) == ::gettid();
#else
  return true;
#endif
}

/// std::mutex with the annotations that clang's thread-safety analysis needs.
class TANDEM_CAPABILITY("mutex") Mutex {
 public:
  void lock() TANDEM_ACQUIRE() { mutex_.lock(); }
  void unlock() TANDEM_RELEASE() { mutex_.unlock(); }
  bool try_lock() TANDEM_TRY_ACQUIRE(true) { return mutex_.try_lock(); }

  /// As held_by_this_thread().
  bool held() const noexcept { return held_by_this_thread(mutex_); }

 private:
  mutable std::mutex mutex_;  // native_handle() is not const
};

/// Holds a Mutex for a scope. Works with std::condition_variable_any.
class TANDEM_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) TANDEM_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() TANDEM_RELEASE() { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

}  // namespace tandem
