// SPDX-License-Identifier: Apache-2.0
// dlclose() of a module that the library is part of, before the threads that used it end: their
// exit, the library's own threads and fork() still need its code.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

namespace {

void use_and_close(const char* function) {
  void* const plugin = ::dlopen(PLUGIN, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(plugin, nullptr) << ::dlerror();
  auto* const use = reinterpret_cast<int (*)()>(::dlsym(plugin, function));
  ASSERT_NE(use, nullptr);
  std::atomic<bool> used{false};
  std::atomic<bool> closed{false};
  std::thread user([&] {
    EXPECT_GE(use(), 2);
    used = true;
    used.notify_one();
    closed.wait(false);
  });
  used.wait(false);
  EXPECT_EQ(::dlclose(plugin), 0);
  closed = true;
  closed.notify_one();
  user.join();
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(RcuPlugin, MayBeClosedWhileThreadsThatUsedItGoOn) {
  for (int round = 0; round < 3; ++round) use_and_close("plugin_use");
}

TEST(RcuPlugin, MayUseItInItsThreadLocals) {
  for (int round = 0; round < 3; ++round) use_and_close("plugin_use_in_thread_local");
}

}  // namespace
