// SPDX-License-Identifier: Apache-2.0
#include "apps/broker_process/broker_process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace tandem::broker {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kStartWithin{20}, kStopWithin{12};

struct Pipe {
  UniqueFd read_end, write_end;

  /// Both ends close on exec; the read end does not block.
  static Result<Pipe, std::string> make() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
      return Unexpected{std::string("a pipe: ") + std::strerror(errno)};
    }
    ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
    return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
  }
};

/// Where a directory for sockets belongs that is not there any more after the session.
std::string runtime_directory() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && ::access(runtime, W_OK | X_OK) == 0) return runtime;
  std::error_code none;
  const auto temporary = std::filesystem::temp_directory_path(none);
  return none ? "/tmp" : temporary.string();
}

/// Whether a byte came before `fd` hung up and before the time was over.
bool hears_a_byte(int fd) {
  const auto until = Clock::now() + kStartWithin;
  for (;;) {
    char byte = 0;
    const ssize_t got = ::read(fd, &byte, 1);
    if (got >= 0) return got == 1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now());
    if ((errno != EAGAIN && errno != EINTR) || left.count() <= 0) return false;
    pollfd readable{fd, POLLIN, 0};
    ::poll(&readable, 1, static_cast<int>(left.count()));
  }
}

/// The child, until it is tandemd. `inherit` stays open in it.
[[noreturn]] void become(const std::string& program, std::vector<std::string>& words,
                         const std::vector<int>& inherit, int cpu, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);
  ::setpgid(0, 0);
  if (cpu >= 0) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ::sched_setaffinity(0, sizeof one, &one);
  }
  for (const int fd : inherit) ::fcntl(fd, F_SETFD, 0);
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  ::execv(program.c_str(), argv.data());
  ::_exit(127);
}

}  // namespace

std::string program_path(const std::string& name) {
  std::error_code none;
  const auto here = std::filesystem::read_symlink("/proc/self/exe", none).parent_path();
  const auto built = std::filesystem::path("apps") / name / name;
  for (const auto& path : {here / name, here / "../.." / built, here / ".." / built}) {
    if (std::filesystem::exists(path, none)) return path.lexically_normal().string();
  }
  return (here / name).string();
}

Result<std::unique_ptr<BrokerProcess>, std::string> BrokerProcess::start(Options options) {
  const std::string program = program_path("tandemd");
  if (::access(program.c_str(), X_OK) != 0) {
    return Unexpected{program + ": " + std::strerror(errno)};
  }
  std::unique_ptr<BrokerProcess> broker(new BrokerProcess);
  std::string directory = runtime_directory() + "/tandem-private-XXXXXX";
  if (::mkdtemp(directory.data()) == nullptr) {
    return Unexpected{directory + ": " + std::strerror(errno)};
  }
  broker->directory_ = directory;
  auto ready = Pipe::make();
  if (!ready) return Unexpected{ready.error()};
  auto events = Pipe::make();
  if (!events) return Unexpected{events.error()};
  std::vector<int> inherit{ready->write_end.get()};
  std::vector<std::string> words{"tandemd",    "--quiet",
                                 "--socket",   broker->socket_path(),
                                 "--engines",  std::to_string(options.engines),
                                 "--ready-fd", std::to_string(ready->write_end.get())};
  if (options.events) {
    inherit.push_back(events->write_end.get());
    words.insert(words.end(), {"--events-fd", std::to_string(events->write_end.get())});
  }
  const pid_t parent = ::getpid();
  broker->pid_ = ::fork();
  if (broker->pid_ == 0) become(program, words, inherit, options.cpu, parent);
  if (broker->pid_ < 0) return Unexpected{std::string("fork: ") + std::strerror(errno)};
  ready->write_end.reset();
  broker->events_fd_ = std::move(events->read_end);
  if (!hears_a_byte(ready->read_end.get())) return Unexpected{program + " did not come up"};
  ::setenv("TANDEM", ("unix:" + broker->socket_path()).c_str(), 1);
  return broker;
}

BrokerProcess::~BrokerProcess() {
  if (pid_ > 0 && running()) {
    ::kill(pid_, SIGTERM);
    const auto patience = Clock::now() + kStopWithin;
    while (running()) {
      if (Clock::now() > patience) ::kill(pid_, SIGKILL);
      ::poll(nullptr, 0, 5);
    }
  }
  if (pid_ > 0) ::unsetenv("TANDEM");
  std::error_code ignored;
  if (!directory_.empty()) std::filesystem::remove_all(directory_, ignored);
}

bool BrokerProcess::running() {
  // Also when somebody else has reaped it: its number may be another process's by now.
  if (!reaped_) reaped_ = ::waitpid(pid_, nullptr, WNOHANG) != 0;
  return !reaped_;
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

const std::vector<BrokerProcess::Event>& BrokerProcess::events() {
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t got = ::read(events_fd_.get(), buffer.data(), buffer.size());
    if (got <= 0) break;
    partial_.append(buffer.data(), static_cast<std::size_t>(got));
  }
  for (auto end = partial_.find('\n'); end != std::string::npos; end = partial_.find('\n')) {
    const auto json = nlohmann::json::parse(partial_.substr(0, end), nullptr, false);
    partial_.erase(0, end + 1);
    if (json.is_discarded()) continue;
    Event event;
    event.kind = json.value("kind", "");
    event.client = json.value("client", 0u);
    event.pasid = json.value("pasid", 0u);
    event.pid = json.value("pid", 0);
    event.why = json.value("why", "");
    event.queues = json.value("queues", std::uint64_t{0});
    event.reserved_bytes = json.value("reserved_bytes", std::uint64_t{0});
    event.took_us = json.value("took_us", std::uint64_t{0});
    event.quarantined = json.value("quarantined", false);
    event.seen = Clock::now();
    events_.push_back(std::move(event));
  }
  return events_;
}

const BrokerProcess::Event* BrokerProcess::wait_for(const std::string& kind, pid_t pid,
                                                    std::chrono::milliseconds patience) {
  const auto until = Clock::now() + patience;
  for (;;) {
    const auto& all = events();
    const auto found = std::find_if(all.begin(), all.end(), [&](const Event& event) {
      return event.kind == kind && event.pid == pid;
    });
    if (found != all.end()) return &*found;
    if (Clock::now() >= until) return nullptr;
    pollfd readable{events_fd_.get(), POLLIN, 0};
    ::poll(&readable, 1, 20);
    if ((readable.revents & POLLIN) == 0 && (readable.revents & POLLHUP) != 0) return nullptr;
  }
}

}  // namespace tandem::broker
