// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/training.hpp"

#include <chrono>
#include <utility>

#include "tandem/kxo/detail/evaluation.hpp"

namespace tandem::kxo {
namespace {

constexpr std::uint64_t kMostGeneration = 1 << 20;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

bool in_unit(double number) { return number >= 0 && number <= 1; }

}  // namespace

TrainingPlan TrainingPlan::of(const Rules& rules, Learning::Method method) {
  TrainingPlan plan;
  plan.rules = rules;
  const ValueModel::Kind kind = ValueModel::make(rules)->kind();
  plan.learning = Learning::of(method, kind);
  if (kind == ValueModel::Kind::kNetwork) {
    // A game takes milliseconds there.
    plan.generation = 16;
    plan.evaluate_every = 1'000;
  }
  return plan;
}

Result<void, std::string> TrainingPlan::check() const {
  const auto no = [](const char* name, const char* range) {
    return Unexpected{std::string(name) + " is not in " + range};
  };
  if (!in_unit(learning.lambda)) return no("lambda", "[0, 1]");
  if (!(learning.rate > 0 && learning.rate <= 1)) return no("rate", "(0, 1]");
  if (!in_unit(learning.exploration)) return no("exploration", "[0, 1]");
  if (!in_unit(learning.discount)) return no("discount", "[0, 1]");
  if (learning.random_plies < 0 || learning.random_plies > Rules::kMostCells) {
    return no("random-plies", "[0, 64]");
  }
  if (generation == 0 || generation > kMostGeneration) return no("generation", "[1, 1048576]");
  if (evaluate_every == 0) return no("evaluate-every", "[1, …)");
  return {};
}

Training::Training(const TrainingPlan& plan) : plan_(plan), model_(ValueModel::make(plan.rules)) {}

std::string Training::published() const {
  if (curve_.empty()) return {};
  return model_bytes(plan_.rules, model_->kind(), published_, published_games_);
}

bool Training::train(const Players& players) {
  const auto start = std::chrono::steady_clock::now();
  const auto rate = static_cast<float>(plan_.learning.rate_at(games_));
  const Learn learn = [&](std::span<const Lesson> lessons) { model_->learn(lessons, rate); };
  if (!players(*model_, plan_.learning, plan_.seed, games_, plan_.generation, learn)) return false;
  games_ += plan_.generation;
  seconds_ += seconds_since(start);
  return true;
}

bool Training::evaluation_due() const noexcept {
  return curve_.empty() ||
         games_ / plan_.evaluate_every > curve_.back().games / plan_.evaluate_every;
}

double Training::points_against_published() const {
  const std::shared_ptr<ValueModel> other = ValueModel::make(plan_.rules);
  other->load(published_);
  return detail::points_against(*model_, *other, {plan_.seed, games_});
}

const Evaluation& Training::evaluate() {
  Evaluation now{.games = games_, .seconds = seconds_};
  if (solution_ == nullptr) solution_ = detail::solution_with_regret(plan_.rules);
  now.lost_to_random = detail::lost_to_random(*model_, {plan_.seed, games_});
  if (solution_ != nullptr) {
    now.kept_share = detail::kept_share(model_, *solution_, plan_.seed);
    now.published = curve_.empty() || now.kept_share >= published_share_;
  } else {
    if (!curve_.empty()) now.points_share = points_against_published();
    now.published = curve_.empty() || now.points_share >= 0.5;
  }
  if (now.published) {
    published_ = model_->save();
    published_games_ = games_;
    published_share_ = now.kept_share;
  }
  return curve_.emplace_back(now);
}

Training::Players players_here(std::function<bool()> interrupted) {
  return [interrupted = std::move(interrupted), lessons = std::vector<Lesson>()](
             const ValueModel& model, const Learning& learning, std::uint64_t seed,
             std::uint64_t first, std::uint64_t count, const Training::Learn& learn) mutable {
    lessons.clear();
    for (std::uint64_t game = first; game < first + count; ++game) {
      if (interrupted && interrupted()) return false;
      play_game(model, learning, {seed, game}, lessons);
    }
    learn(lessons);
    return true;
  };
}

}  // namespace tandem::kxo
