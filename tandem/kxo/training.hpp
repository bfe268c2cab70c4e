// SPDX-License-Identifier: Apache-2.0
/// Training: a model plays against itself in generations, is judged from time to time, and the best
/// one so far is published.
///
/// The games of a generation are all played by the model as it was at the generation's start; then
/// it learns from them in the order of their numbers. Every game has random numbers of its own, by
/// (seed, game). So what becomes of a model depends on the plan and the number of games alone: not
/// on who played them, how often the training was interrupted, and when it was saved.
///
/// A model is published when it is judged to be no worse than the one that was published before: by
/// the share of its moves that keep the value of a position where the game is solved, else by games
/// against that one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tandem/base/result.hpp"
#include "tandem/kxo/learner.hpp"
#include "tandem/kxo/solution.hpp"

namespace tandem::kxo {

/// What a training is. Two with the same plan are the same, bit by bit, after as many games.
struct TrainingPlan {
  Rules rules = Rules::standard();
  Learning learning;
  std::uint64_t seed = 1;
  std::uint64_t generation = 2048;         ///< games between two that the model learns from
  std::uint64_t evaluate_every = 100'000;  ///< games

  /// What suits the game.
  static TrainingPlan of(const Rules& rules, Learning::Method method);
  /// Whether no number is out of its range. Errors: a sentence about the one that is.
  Result<void, std::string> check() const;

  friend bool operator==(const TrainingPlan&, const TrainingPlan&) = default;
};

/// How good the model was after so many games.
struct Evaluation {
  static constexpr double kUnknown = -1;

  std::uint64_t games = 0;
  double seconds = 0;              ///< of training until then
  double kept_share = kUnknown;    ///< moves that keep the value, of regret.hpp; of solved games
  double points_share = kUnknown;  ///< against the published model, a draw is half a point; else
  double lost_to_random = 0;       ///< share of games
  bool published = false;
};

/// Thread safety: one thread at a time.
class Training {
 public:
  /// Learns from the next lessons of a generation, which changes the model.
  using Learn = std::function<void(std::span<const Lesson> lessons)>;
  /// Plays games [first, first + count) of the plan's seed. When the last one is played, says their
  /// lessons to `learn`, in one piece or several, in the order of the games. Returns: false when it
  /// was interrupted before.
  using Players =
      std::function<bool(const ValueModel& model, const Learning& learning, std::uint64_t seed,
                         std::uint64_t first, std::uint64_t count, const Learn& learn)>;

  /// A model that knows nothing yet. `plan` has passed check().
  explicit Training(const TrainingPlan& plan);

  const TrainingPlan& plan() const noexcept { return plan_; }
  const ValueModel& model() const noexcept { return *model_; }
  std::uint64_t games() const noexcept { return games_; }
  double seconds() const noexcept { return seconds_; }  ///< of training, without evaluation
  const std::vector<Evaluation>& curve() const noexcept { return curve_; }
  /// The published model's file, as load_model() takes it; empty before the first evaluation.
  std::string published() const;
  std::uint64_t published_games() const noexcept { return published_games_; }

  /// Trains one generation. Returns: false when `players` was interrupted; nothing is learned then.
  bool train(const Players& players);
  /// Whether `evaluate_every` games were played since the last evaluation, or none was made.
  bool evaluation_due() const noexcept;
  const Evaluation& evaluate();

  /// All of it, to go on later as if nothing had happened.
  /// Units: little-endian; magic "tndmkxt\n", u32 version 1, …, u64 FNV-1a of all before.
  std::string save() const;
  /// Errors: a sentence about bytes that save() did not write.
  static Result<Training, std::string> load(std::string_view bytes);
  /// What save() begins with.
  static constexpr std::string_view kMagic = "tndmkxt\n";
  /// More than any save() has.
  static constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 32;

 private:
  using Words = std::vector<std::uint32_t>;
  double points_against_published() const;

  TrainingPlan plan_;
  std::shared_ptr<ValueModel> model_;
  std::uint64_t games_ = 0;
  double seconds_ = 0;
  Words published_;
  std::uint64_t published_games_ = 0;
  double published_share_ = Evaluation::kUnknown;  // kept_share of it
  std::vector<Evaluation> curve_;
  std::shared_ptr<const Solution> solution_;  // where the game is solved; made when it is needed
};

/// Plays them here. `interrupted`, if any, is asked between games.
Training::Players players_here(std::function<bool()> interrupted = {});

}  // namespace tandem::kxo
