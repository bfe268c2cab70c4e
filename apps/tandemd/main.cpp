// SPDX-License-Identifier: Apache-2.0
/// tandemd: the broker as a program.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "apps/broker/broker.hpp"
#include "apps/options/options.hpp"
#include "apps/standard_descriptors.hpp"
#include "tandem/base/cpu.hpp"

namespace {

using tandem::broker::Broker;
using tandem::broker::Event;
using tandem::cli::whole_number;

enum ExitCode { kOk = 0, kFailure = 1, kUsage = 2, kDenied = 4 };

Broker* running = nullptr;  // for the handler below; set before it is installed

void on_stop_signal(int) { running->stop(); }

/// Says it on standard error; a standard error that takes nothing is no reason to end.
template <class... Arguments>
void say(fmt::format_string<Arguments...> text, Arguments&&... arguments) {
  const std::string line = fmt::format(text, std::forward<Arguments>(arguments)...);
  std::fputs(("tandemd: " + line + "\n").c_str(), stderr);
}

/// What the clean-up had to leave for later.
std::string not_freed(const Event& event) {
  if (event.quarantined) {
    return fmt::format(
        "; an access has not returned: PASID out of use and {} KiB kept until it does",
        event.reserved_kept >> 10);
  }
  if (event.reserved_kept == 0) return {};
  return fmt::format("; {} KiB and the PASID kept until an operation ends",
                     event.reserved_kept >> 10);
}

void print_event(const Event& event) {
  switch (event.kind) {
    case Event::Kind::kConnected:
      say("client {} connected: pid {}, uid {}, PASID {}", event.client, event.pid, event.uid,
          event.pasid);
      break;
    case Event::Kind::kRefused:
      say("pid {}, uid {} refused: {}", event.pid, event.uid, event.why);
      break;
    case Event::Kind::kEnded:
      say("client {} gone: pid {}, {}; PASID {} revoked, {} queues put, {} KiB of "
          "reserved memory freed in {} us{}",
          event.client, event.pid, event.why, event.pasid, event.queues, event.reserved_bytes >> 10,
          event.took.count(), not_freed(event));
      break;
  }
}

const char* kind_name(Event::Kind kind) {
  switch (kind) {
    case Event::Kind::kConnected:
      return "connected";
    case Event::Kind::kRefused:
      return "refused";
    default:
      return "ended";
  }
}

/// One line of JSON. A reader that has gone is no reason to end.
void write_event(int fd, const Event& event) {
  const nlohmann::json json{{"kind", kind_name(event.kind)},
                            {"client", event.client},
                            {"pid", event.pid},
                            {"uid", event.uid},
                            {"pasid", event.pasid},
                            {"why", event.why},
                            {"queues", event.queues},
                            {"reserved_bytes", event.reserved_bytes},
                            {"reserved_kept", event.reserved_kept},
                            {"took_us", event.took.count()},
                            {"quarantined", event.quarantined}};
  const std::string line =
      json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  [[maybe_unused]] const ssize_t written = ::write(fd, line.data(), line.size());
}

int report(const std::string& message, int code) {
  say("{}", message);
  return code;
}

constexpr const char* kExamples = R"(
Examples:
  tandemd                                    serve this user (root: everybody)
  tandemd --socket /tmp/mine/broker.sock -v  serve there, tell who comes and goes
  TANDEM=unix:/tmp/mine/broker.sock tandem devices

With --socket root's serves root alone, too, but with --everybody. Clients use
a broker of root, of their own user, or of the one in TANDEM_TRUST_UID, whose
socket is in a directory of one of these that nobody else can write.
Exit status: 0 stopped by SIGTERM or SIGINT, 1 failure, 2 usage, 4 denied.
)";

int serve(int argc, char** argv) {
  tandem::cli::Program app("tandemd", "Shares the accelerators of this machine among processes.",
                           "tandemd " TANDEM_VERSION);
  app.footer(kExamples);
  std::string socket = tandem::broker::default_socket_path();
  int engines = tandem::usable_cpus() > 1 ? tandem::usable_cpus() / 2 : 1;
  int ready_fd = -1, events_fd = -1;
  bool quiet = false, verbose = false, everybody = false;
  app.option("--socket", socket, "where to listen")
      .text(fmt::format("PATH [{}]", socket.empty() ? "none" : socket));
  app.flag("--everybody", everybody, "serve all users, not this one alone");
  app.option("--engines", engines, "threads that run operations")
      .text(fmt::format("N [{}]", engines))
      .check(whole_number(1, 256));
  unsigned connections = tandem::broker::Options().connections_per_uid;
  app.option("--connections-per-user", connections, "at most; one more is refused")
      .text(fmt::format("N [{}]", connections))
      .check(whole_number(1, 1u << 20));
  app.option("--ready-fd", ready_fd, "write one line there when clients can connect")
      .text("FD")
      .check(whole_number(0, std::numeric_limits<int>::max()));
  app.option("--events-fd", events_fd, "write who comes and goes there, a JSON object a line")
      .text("FD")
      .check(whole_number(0, std::numeric_limits<int>::max()));
  app.flag("-q,--quiet", quiet, "errors only");
  app.flag("-v,--verbose", verbose, "tell who connects and who goes");
  const auto parsed = app.parse(argc, argv);
  if (!parsed) return parsed.done ? kOk : report(parsed.wrong, kUsage);
  if (socket.empty()) {
    return report(
        "where to listen: no --socket, and XDG_RUNTIME_DIR is not set; try: tandemd "
        "--socket PATH",
        kUsage);
  }
  for (const auto& [name, fd] : {std::pair("--ready-fd", ready_fd), {"--events-fd", events_fd}}) {
    if (fd >= 0 && ::fcntl(fd, F_GETFD) < 0) {
      return report(fmt::format("{} {}: no such descriptor is open; try: tandemd {} 3 3>FILE", name,
                                fd, name),
                    kUsage);
    }
  }

  std::signal(SIGPIPE, SIG_IGN);
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  // The system's broker is for everybody; credentials and PASIDs keep its clients apart.
  const bool system =
      everybody || (::geteuid() == 0 && socket == tandem::broker::default_socket_path());
  auto place = tandem::broker::Place::listen(socket, system ? 0666 : 0600);
  if (!place) return report(place.error(), errno == EACCES || errno == EPERM ? kDenied : kFailure);
  tandem::broker::Options options;
  options.framework.engine_threads = engines;
  options.connections_per_uid = connections;
  options.tenant =
      system ? tandem::broker::Options::Tenant::kUser : tandem::broker::Options::Tenant::kProcess;
  verbose = verbose && !quiet;
  if (verbose || events_fd >= 0) {
    options.on_event = [verbose, events_fd](const Event& event) {
      if (verbose) print_event(event);
      if (events_fd >= 0) write_event(events_fd, event);
    };
  }
  auto broker = Broker::create(std::move(*place), std::move(options));
  if (!broker) return report("start: " + broker.error().message(), kFailure);

  running = broker->get();
  struct sigaction stop {};
  stop.sa_handler = on_stop_signal;
  ::sigaction(SIGTERM, &stop, nullptr);
  ::sigaction(SIGINT, &stop, nullptr);
  if (!quiet) {
    say("listening on {} ({} engine thread{})", socket, engines, engines == 1 ? "" : "s");
  }
  if (ready_fd >= 0) {
    if (::write(ready_fd, "ready", 6) != 6) return report("--ready-fd: cannot write", kUsage);
    ::close(ready_fd);
  }
  const auto served = (*broker)->run();
  if (!served) return report("serving: " + served.error().message(), kFailure);
  std::signal(SIGTERM, SIG_IGN);
  std::signal(SIGINT, SIG_IGN);
  broker->reset();
  if (!quiet) say("stopped");
  return kOk;
}

}  // namespace

int main(int argc, char** argv) {
  if (!tandem::reserve_standard_descriptors()) return kFailure;
  try {
    return serve(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tandemd: %s\n", error.what());
    return kFailure;
  }
}
