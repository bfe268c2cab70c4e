// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tandem/base/result.hpp"
#include "tandem/kxo/rules.hpp"

namespace tandem::kxo {

/// What a game says of a position that came up in it. ValueModel::lesson() makes it.
struct Lesson {
  Position position;
  float target = 0;       ///< a better guess of its value
  std::uint32_t key = 0;  ///< by which the model finds the position
};

/// What has been learned about positions of one game: a guess of their values.
///
/// A position is judged for who has just moved, and only positions without a row are: whoever
/// learns has one table for both players, and what one of them gains the other one loses.
/// Thread safety: any number of threads may call value() while nobody calls learn().
class ValueModel {
 public:
  enum class Kind : std::uint32_t { kTable = 1, kNetwork = 2 };

  /// A table of positions where the board has at most 16 cells, else a network. It knows nothing
  /// yet: every position is worth 0.
  static std::unique_ptr<ValueModel> make(const Rules& rules);
  virtual ~ValueModel() = default;

  const Rules& rules() const noexcept { return rules_; }
  virtual Kind kind() const noexcept = 0;
  /// In [-1, 1]. Positions that are the same up to symmetry have the same value.
  virtual float value(const Position& position) const noexcept = 0;
  /// Moves value(position) by the share `rate` of the way to `target`; a network moves its
  /// neighbours, too.
  virtual void learn(const Position& position, float target, float rate) = 0;
  /// For models of this game; what is done here need not be done when it is learned.
  virtual Lesson lesson(const Position& position, float target) const noexcept {
    return {position, target, 0};
  }
  /// Learns from these, one after the other.
  virtual void learn(std::span<const Lesson> lessons, float rate);

  /// The positions that something was learned about, one for all its images; of tables only.
  virtual std::vector<Position> positions() const { return {}; }

  /// What was learned, as the numbers that a file holds; load() takes only such ones.
  virtual std::vector<std::uint32_t> save() const = 0;
  virtual bool load(const std::vector<std::uint32_t>& words) = 0;

 protected:
  explicit ValueModel(const Rules& rules) : rules_(rules) {}

 private:
  Rules rules_;
};

/// A model, and how many games it has learned from.
struct TrainedModel {
  std::unique_ptr<ValueModel> model;
  std::uint64_t games = 0;
};

/// Writes the file at once or not at all: who reads it finds the old one or the new one, also when
/// the machine stops meanwhile.
/// Units: little-endian; magic "tndmkxo\n", u32 version 1, u32 kind, u32 width, height, goal,
///        u32 0, u64 games, u64 count, `count` u32 words, u64 FNV-1a of all before.
/// Errors: a sentence about the file.
Result<void, std::string> save_model(const std::string& path, const ValueModel& model,
                                     std::uint64_t games);
/// What save_model() writes of a model of this kind that saves `words`.
std::string model_bytes(const Rules& rules, ValueModel::Kind kind,
                        const std::vector<std::uint32_t>& words, std::uint64_t games);
/// Errors: a sentence about a file that cannot be read, is none of these, is cut short, changed, of
///         another version or of another game than `rules`, if they are given.
Result<TrainedModel, std::string> load_model(const std::string& path);
Result<TrainedModel, std::string> load_model(const std::string& path, const Rules& rules);

}  // namespace tandem::kxo
