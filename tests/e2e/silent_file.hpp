// SPDX-License-Identifier: Apache-2.0
/// A file that blocks whoever reads it, for a child to map.
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <string>
#include <utility>

#include "tandem/base/mapping.hpp"
#include "tandem/base/unique_fd.hpp"
#include "tandem/uacce/detail/silent_file.hpp"

namespace tandem::e2e {

/// Served by a process of its own; those who wait for the file are let go when that is killed.
class SilentFile {
 public:
  SilentFile() : device_(::open("/dev/fuse", O_RDWR | O_CLOEXEC)) {
    std::array<int, 2> ends{};
    if (!device_ || ::mkdtemp(directory_.data()) == nullptr) return;
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return;
    const UniqueFd is_mounted(ends[0]);
    mounted_.reset(ends[1]);
    server_ = ::fork();
    if (server_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      mounted_.reset();
      char byte = 0;  // a device that is not mounted yet cannot be read
      if (::read(is_mounted.get(), &byte, 1) == 1) uacce::detail::serve_silently(device_.get());
      ::_exit(0);
    }
  }
  ~SilentFile() {
    end();
    ::rmdir(directory_.c_str());
  }
  SilentFile(const SilentFile&) = delete;
  SilentFile& operator=(const SilentFile&) = delete;

  /// In a forked child, once: mounts the file where only this child sees it, and maps it.
  /// Returns: nullptr when the system does not let us.
  const std::byte* map_in_child() {
    const std::string options =
        "fd=" + std::to_string(device_.get()) + ",rootmode=40000,user_id=0,group_id=0";
    if (server_ <= 0 || ::unshare(CLONE_NEWNS) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("silent", directory_.c_str(), "fuse", MS_NOSUID | MS_NODEV, options.c_str()) != 0) {
      return nullptr;
    }
    if (::write(mounted_.get(), "m", 1) != 1) return nullptr;
    drop_device();
    const UniqueFd file(::open((directory_ + "/file").c_str(), O_RDONLY | O_CLOEXEC));
    void* const at = ::mmap(nullptr, kPageSize, PROT_READ, MAP_PRIVATE, file.get(), 0);
    return at == MAP_FAILED ? nullptr : static_cast<const std::byte*>(at);
  }
  /// Leaves the device to the server alone: it is to end with it.
  void drop_device() {
    device_.reset();
    mounted_.reset();
  }

  /// Whoever reads the file gets an error.
  void end() {
    drop_device();
    if (server_ <= 0) return;
    ::kill(server_, SIGKILL);
    ::waitpid(std::exchange(server_, -1), nullptr, 0);
  }

 private:
  std::string directory_ = "/tmp/tandem-silent-XXXXXX";
  UniqueFd device_, mounted_;
  pid_t server_ = -1;
};

}  // namespace tandem::e2e
