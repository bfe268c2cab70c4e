// SPDX-License-Identifier: Apache-2.0
// What a training is saved as.
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "tandem/kxo/training.hpp"
#include "tandem/kxo/whole_file.hpp"

namespace tandem::kxo {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::uint32_t kVersion = 1;

class Writer {
 public:
  template <class T>
  void put(T value) {
    static_assert(std::is_arithmetic_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void put(std::string_view text) { bytes_ += text; }
  void put(const std::vector<std::uint32_t>& words) {
    put(std::uint64_t{words.size()});
    bytes_.append(reinterpret_cast<const char*>(words.data()), words.size() * 4);
  }
  std::string finish() {
    put(fnv1a(bytes_));
    return std::move(bytes_);
  }

 private:
  std::string bytes_;
};

/// Gives zeros when there is nothing left, and remembers that.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  template <class T>
  T get() {
    T value{};
    const std::string_view raw = take(sizeof value);
    if (!raw.empty()) std::memcpy(&value, raw.data(), sizeof value);
    return value;
  }
  template <class T>
  void get(T& value) {
    value = get<T>();
  }
  void get(std::vector<std::uint32_t>& words) {
    const auto count = get<std::uint64_t>();
    if (count > bytes_.size() / 4) {
      short_ = true;
      return;
    }
    words.resize(count);
    if (count > 0) std::memcpy(words.data(), take(count * 4).data(), count * 4);
  }
  /// Whether everything was there, and nothing else.
  bool complete() const noexcept { return !short_ && bytes_.empty(); }
  /// Whether something was asked for that was not there.
  bool is_short() const noexcept { return short_; }

 private:
  std::string_view take(std::size_t size) {
    if (size > bytes_.size()) {
      short_ = true;
      return {};
    }
    const std::string_view taken = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return taken;
  }
  std::string_view bytes_;
  bool short_ = false;
};

void put_plan(Writer& to, const TrainingPlan& plan) {
  const Learning& learning = plan.learning;
  for (const int side : {plan.rules.width(), plan.rules.height(), plan.rules.goal()}) to.put(side);
  to.put(static_cast<int>(learning.method));
  for (const double number :
       {learning.lambda, learning.rate, learning.exploration, learning.discount}) {
    to.put(number);
  }
  to.put(learning.halved_after);
  to.put(learning.random_plies);
  to.put(plan.seed);
  to.put(plan.generation);
  to.put(plan.evaluate_every);
}

Result<TrainingPlan, std::string> get_plan(Reader& from) {
  const auto width = from.get<int>(), height = from.get<int>(), goal = from.get<int>();
  const auto rules = Rules::make(width, height, goal);
  if (!rules) return Unexpected{std::string("is of no game")};
  TrainingPlan plan;
  plan.rules = *rules;
  Learning& learning = plan.learning;
  const auto method = from.get<int>();
  if (method != 0 && method != 1) return Unexpected{std::string("names no method")};
  learning.method = static_cast<Learning::Method>(method);
  for (double* const number :
       {&learning.lambda, &learning.rate, &learning.exploration, &learning.discount}) {
    from.get(*number);
  }
  from.get(learning.halved_after);
  from.get(learning.random_plies);
  from.get(plan.seed);
  from.get(plan.generation);
  from.get(plan.evaluate_every);
  if (const auto fits = plan.check(); !fits) return Unexpected{fits.error()};
  return plan;
}

void put_curve(Writer& to, const std::vector<Evaluation>& curve) {
  to.put(std::uint64_t{curve.size()});
  for (const Evaluation& point : curve) {
    to.put(point.games);
    for (const double number :
         {point.seconds, point.kept_share, point.points_share, point.lost_to_random}) {
      to.put(number);
    }
    to.put(static_cast<int>(point.published));
  }
}

void get_curve(Reader& from, std::vector<Evaluation>& curve) {
  const auto count = from.get<std::uint64_t>();
  for (std::uint64_t i = 0; i < count && !from.is_short(); ++i) {
    Evaluation& point = curve.emplace_back();
    from.get(point.games);
    for (double* const number :
         {&point.seconds, &point.kept_share, &point.points_share, &point.lost_to_random}) {
      from.get(*number);
    }
    point.published = from.get<int>() != 0;
  }
}

bool is_share(double number) {
  return (number >= 0 && number <= 1) || number == Evaluation::kUnknown;
}

/// Whether evaluations are in order, begin with one that was published, and none is from a time
/// that has not come.
bool makes_sense(const std::vector<Evaluation>& curve, std::uint64_t games) {
  for (std::size_t i = 0; i < curve.size(); ++i) {
    const Evaluation& point = curve[i];
    if (point.games > games || !(point.seconds >= 0) || std::isinf(point.seconds)) return false;
    if (!is_share(point.kept_share) || !is_share(point.points_share) ||
        !is_share(point.lost_to_random)) {
      return false;
    }
    if (i == 0 ? !point.published : point.games <= curve[i - 1].games) return false;
  }
  return true;
}

}  // namespace

std::string Training::save() const {
  Writer to;
  to.put(kMagic);
  to.put(kVersion);
  put_plan(to, plan_);
  to.put(games_);
  to.put(seconds_);
  put_curve(to, curve_);
  to.put(published_games_);
  to.put(published_share_);
  to.put(published_);
  to.put(model_->save());
  return to.finish();
}

Result<Training, std::string> Training::load(std::string_view bytes) {
  const auto fail = [](const char* why) { return Unexpected{std::string(why)}; };
  if (!bytes.starts_with(kMagic)) return fail("is no training of kxo");
  if (bytes.size() < kMagic.size() + sizeof kVersion + sizeof(std::uint64_t)) {
    return fail("is cut short or damaged");
  }
  Reader from(bytes.substr(kMagic.size(), bytes.size() - kMagic.size() - sizeof(std::uint64_t)));
  if (const auto version = from.get<std::uint32_t>(); version != kVersion) {
    return Unexpected{"has version " + std::to_string(version) + ", known is " +
                      std::to_string(kVersion)};
  }
  const std::size_t end = bytes.size() - sizeof(std::uint64_t);
  if (Reader(bytes.substr(end)).get<std::uint64_t>() != fnv1a(bytes.substr(0, end))) {
    return fail("is cut short or damaged");
  }
  auto plan = get_plan(from);
  if (!plan) return Unexpected{plan.error()};
  Training training(*plan);
  from.get(training.games_);
  from.get(training.seconds_);
  get_curve(from, training.curve_);
  from.get(training.published_games_);
  from.get(training.published_share_);
  from.get(training.published_);
  Words words;
  from.get(words);
  // Such a number of games as could be played, in generations, and another one after them.
  const bool counted = training.games_ % plan->generation == 0 &&
                       training.games_ <= std::numeric_limits<std::uint64_t>::max() / 2;
  if (!counted || !(training.seconds_ >= 0) || std::isinf(training.seconds_) ||
      training.published_games_ > training.games_ || !is_share(training.published_share_) ||
      !makes_sense(training.curve_, training.games_)) {
    return fail("has numbers that make no sense");
  }
  const auto other = ValueModel::make(plan->rules);
  if (!from.complete() || !training.model_->load(words) ||
      (!training.curve_.empty() && !other->load(training.published_))) {
    return fail("does not fit the game");
  }
  return training;
}

}  // namespace tandem::kxo
