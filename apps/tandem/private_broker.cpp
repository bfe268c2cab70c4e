// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/private_broker.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "apps/broker/broker.hpp"

namespace tandem::cli {
namespace {

using Clock = std::chrono::steady_clock;

broker::Broker* serving = nullptr;  // for the handler below

void send_line(int fd, const nlohmann::json& json) {
  const std::string line = json.dump() + "\n";
  // A reader that has gone is the end of us soon enough: PDEATHSIG.
  [[maybe_unused]] const ssize_t written = ::write(fd, line.data(), line.size());
}

const char* kind_name(broker::Event::Kind kind) {
  switch (kind) {
    case broker::Event::Kind::kConnected:
      return "connected";
    case broker::Event::Kind::kRefused:
      return "refused";
    default:
      return "ended";
  }
}

}  // namespace

Result<pid_t, Failure> spawn_self(const std::vector<std::string>& arguments,
                                  const std::vector<int>& inherit) {
  std::vector<char*> argv;
  std::string name = "tandem";
  argv.push_back(name.data());
  std::vector<std::string> copies = arguments;
  for (auto& argument : copies) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return Unexpected{from_errno("starting a process", errno)};
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(kFailure);
    for (const int fd : inherit) ::fcntl(fd, F_SETFD, 0);
    ::execv("/proc/self/exe", argv.data());
    ::_exit(127);
  }
  return child;
}

Result<std::unique_ptr<PrivateBroker>, Failure> PrivateBroker::start(int engine_threads) {
  std::unique_ptr<PrivateBroker> broker(new PrivateBroker);
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  std::string directory =
      std::string(runtime != nullptr && ::access(runtime, W_OK) == 0 ? runtime : "/tmp") +
      "/tandem-demo-XXXXXX";
  if (::mkdtemp(directory.data()) == nullptr) {
    return Unexpected{from_errno("a directory for the broker", errno)};
  }
  broker->directory_ = directory;
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return Unexpected{from_errno("a pipe", errno)};
  broker->report_ = UniqueFd(ends[0]);
  const UniqueFd write_end(ends[1]);
  ::fcntl(broker->report_.get(), F_SETFL, O_NONBLOCK);
  const auto pid =
      spawn_self({"internal-broker", "--socket", broker->socket(), "--engines",
                  std::to_string(engine_threads), "--report-fd", std::to_string(write_end.get())},
                 {write_end.get()});
  if (!pid) return Unexpected{pid.error()};
  broker->pid_ = *pid;
  const auto* ready = broker->wait_for("ready", *pid, std::chrono::seconds(20));
  if (ready == nullptr) return Unexpected{Failure{kFailure, "the private broker did not start"}};
  return broker;
}

PrivateBroker::~PrivateBroker() {
  if (pid_ > 0) {
    ::kill(pid_, SIGTERM);
    const auto patience = Clock::now() + std::chrono::seconds(12);
    while (::waitpid(pid_, nullptr, WNOHANG) == 0) {
      if (Clock::now() > patience) ::kill(pid_, SIGKILL);
      ::poll(nullptr, 0, 5);
    }
  }
  std::error_code ignored;
  if (!directory_.empty()) std::filesystem::remove_all(directory_, ignored);
}

bool PrivateBroker::running() {
  if (pid_ > 0 && ::waitpid(pid_, nullptr, WNOHANG) != 0) pid_ = -1;
  return pid_ > 0;
}

void PrivateBroker::select() const { ::setenv("TANDEM", ("unix:" + socket()).c_str(), 1); }

const std::vector<PrivateBroker::Event>& PrivateBroker::events() {
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t got = ::read(report_.get(), buffer.data(), buffer.size());
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

const PrivateBroker::Event* PrivateBroker::wait_for(const std::string& kind, pid_t pid,
                                                    std::chrono::milliseconds patience) {
  const auto until = Clock::now() + patience;
  for (;;) {
    const auto& all = events();
    const auto found = std::find_if(all.begin(), all.end(), [&](const Event& event) {
      return event.kind == kind && event.pid == pid;
    });
    if (found != all.end()) return &*found;
    if (Clock::now() >= until) return nullptr;
    pollfd readable{report_.get(), POLLIN, 0};
    ::poll(&readable, 1, 20);
    if ((readable.revents & POLLIN) == 0 && (readable.revents & POLLHUP) != 0) return nullptr;
  }
}

int run_private_broker(const std::string& socket, int engine_threads, int report_fd) {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGINT, SIG_IGN);  // the terminal's; who started us ends us
  auto place = broker::Place::listen(socket, 0600);
  if (!place) return report({kFailure, place.error()});
  broker::Options options;
  options.framework.engine_threads = engine_threads;
  options.tenant = broker::Options::Tenant::kProcess;
  options.on_event = [report_fd](const broker::Event& event) {
    send_line(report_fd, {{"kind", kind_name(event.kind)},
                          {"client", event.client},
                          {"pid", event.pid},
                          {"pasid", event.pasid},
                          {"why", event.why},
                          {"queues", event.queues},
                          {"reserved_bytes", event.reserved_bytes},
                          {"took_us", event.took.count()},
                          {"quarantined", event.quarantined}});
  };
  auto broker = broker::Broker::create(std::move(*place), std::move(options));
  if (!broker) return report({kFailure, "private broker: " + broker.error().message()});
  serving = broker->get();
  struct sigaction stop {};
  stop.sa_handler = [](int) { serving->stop(); };
  ::sigaction(SIGTERM, &stop, nullptr);
  send_line(report_fd, {{"kind", "ready"}, {"pid", ::getpid()}});
  const auto served = (*broker)->run();
  return served ? kOk : report({kFailure, "private broker: " + served.error().message()});
}

}  // namespace tandem::cli
