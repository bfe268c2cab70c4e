// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <filesystem>

#include "apps/tandem/kxo_curve.hpp"
#include "apps/tandem/kxo_train.hpp"
#include "apps/tandem/kxo_train_plan.hpp"
#include "apps/tandem/progress.hpp"
#include "apps/tandem/stop_signals.hpp"
#include "tandem/base/unique_fd.hpp"
#include "tandem/kxo/notation.hpp"
#include "tandem/kxo/whole_file.hpp"

namespace tandem::cli {
namespace {

using Clock = std::chrono::steady_clock;
using kxo::Evaluation;
using kxo::Training;
using kxo::TrainingPlan;

constexpr double kDefaultSeconds = 60;

/// "99.1 % kept, 0.5 % lost to random moves".
std::string shares_text(const Evaluation& point) {
  std::string text;
  if (point.kept_share != Evaluation::kUnknown) {
    text += fmt::format("{:.2f} % of values kept, ", 100 * point.kept_share);
  }
  if (point.points_share != Evaluation::kUnknown) {
    text +=
        fmt::format("{:.1f} % of points against the published model, ", 100 * point.points_share);
  }
  return text + fmt::format("{:.1f} % lost to random moves", 100 * point.lost_to_random);
}

Failure failure_of(const std::string& why) { return {kFailure, "kxo train: " + why}; }

/// The files of a training. One process at a time has them.
class Directory {
 public:
  /// `make`: if it is not there.
  static Result<Directory, Failure> open(const std::string& path, bool make) {
    std::error_code error;
    if (make) std::filesystem::create_directories(path, error);
    const auto refused = [&](int why) {
      Failure failure = from_errno("kxo train: " + path, why);
      failure.text += "; try: --out DIR";
      return Unexpected{failure};
    };
    if (error) return refused(error.value());
    Directory directory(path);
    directory.fd_ = UniqueFd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory.fd_ || ::access(path.c_str(), W_OK | X_OK) != 0) return refused(errno);
    if (::flock(directory.fd_.get(), LOCK_EX | LOCK_NB) != 0) {
      return Unexpected{failure_of(path + ": another training uses it; try: --out DIR")};
    }
    return directory;
  }
  const std::string& path() const { return path_; }
  std::string file(const char* name) const { return path_ + "/" + name; }
  bool has(const char* name) const {
    std::error_code error;  // open() has seen that we may look
    return std::filesystem::exists(file(name), error);
  }

 private:
  explicit Directory(std::string path) : path_(std::move(path)) {}
  std::string path_;
  UniqueFd fd_;
};

std::string directory_of(const TrainSettings& settings) {
  if (!settings.out.empty()) return settings.out;
  return fmt::format("kxo-{}-{}", kxo::game_name(settings.rules), settings.method.value_or("td"));
}

/// A new training in `directory`, which is made when there is nothing else to say against it.
Result<Training, Failure> begin(const TrainSettings& settings,
                                std::optional<Directory>& directory) {
  const auto plan = make_plan(settings, nullptr);
  if (!plan) {
    return Unexpected{
        Failure{kUsage, "kxo train: " + plan.error() + "; try: tandem kxo train --help"}};
  }
  auto opened = Directory::open(directory_of(settings), true);
  if (!opened) return Unexpected{opened.error()};
  directory.emplace(std::move(*opened));
  if (directory->has("checkpoint")) {
    return Unexpected{failure_of(directory->file("checkpoint") +
                                 ": there is a training already; try: --resume, or another --out "
                                 "DIR")};
  }
  return Training(*plan);
}

/// The training in `directory`.
Result<Training, Failure> resume(const TrainSettings& settings,
                                 std::optional<Directory>& directory) {
  const std::string path = directory_of(settings), checkpoint = path + "/checkpoint";
  std::error_code error;
  const auto status = std::filesystem::status(checkpoint, error);
  if (status.type() == std::filesystem::file_type::not_found) {
    return Unexpected{
        Failure{kNotFound, "kxo train: " + checkpoint + ": there is none; try: without --resume"}};
  }
  auto opened = Directory::open(path, false);
  if (!opened) return Unexpected{opened.error()};
  directory.emplace(std::move(*opened));
  const auto bytes = kxo::read_whole_file(checkpoint, Training::kMostBytes, Training::kMagic);
  if (!bytes) {
    return Unexpected{Failure{code_of_unreadable(checkpoint),
                              "kxo train: " + bytes.error() + "; try: another --out DIR"}};
  }
  auto training = Training::load(*bytes);
  if (!training) {
    return Unexpected{failure_of(checkpoint + ": " + training.error() +
                                 "; try: another --out DIR to begin anew")};
  }
  const auto plan = make_plan(settings, &training->plan());
  if (!plan) {
    return Unexpected{Failure{kUsage, "kxo train: " + checkpoint + ": " + plan.error() +
                                          "; try: without that option, or another --out DIR"}};
  }
  return std::move(*training);
}

/// A training by its leader.
class Run {
 public:
  Run(const TrainSettings& settings, const Crew& crew, Training training, Directory directory)
      : crew_(crew),
        training_(std::move(training)),
        directory_(std::move(directory)),
        most_games_(settings.games),
        most_seconds_(settings.seconds),
        games_at_start_(training_.games()),
        between_saves_(std::chrono::duration_cast<Clock::duration>(
            std::chrono::duration<double>(settings.save_every))) {
    if (most_games_ == 0 && most_seconds_ == 0) most_seconds_ = kDefaultSeconds;
  }

  int go() {
    const TrainingPlan& plan = training_.plan();
    narrate("training {} by {}, {}, in {}; ctrl+C stops and saves\n", kxo::game_name(plan.rules),
            method_name(plan.learning.method),
            games_at_start_ == 0 ? "from nothing"
                                 : fmt::format("from {} games", human_count(games_at_start_)),
            directory_.path());
    if (!write("plan.toml", plan_toml(plan))) return crew_end();
    for (;;) {
      if (training_.evaluation_due()) evaluate();
      if (Clock::now() >= next_save_ && !save()) return crew_end();
      if (!crew_.agree(!finished() && stop_signal() == 0)) break;
      training_.train(crew_.players);
      draw();
    }
    if (finished() && training_.curve().back().games != training_.games()) evaluate();
    const bool saved = save();
    progress_.clear();
    if (!saved) return report(*failure_);
    return finished() ? tell_end() : tell_interrupted();
  }

 private:
  bool finished() const {
    return (most_games_ != 0 && training_.games() >= most_games_) ||
           (most_seconds_ != 0 && training_.seconds() >= most_seconds_);
  }

  /// After a failure, while the others wait for what is next.
  int crew_end() {
    crew_.agree(false);
    progress_.clear();
    return report(*failure_);
  }

  bool write(const char* name, const std::string& bytes) {
    const auto written = kxo::write_whole_file(directory_.file(name), bytes);
    if (!written) {
      failure_ =
          failure_of(written.error() + "; try: --resume when there is space, or another --out");
    }
    return written.has_value();
  }

  /// The checkpoint last: what is interrupted before is made again from the one before.
  bool save() {
    const TrainingPlan& plan = training_.plan();
    const std::string title = fmt::format("{} by {}, seed {}", kxo::game_name(plan.rules),
                                          method_name(plan.learning.method), plan.seed);
    next_save_ = Clock::now() + between_saves_;
    return write("model", training_.published()) &&
           write("curve.csv", curve_csv(training_.curve())) &&
           write("curve.svg", curve_svg(title, training_.curve())) &&
           write("checkpoint", training_.save());
  }

  void evaluate() {
    const Evaluation& point = training_.evaluate();
    // A line for each would be too many where they take milliseconds.
    if (training_.curve().size() > 1 && Clock::now() < next_line_) return;
    next_line_ = Clock::now() + std::chrono::seconds(1);
    progress_.say(fmt::format("{:>8} games  {:>7.1f} s  {}{}", human_count(point.games),
                              point.seconds, shares_text(point),
                              point.published ? "" : "; not published"));
  }

  void draw() {
    const auto now = Clock::now();
    if (now < next_draw_) return;
    next_draw_ = now + std::chrono::milliseconds(100);
    const double seconds = std::chrono::duration<double>(now - started_).count();
    const auto games = static_cast<double>(training_.games() - games_at_start_);
    const double rate = games / seconds;
    double part = 0, left = HUGE_VAL;
    if (most_games_ != 0) {
      const auto all = static_cast<double>(most_games_),
                 done = static_cast<double>(training_.games());
      part = done / all;
      left = (all - done) / rate;
    }
    if (most_seconds_ != 0) {
      part = std::max(part, training_.seconds() / most_seconds_);
      left = std::min(left, most_seconds_ - training_.seconds());
    }
    const auto whole = static_cast<long>(std::max(0.0, left));
    progress_.draw(
        part, fmt::format("{} games, {}/s, {}:{:02} left", human_count(training_.games()),
                          human_count(static_cast<std::uint64_t>(rate)), whole / 60, whole % 60));
  }

  int tell_end() {
    const auto& curve = training_.curve();
    const auto published =
        std::find_if(curve.rbegin(), curve.rend(), [](const auto& p) { return p.published; });
    fmt::print("{} games in {:.1f} s\n", human_count(training_.games()), training_.seconds());
    fmt::print("before   {}\n", shares_text(curve.front()));
    fmt::print("{:<8} {}, after {} games\n", "model", shares_text(*published),
               human_count(published->games));
    fmt::print("play     tandem kxo regret {}:model={}{}\n",
               method_name(training_.plan().learning.method), directory_.file("model"),
               training_.plan().rules == kxo::Rules::standard()
                   ? ""
                   : " --game " + kxo::game_name(training_.plan().rules));
    return kOk;
  }

  int tell_interrupted() const {
    return report({kFailure, fmt::format("kxo train: interrupted after {} games, all saved; try: "
                                         "tandem kxo train --resume --out {}",
                                         training_.games(), directory_.path())});
  }

  const Crew& crew_;
  Training training_;
  Directory directory_;
  std::uint64_t most_games_;
  double most_seconds_;
  std::uint64_t games_at_start_;
  std::optional<Failure> failure_;
  Progress progress_;
  const Clock::duration between_saves_;
  const Clock::time_point started_ = Clock::now();
  Clock::time_point next_save_, next_line_, next_draw_;
};

int lead(const TrainSettings& settings, const Crew& crew) {
  std::optional<Directory> directory;
  auto training = settings.resume ? resume(settings, directory) : begin(settings, directory);
  crew.share(training ? training->save() : std::string());
  if (!training) return report(training.error());
  return Run(settings, crew, std::move(*training), std::move(*directory)).go();
}

int follow(const Crew& crew) {
  const std::string bytes = crew.share({});
  if (bytes.empty()) return kFailure;  // told by the leader
  auto training = Training::load(bytes);
  if (!training) return report(failure_of("from the first rank: " + training.error()));
  while (crew.agree(false)) training->train(crew.players);
  return kOk;
}

}  // namespace

int run_train(const TrainSettings& settings, const Crew& crew) {
  note_stop_signals();
  return crew.leads ? lead(settings, crew) : follow(crew);
}

}  // namespace tandem::cli
