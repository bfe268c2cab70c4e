// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/trace_run.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "apps/tandem/capture.hpp"
#include "apps/tandem/cli.hpp"
#include "apps/tandem/output_file.hpp"
#include "apps/tandem/sched.hpp"
#include "tandem/base/unique_fd.hpp"
#include "tandem/trace/trace.hpp"

namespace tandem::cli {
namespace {

/// A file to be written at the end, opened at the beginning so that a bad name is told then.
struct Output {
  std::string path;
  UniqueFd file;

  static Result<Output, Failure> open(const std::string& path) {
    Output output{path, UniqueFd()};
    if (path.empty()) return output;
    output.file = UniqueFd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY, 0666));
    if (!output.file) {
      Failure failure = from_errno("trace: " + path, errno);
      failure.text += "; try: a file in a directory that can be written";
      return Unexpected{failure};
    }
    return output;
  }
  std::optional<Failure> write(const std::string& text) const {
    struct stat status {};
    int error = ::fstat(file.get(), &status) == 0 ? 0 : errno;
    if (error == 0 && S_ISREG(status.st_mode) && ::ftruncate(file.get(), 0) != 0) error = errno;
    if (error == 0) error = write_all(file.get(), std::as_bytes(std::span(text)));
    if (error != 0) return from_errno("trace: " + path, error);
    return std::nullopt;
  }
};

/// Where the rings are while the command runs.
class RingDirectory {
 public:
  static Result<RingDirectory, Failure> create() {
    std::error_code none;
    const auto temporary = std::filesystem::temp_directory_path(none);
    std::string path = (none ? "/tmp" : temporary.string()) + "/tandem-trace-XXXXXX";
    if (::mkdtemp(path.data()) == nullptr) {
      Failure failure = from_errno("trace: " + path, errno);
      failure.text += "; try: TMPDIR=DIRECTORY";
      return Unexpected{failure};
    }
    return RingDirectory(path);
  }
  RingDirectory(RingDirectory&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  RingDirectory& operator=(RingDirectory&&) = delete;
  ~RingDirectory() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  explicit RingDirectory(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

volatile std::sig_atomic_t command_pid = 0;

/// What stops us stops the command; the trace is written all the same.
void pass_on(int signal) {
  const int error = errno;
  if (command_pid > 0) ::kill(static_cast<pid_t>(command_pid), signal);
  errno = error;
}

/// The terminal sends these to the command as well.
void ignore(int) {}

/// For as long as the command runs.
class Signals {
 public:
  Signals() {
    for (std::size_t i = 0; i < kWhat.size(); ++i) {
      struct sigaction action {};
      action.sa_handler = kWhat[i] == SIGINT || kWhat[i] == SIGQUIT ? ignore : pass_on;
      ::sigaction(kWhat[i], &action, &before_[i]);
    }
  }
  ~Signals() { restore(); }
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;
  void restore() const {
    for (std::size_t i = 0; i < kWhat.size(); ++i) ::sigaction(kWhat[i], &before_[i], nullptr);
  }

 private:
  static constexpr std::array kWhat{SIGINT, SIGQUIT, SIGTERM, SIGHUP};
  std::array<struct sigaction, kWhat.size()> before_{};
};

struct PipeEnds {
  UniqueFd read_end, write_end;
  static Result<PipeEnds, Failure> make() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return Unexpected{from_errno("trace: a pipe", errno)};
    return PipeEnds{UniqueFd(ends[0]), UniqueFd(ends[1])};
  }
};

/// The child, until it is the command. Waits for a byte; tells an errno if it cannot be run.
[[noreturn]] void become(const TraceSettings& settings, const std::string& rings,
                         const Signals& signals, int go, int tell) {
  signals.restore();
  char byte = 0;
  if (::read(go, &byte, 1) != 1) ::_exit(kFailure);
  ::setenv("TANDEM_TRACE_DIR", rings.c_str(), 1);
  ::setenv("TANDEM_TRACE_CATEGORIES", settings.categories.c_str(), 1);
  ::setenv("TANDEM_TRACE_ENTRIES", std::to_string(settings.entries).c_str(), 1);
  static const std::set<std::string> own{"demo",    "compress", "decompress",
                                         "devices", "kxo",      "bench"};
  std::vector<char*> argv;
  const bool ours = own.count(settings.command.front()) != 0;
  std::string name = "tandem";
  if (ours) argv.push_back(name.data());
  std::vector<std::string> words = settings.command;
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  if (ours) {
    std::error_code none;  // by its own path: the kernel names a process by it
    const auto here = std::filesystem::read_symlink("/proc/self/exe", none);
    ::execv(here.c_str(), argv.data());
  } else {
    ::execvp(argv[0], argv.data());
  }
  const int error = errno;
  (void)!::write(tell, &error, sizeof error);
  ::_exit(kFailure);
}

class Run {
 public:
  explicit Run(const TraceSettings& settings) : settings_(settings) {}
  /// Runs the command and gathers. Errors: it could not be started.
  Result<int, Failure> run(const std::string& rings);
  Capture& capture() { return capture_; }
  const std::string& why_no_sched() const { return why_no_sched_; }

 private:
  const TraceSettings& settings_;
  Capture capture_;
  std::string why_no_sched_;
};

Result<int, Failure> Run::run(const std::string& rings) {
  auto go = PipeEnds::make();
  if (!go) return Unexpected{go.error()};
  auto told = PipeEnds::make();
  if (!told) return Unexpected{told.error()};
  for (const auto& word : settings_.command) {
    capture_.command += (capture_.command.empty() ? "" : " ") + word;
  }
  const Signals signals;
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child < 0) return Unexpected{from_errno("trace: fork", errno)};
  if (child == 0) {
    become(settings_, rings, signals, go->read_end.get(), told->write_end.get());
  }
  command_pid = child;
  told->write_end.reset();
  std::optional<SchedTracer> sched;
  if (settings_.no_sched) {
    why_no_sched_ = "not asked for";
  } else if (auto started = SchedTracer::start(child); started) {
    sched.emplace(std::move(*started));
  } else {
    why_no_sched_ = started.error();
  }
  (void)!::write(go->write_end.get(), "g", 1);
  int error = 0;
  ssize_t got = 0;
  do got = ::read(told->read_end.get(), &error, sizeof error);
  while (got < 0 && errno == EINTR);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  command_pid = 0;
  if (got == sizeof error) {
    Failure failure = from_errno("trace: " + settings_.command.front(), error);
    if (error == ENOENT) failure.text += "; try: a program, or a command of tandem --help";
    if (error == EACCES) failure.text += "; try: chmod +x, or name who runs it: sh FILE";
    return Unexpected{failure};
  }
  auto recording = trace::collect(rings);
  if (!recording) return Unexpected{from_errno("trace: " + rings, recording.error().value())};
  capture_.recording = std::move(*recording);
  if (sched) capture_.sched = sched->finish(capture_.recording.dropped);
  return status;
}

/// What `status` of waitpid() means, told and as an exit code.
int exit_code(const std::string& command, int status) {
  if (WIFEXITED(status)) return WEXITSTATUS(status);
  const int signal = WTERMSIG(status);
  warn(fmt::format("trace: {}: ended by {}", command, ::strsignal(signal)));
  return 128 + signal;
}

void summarize(const Capture& capture, const std::string& why_no_sched) {
  std::set<std::uint32_t> processes;
  for (const auto& thread : capture.recording.threads) processes.insert(thread.process);
  const std::size_t threads = capture.recording.threads.size();
  narrate("tandem: trace: {} events of {} thread{} in {} process{}, {} dropped\n",
          human_count(capture.recording.records.size()), threads, threads == 1 ? "" : "s",
          processes.size(), processes.size() == 1 ? "" : "es",
          human_count(capture.recording.dropped));
  if (why_no_sched.empty()) {
    narrate("tandem: trace: {} events of the scheduler\n", human_count(capture.sched.size()));
  } else {
    narrate("tandem: trace: without the scheduler's view: {}\n", why_no_sched);
  }
  if (capture.recording.dropped != 0) {
    warn(
        "trace: the oldest events of a thread were overwritten; try: --events N, or fewer "
        "--categories");
  }
  if (capture.recording.records.empty()) {
    warn("trace: no events; does the command use tandem's libraries?");
  }
}

}  // namespace

int run_trace(const TraceSettings& settings) {
  if (!trace::parse_categories(settings.categories)) {
    return report({kUsage, fmt::format("trace: --categories {}: no such category; try: tandem "
                                       "trace --help",
                                       settings.categories)});
  }
  if (settings.output.empty() && settings.html.empty() && settings.svg.empty()) {
    return report({kUsage, "trace: nothing to write; try: tandem trace -o FILE -- COMMAND"});
  }
  const auto same = [](const std::string& a, const std::string& b) { return !a.empty() && a == b; };
  if (same(settings.output, settings.html) || same(settings.output, settings.svg) ||
      same(settings.html, settings.svg)) {
    return report({kUsage, "trace: one file for two formats; try: a name for each"});
  }
  auto output = Output::open(settings.output);
  if (!output) return report(output.error());
  auto html = Output::open(settings.html);
  if (!html) return report(html.error());
  auto svg = Output::open(settings.svg);
  if (!svg) return report(svg.error());
  auto rings = RingDirectory::create();
  if (!rings) return report(rings.error());

  Run run(settings);
  const auto status = run.run(rings->path());
  if (!status) return report(status.error());
  summarize(run.capture(), run.why_no_sched());
  std::optional<Failure> failure;
  const auto write = [&](const Output& to, std::string (*make)(const Capture&)) {
    if (!failure && to.file) failure = to.write(make(run.capture()));
  };
  write(*output, to_perfetto);
  write(*html, to_html);
  write(*svg, to_svg);
  const int code = exit_code(settings.command.front(), *status);
  if (failure) return report(*failure);
  return code;
}

}  // namespace tandem::cli
