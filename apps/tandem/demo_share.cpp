// SPDX-License-Identifier: Apache-2.0
/// tandem demo share: four tenants share the compression device by plain pointers.
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <thread>

#include "apps/broker_process/broker_process.hpp"
#include "apps/tandem/demo.hpp"
#include "apps/tandem/direct.hpp"
#include "apps/tandem/progress.hpp"
#include "apps/tandem/stop_signals.hpp"
#include "apps/tandem/tenant.hpp"
#include "tandem/base/cpu.hpp"
#include "tandem/trace/trace.hpp"

namespace tandem::cli {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::uint64_t kCorpusBytes = std::uint64_t{64} << 20;
constexpr unsigned kVictim = 2;
// Fractions of the run at which things happen.
constexpr double kProbeAt = 0.25, kForkAt = 0.5, kKillAt = 0.7;
// Below this index, over at least so many seconds, the scheduler has failed; noise of a busy
// machine stays above it.
constexpr double kLeastFair = 0.8, kFairSeconds = 0.2;

class Show {
 public:
  Show(const ShareSettings& settings, Corpus corpus)
      : settings_(settings), corpus_(std::move(corpus)) {}
  ~Show();
  Show(const Show&) = delete;
  Show& operator=(const Show&) = delete;

  std::optional<Failure> run();

 private:
  std::optional<Failure> start();
  std::optional<Failure> wait_until_ready();
  std::optional<Failure> work();
  std::optional<Failure> happen(double part);
  std::optional<Failure> kill_victim();
  std::optional<Failure> check_tenants();
  std::optional<Failure> finish();
  std::optional<Failure> check_outcome();
  std::uint64_t verified_bytes() const;
  void remember_fair_interval();
  double jain_index() const;
  void print_table(const DirectComparison& comparison);
  void print_events(const DirectComparison& comparison);
  Seat& seat(unsigned i) { return board_->seats[i]; }
  const Seat& seat(unsigned i) const { return board_->seats[i]; }

  const ShareSettings& settings_;
  Corpus corpus_;
  std::unique_ptr<broker::BrokerProcess> broker_;
  Mapping memory_;
  Board* board_ = nullptr;
  std::array<pid_t, Board::kTenants> processes_{};
  std::vector<std::thread> threads_;
  Progress progress_;
  Clock::time_point started_;
  bool probed_ = false, told_probe_ = false, forked_ = false, told_fork_ = false;
  bool killed_ = false;
  std::array<double, Board::kTenants> fair_bytes_{};
  double fair_seconds_ = 0;
  Clock::time_point killed_at_;
  broker::BrokerProcess::Event victim_end_;
  std::uint64_t bytes_at_kill_ = 0;
};

Show::~Show() {
  if (board_ != nullptr) board_->stop.store(1, std::memory_order_release);
  for (const pid_t pid : processes_) {
    if (pid <= 0) continue;
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
  for (auto& thread : threads_) thread.join();
}

std::optional<Failure> Show::start() {
  const std::size_t size = round_up_to_page(sizeof(Board));
  auto fd = make_sealed_memfd("tandem-board", size);
  if (!fd) return from_errno("shared memory", fd.error().value());
  auto memory = Mapping::shared(fd->get(), size);
  if (!memory) return from_errno("shared memory", memory.error().value());
  memory_ = std::move(*memory);
  board_ = new (memory_.data()) Board;
  if (settings_.embedded) {
    for (unsigned i = 0; i < Board::kTenants; ++i) {
      threads_.emplace_back([this, i] {
        Corpus own = corpus_.duplicate();
        run_tenant(*board_, i, own, TenantKind::kThread);
      });
    }
    return std::nullopt;
  }
  auto broker =
      broker::BrokerProcess::start({.engines = std::max(1, usable_cpus() / 2), .events = true});
  if (!broker) return Failure{kFailure, "private broker: " + broker.error()};
  broker_ = std::move(*broker);
  const std::string list = broker_->directory() + "/corpus";
  if (auto failure = corpus_.save(list)) return failure;
  for (unsigned i = 0; i < Board::kTenants; ++i) {
    const auto pid = start_tenant_process(fd->get(), i, list);
    if (!pid) return pid.error();
    processes_[i] = *pid;
  }
  return std::nullopt;
}

/// Whether a tenant has failed or gone when it should not have.
std::optional<Failure> Show::check_tenants() {
  for (unsigned i = 0; i < Board::kSeats; ++i) {
    if (seat(i).state.load(std::memory_order_acquire) == Seat::kFailed) {
      return Failure{kFailure, fmt::format("{}: {}",
                                           i < Board::kTenants ? fmt::format("tenant {}", i + 1)
                                                               : "tenant 2's child",
                                           seat(i).error.data())};
    }
  }
  for (unsigned i = 0; i < Board::kTenants; ++i) {
    if (processes_[i] <= 0 || (i == kVictim && killed_)) continue;
    int status = 0;
    if (::waitpid(processes_[i], &status, WNOHANG) != processes_[i]) continue;
    processes_[i] = 0;
    if (seat(i).state.load(std::memory_order_acquire) == Seat::kDone) continue;
    return Failure{kFailure,
                   fmt::format("tenant {} ended early ({})", i + 1,
                               WIFSIGNALED(status) ? ::strsignal(WTERMSIG(status))
                                                   : fmt::format("exit {}", WEXITSTATUS(status)))};
  }
  if (broker_ != nullptr && !broker_->running()) {
    return Failure{kFailure, "the private broker ended early"};
  }
  if (stop_signal() != 0) return Failure{kFailure, "interrupted"};
  return std::nullopt;
}

std::optional<Failure> Show::wait_until_ready() {
  const auto patience = Clock::now() + std::chrono::seconds(20);
  for (;;) {
    if (auto failure = check_tenants()) return failure;
    bool ready = true;
    for (unsigned i = 0; i < Board::kTenants; ++i)
      ready = ready && seat(i).state.load() == Seat::kReady;
    if (ready) return std::nullopt;
    if (Clock::now() > patience) return Failure{kFailure, "the tenants did not start within 20 s"};
    std::this_thread::sleep_for(milliseconds(2));
  }
}

std::uint64_t Show::verified_bytes() const {
  std::uint64_t bytes = 0;
  for (const Seat& each : board_->seats) bytes += each.bytes.load(std::memory_order_relaxed);
  return bytes;
}

void Show::remember_fair_interval() {
  if (fair_seconds_ > 0) return;
  fair_seconds_ = std::chrono::duration<double>(Clock::now() - started_).count();
  for (unsigned i = 0; i < Board::kTenants; ++i) {
    fair_bytes_[i] = static_cast<double>(seat(i).bytes.load(std::memory_order_relaxed));
  }
}

std::optional<Failure> Show::kill_victim() {
  bytes_at_kill_ = verified_bytes();
  killed_ = true;
  killed_at_ = Clock::now();
  const pid_t pid = processes_[kVictim];
  trace::mark("kill -9 tenant 3");
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  processes_[kVictim] = 0;
  seat(kVictim).ended_ns.store(now_ns(), std::memory_order_relaxed);
  const auto* ended = broker_->wait_for("ended", pid, std::chrono::seconds(3));
  if (ended == nullptr) {
    return Failure{kFailure, "tenant 3 was killed and the broker did not clean up within 3 s"};
  }
  victim_end_ = *ended;
  progress_.say(fmt::format("  tenant 3 killed: PASID {} revoked, {} queue{} put, {} after SIGKILL",
                            ended->pasid, ended->queues, ended->queues == 1 ? "" : "s",
                            human_time(ended->seen - killed_at_)));
  return std::nullopt;
}

std::optional<Failure> Show::happen(double part) {
  if (!probed_ && part >= kProbeAt) {
    probed_ = true;
    board_->probe_now.store(1, std::memory_order_release);
  }
  Seat& prober = seat(3);
  const bool probe_done = (settings_.embedded ? prober.unmapped_address : prober.foreign_address)
                              .load(std::memory_order_acquire) != 0;
  if (!told_probe_ && probe_done) {
    told_probe_ = true;
    progress_.say(fmt::format("  tenant 4 submits an unmapped pointer: fault at {:#x}",
                              prober.unmapped_fault.load()));
    if (!settings_.embedded) {
      progress_.say(fmt::format("  tenant 4 submits a pointer of tenant 1: fault at {:#x}",
                                prober.foreign_fault.load()));
    }
  }
  if (settings_.embedded) return std::nullopt;
  if (!forked_ && part >= kForkAt) {
    forked_ = true;
    remember_fair_interval();
    board_->fork_now.store(1, std::memory_order_release);
  }
  if (!told_fork_ && seat(Board::kTenants).blocks.load(std::memory_order_relaxed) > 0) {
    told_fork_ = true;
    progress_.say(fmt::format("  tenant 2 forked: its child, pid {}, goes on with the same context",
                              seat(Board::kTenants).pid.load()));
  }
  if (!killed_ && part >= kKillAt && told_fork_) return kill_victim();
  return std::nullopt;
}

std::optional<Failure> Show::work() {
  started_ = Clock::now();
  board_->go.store(1, std::memory_order_release);
  const double wanted = settings_.seconds;
  auto last_say = started_;
  for (;;) {
    if (auto failure = check_tenants()) return failure;
    const double elapsed = std::chrono::duration<double>(Clock::now() - started_).count();
    // Long enough, and the corpus once through; what is to happen happens in the first part.
    const double covered = static_cast<double>(board_->next_block.load(std::memory_order_relaxed)) /
                           static_cast<double>(corpus_.blocks());
    if (auto failure = happen(elapsed / wanted)) return failure;
    const bool all_happened = told_probe_ && (settings_.embedded || (told_fork_ && killed_));
    if (elapsed >= wanted && covered >= 1 && all_happened) break;
    if (elapsed > wanted + 10 && covered >= 1) {
      return Failure{kFailure, !told_probe_ ? "tenant 4's bad pointers were never answered"
                                            : "tenant 2's forked child did no work"};
    }
    const double part = std::min(elapsed / wanted, covered);
    progress_.draw(part,
                   fmt::format("{} verified", human_bytes(static_cast<double>(verified_bytes()))));
    if (Clock::now() - last_say > std::chrono::seconds(30) && !styled(STDERR_FILENO)) {
      last_say = Clock::now();
      progress_.say(fmt::format("  {:.0f} %: {} verified", part * 100,
                                human_bytes(static_cast<double>(verified_bytes()))));
    }
    std::this_thread::sleep_for(milliseconds(elapsed < 0.5 ? 5 : 20));
  }
  remember_fair_interval();
  return std::nullopt;
}

std::optional<Failure> Show::finish() {
  board_->stop.store(1, std::memory_order_release);
  const auto patience = Clock::now() + std::chrono::seconds(20);
  for (;;) {
    if (auto failure = check_tenants()) return failure;
    bool done = true;
    for (unsigned i = 0; i < Board::kTenants; ++i) {
      if (i == kVictim && killed_) continue;
      done = done && seat(i).state.load(std::memory_order_acquire) == Seat::kDone &&
             processes_[i] == 0;
    }
    if (done) break;
    if (Clock::now() > patience) return Failure{kFailure, "the tenants did not stop within 20 s"};
    std::this_thread::sleep_for(milliseconds(2));
  }
  for (auto& thread : threads_) thread.join();
  threads_.clear();
  progress_.clear();
  return check_outcome();
}

/// What the tenants do not notice themselves.
std::optional<Failure> Show::check_outcome() {
  for (unsigned i = 0; i < Board::kTenants; ++i) {
    if (seat(i).heap_blocks.load() == 0 || seat(i).reserved_blocks.load() == 0) {
      return Failure{kFailure, fmt::format("tenant {} did no work", i + 1)};
    }
  }
  const Seat& prober = seat(3);
  if (prober.unmapped_fault.load() == 0 ||
      prober.unmapped_fault.load() != prober.unmapped_address.load()) {
    return Failure{kFailure, "the unmapped pointer did not fault"};
  }
  if (settings_.embedded) return std::nullopt;
  if (prober.foreign_fault.load() == 0 ||
      prober.foreign_fault.load() != prober.foreign_address.load()) {
    return Failure{kFailure, "tenant 1's pointer did not fault for tenant 4"};
  }
  if (verified_bytes() <= bytes_at_kill_) {
    return Failure{kFailure, "after the kill nobody got anything done"};
  }
  return std::nullopt;
}

double Show::jain_index() const {
  double sum = 0, squares = 0;
  for (const double bytes : fair_bytes_) {
    sum += bytes;
    squares += bytes * bytes;
  }
  return squares > 0 ? sum * sum / (Board::kTenants * squares) : 0;
}

void Show::print_table(const DirectComparison& comparison) {
  Table table(
      {"tenant", "MB/s", "p50", "p99", "zero copy", "by copy", "faults", "transl.", "hits"});
  const std::array<const char*, Board::kSeats> names =
      settings_.embedded ? std::array<const char*, Board::kSeats>{"1", "2", "3", "4 bad ptrs", ""}
                         : std::array<const char*, Board::kSeats>{"1", "2 forks", "3 killed",
                                                                  "4 bad ptrs", "2's child"};
  for (unsigned i = 0; i < Board::kSeats; ++i) {
    const Seat& each = seat(i);
    if (each.blocks.load() == 0) continue;
    const auto seconds = static_cast<double>(each.ended_ns.load() - each.started_ns.load()) / 1e9;
    std::vector<std::string> row{
        names[i], fmt::format("{:.0f}", static_cast<double>(each.bytes.load()) / 1e6 / seconds),
        human_time(each.latency.percentile(0.5)), human_time(each.latency.percentile(0.99))};
    const wd_stats stats = each.get_stats();
    if (settings_.embedded && i > 0) {
      for (int k = 0; k < 5; ++k) row.emplace_back("\"");  // one process, one account
    } else {
      row.push_back(human_bytes(static_cast<double>(stats.bytes_zero_copy)));
      row.push_back(human_bytes(static_cast<double>(stats.bytes_copied)));
      row.push_back(human_count(stats.page_faults));
      row.push_back(human_count(stats.translations));
      row.push_back(
          stats.translations == 0
              ? "-"
              : fmt::format("{:.1f} %", 100.0 * static_cast<double>(stats.translation_hits) /
                                            static_cast<double>(stats.translations)));
    }
    table.add(std::move(row));
  }
  fmt::print("\n");
  table.print();
  print_events(comparison);
}

void Show::print_events(const DirectComparison& comparison) {
  std::uint64_t blocks = 0, compressed = 0;
  for (const Seat& each : board_->seats) {
    blocks += each.blocks.load();
    compressed += each.compressed.load();
  }
  const auto bytes = static_cast<double>(verified_bytes());
  fmt::print("\nverified   {}, {} blocks, each inflated by zlib: 0 mismatches; {:.2f}:1\n",
             human_bytes(bytes), human_count(blocks), bytes / static_cast<double>(compressed));
  fmt::print("fairness   Jain's index {:.3f} over the {:.1f} s in which all four had work\n",
             jain_index(), fair_seconds_);
  const Seat& prober = seat(3);
  fmt::print("isolation  unmapped pointer: fault at {:#x}\n", prober.unmapped_fault.load());
  if (!settings_.embedded) {
    fmt::print("           tenant 1's pointer, submitted by tenant 4: fault at {:#x}\n",
               prober.foreign_fault.load());
    std::uint64_t ended = 0, queues = 0, reserved = 0;
    for (const auto& event : broker_->events()) {
      if (event.kind != "ended") continue;
      ++ended;
      queues += event.queues;
      reserved += event.reserved_bytes;
    }
    fmt::print("cleaned up tenant 3: PASID {}, {} queue{}, {} reserved; {} after SIGKILL\n",
               victim_end_.pasid, victim_end_.queues, victim_end_.queues == 1 ? "" : "s",
               human_bytes(static_cast<double>(victim_end_.reserved_bytes)),
               human_time(victim_end_.seen - killed_at_));
    fmt::print("           {} address spaces ended in all, holding {} queue{} and {}\n", ended,
               queues, queues == 1 ? "" : "s", human_bytes(static_cast<double>(reserved)));
  } else {
    fmt::print("           tenants are threads of one process here: nothing isolates them\n");
  }
  fmt::print(
      "speed      isa-l called directly {:.0f} MB/s, through the device {:.0f} MB/s: {:.2f}x\n"
      "           (wall clock, best of several, without tenants; half ordinary memory)\n",
      comparison.direct / 1e6, comparison.device / 1e6,
      comparison.direct > 0 ? comparison.device / comparison.direct : 0.0);
}

std::optional<Failure> Show::run() {
  narrate("tandem: {} of {} files; four {} compress it by plain pointer\n",
          human_bytes(static_cast<double>(corpus_.size_bytes())), corpus_.files(),
          settings_.embedded ? "threads" : "processes");
  if (auto failure = start()) return failure;
  if (auto failure = wait_until_ready()) return failure;
  if (broker_ != nullptr) {
    progress_.say(fmt::format("  private broker, pid {}, {}, at {}", broker_->pid(),
                              ::geteuid() == 0 ? "as root" : "rootless", broker_->socket_path()));
  }
  if (auto failure = work()) return failure;
  if (auto failure = finish()) return failure;
  const auto comparison = compare_with_direct(corpus_);
  if (!comparison) return comparison.error();
  // Those that ended by themselves are cleaned up too; wait for the last word about them.
  if (broker_ != nullptr) {
    for (unsigned i = 0; i < Board::kSeats; ++i) {
      broker_->wait_for("ended", seat(i).pid.load(), std::chrono::seconds(2));
    }
  }
  print_table(*comparison);
  if (broker_ != nullptr && fair_seconds_ >= kFairSeconds && jain_index() < kLeastFair) {
    return Failure{kFailure, fmt::format("the engine was not shared fairly: Jain's index {:.3f}",
                                         jain_index())};
  }
  return std::nullopt;
}

}  // namespace

int demo_share(const ShareSettings& settings) {
  auto corpus =
      settings.files.empty() ? Corpus::of_this_machine(kCorpusBytes) : Corpus::of(settings.files);
  if (!corpus) return report(corpus.error());
  note_stop_signals({SIGPIPE});
  std::optional<Failure> failure;
  {
    Show show(settings, std::move(*corpus));
    failure = show.run();
  }
  if (stop_signal() == SIGPIPE) end_by(SIGPIPE);  // nobody reads what we could say
  return failure ? report({failure->code, "demo share: " + failure->text}) : kOk;
}

}  // namespace tandem::cli
