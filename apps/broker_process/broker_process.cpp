// SPDX-License-Identifier: Apache-2.0
#include "apps/broker_process/broker_process.hpp"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "tandem/base/unique_fd.hpp"

namespace tandem::broker {

std::string program_path(const std::string& name) {
  const auto self = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  const std::filesystem::path apps(TANDEM_APPS_DIR);
  for (const auto& path : {self / name, apps / name / name}) {
    if (std::filesystem::exists(path)) return path.string();
  }
  throw std::runtime_error("cannot find the program " + name);
}

BrokerProcess::BrokerProcess(int engines, int cpu) {
  std::string pattern = (std::filesystem::temp_directory_path() / "tandem-bench-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("cannot make " + pattern);
  directory_ = pattern;
  socket_ = directory_ + "/broker.sock";
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), 0) != 0) throw std::runtime_error("cannot make a pipe");
  UniqueFd ready(ends[0]);
  UniqueFd write_end(ends[1]);
  ::fcntl(ready.get(), F_SETFD, FD_CLOEXEC);
  const std::string program = program_path("tandemd");
  const std::string count = std::to_string(engines);
  const std::string ready_fd = std::to_string(write_end.get());
  pid_ = ::fork();
  if (pid_ == 0) {
    if (cpu >= 0) {
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      ::sched_setaffinity(0, sizeof one, &one);
    }
    ::execl(program.c_str(), "tandemd", "--socket", socket_.c_str(), "--engines", count.c_str(),
            "--ready-fd", ready_fd.c_str(), "--quiet", nullptr);
    ::_exit(127);
  }
  write_end.reset();
  char byte = 0;
  if (::read(ready.get(), &byte, 1) != 1) throw std::runtime_error("tandemd did not come up");
  ::setenv("TANDEM", ("unix:" + socket_).c_str(), 1);
}

BrokerProcess::~BrokerProcess() {
  ::kill(pid_, SIGTERM);
  ::waitpid(pid_, nullptr, 0);
  ::unsetenv("TANDEM");
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

double BrokerProcess::cpu_seconds() const {
  std::ifstream stat("/proc/" + std::to_string(pid_) + "/stat");
  std::string text;
  std::getline(stat, text);
  std::istringstream fields(text.substr(text.rfind(')') + 2));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  double user = 0;
  double system = 0;
  fields >> user >> system;
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

}  // namespace tandem::broker
