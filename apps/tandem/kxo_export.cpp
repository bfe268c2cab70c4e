// SPDX-License-Identifier: Apache-2.0
/// tandem kxo export: a model for other programs.
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/options/options.hpp"
#include "apps/tandem/kxo.hpp"
#include "apps/tandem/output_file.hpp"
#include "tandem/kxo/learner.hpp"
#include "tandem/kxo/notation.hpp"

namespace tandem::cli {
namespace {

constexpr std::string_view kExamples = R"(
Examples:
  tandem kxo export kxo-4x4-4-td/model > table.csv
  tandem kxo export model --format jsonl -o table.jsonl
  tandem kxo export model --format state_value -o state_value.bin

csv and jsonl: every position that the model has learned about, one for all
its mirror images: the position's rows, who moves, what it is worth to who moves
(-1 to 1), the best moves. state_value: what kxo's own learning agent loads,
344 MB, of boards of 4 by 4. docs/kxo-training.md
)";

struct Settings {
  std::string model, format = "csv", output;
  bool replace = false;
};

/// Collects bytes and writes them in large pieces; the first error stays.
class Sink {
 public:
  explicit Sink(int fd) : fd_(fd) {}
  void put(std::string_view bytes) {
    bytes_ += bytes;
    if (bytes_.size() >= kPiece) flush();
  }
  int flush() {
    if (error_ == 0) error_ = write_all(fd_, std::as_bytes(std::span(bytes_)));
    bytes_.clear();
    return error_;
  }

 private:
  static constexpr std::size_t kPiece = 1 << 20;
  int fd_;
  std::string bytes_;
  int error_ = 0;
};

/// A line for each position of `model`.
void put_lines(Sink& to, const kxo::ValueModel& model, bool as_json) {
  const kxo::Rules& rules = model.rules();
  if (!as_json) to.put("position,to_move,value,best\n");
  for (const kxo::Position& position : model.positions()) {
    const std::string name = kxo::position_name(rules, position);
    const char* const mover = position.to_move() == kxo::Player::kO ? "o" : "x";
    const float value = -model.value(position);  // which is for who moved last
    const std::string best = kxo::cell_names(rules, kxo::best_moves(model, position).cells);
    if (as_json) {
      const nlohmann::ordered_json line{
          {"position", name}, {"to_move", mover}, {"value", value}, {"best", best}};
      to.put(line.dump() + "\n");
    } else {
      to.put(fmt::format("{},{},{},{}\n", name, mover, value, best));
    }
  }
}

/// What `position` is worth to O; what cannot come up is worth nothing.
float value_to_o(const kxo::ValueModel& model, const kxo::Position& position) {
  const int ahead = std::popcount(position.o) - std::popcount(position.x);
  if (ahead != 0 && ahead != 1) return 0;
  switch (model.rules().outcome(position)) {
    case kxo::Outcome::kO:
      return 1;
    case kxo::Outcome::kX:
      return -1;
    case kxo::Outcome::kDraw:
      return 0;
    default:
      return ahead == 1 ? model.value(position) : -model.value(position);
  }
}

/// Calls `use` with the positions of the 4 by 4 board by their number: a digit to the base of 3 for
/// each cell, the first one's the most significant, O's 1, X's 2.
template <class Use>
void for_each_number(Use use, kxo::Position position = {}, int cell = 0) {
  if (cell == 16) return use(position);
  for_each_number(use, position, cell + 1);
  for_each_number(use, {position.o | kxo::cell_bit(cell), position.x}, cell + 1);
  for_each_number(use, {position.o, position.x | kxo::cell_bit(cell)}, cell + 1);
}

/// A float for each position, what it is worth to O; then the same for X.
void put_state_values(Sink& to, const kxo::ValueModel& model) {
  for (const float sign : {1.0F, -1.0F}) {
    for_each_number([&](const kxo::Position& position) {
      const float value = sign * value_to_o(model, position);
      to.put({reinterpret_cast<const char*>(&value), sizeof value});
    });
  }
}

Failure failure_of(ExitCode code, const std::string& why) { return {code, "kxo export: " + why}; }

/// What cannot be exported in this form.
std::optional<Failure> refusal(const Settings& settings, const kxo::ValueModel& model) {
  const std::string game = kxo::game_name(model.rules());
  if (settings.format == "state_value") {
    if (model.rules().width() != 4 || model.rules().height() != 4) {
      return failure_of(kUsage, settings.model + ": is of " + game +
                                    ", and state_value of boards of 4x4; try: --format csv");
    }
    if (settings.output.empty() && ::isatty(STDOUT_FILENO) == 1) {
      return failure_of(kUsage, "state_value is no text; try: -o state_value.bin");
    }
  } else if (model.kind() != kxo::ValueModel::Kind::kTable) {
    return failure_of(kUsage, settings.model + ": of " + game +
                                  " is a network, not a table: its positions cannot be listed; "
                                  "try: td:model=" +
                                  settings.model + " as an agent");
  }
  return std::nullopt;
}

int run(const Settings& settings) {
  struct stat source {};
  const auto trained = kxo::load_model(settings.model);
  if (!trained || ::stat(settings.model.c_str(), &source) != 0) {
    return report(failure_of(code_of_unreadable(settings.model),
                             (trained ? settings.model : trained.error()) +
                                 "; try: tandem kxo train, which writes DIR/model"));
  }
  const kxo::ValueModel& model = *trained->model;
  if (const auto refused = refusal(settings, model)) return report(*refused);
  std::optional<OutputFile> file;
  if (!settings.output.empty()) {
    auto created = OutputFile::create(settings.output, settings.replace, "without -o,");
    if (!created) return report(created.error());
    file.emplace(std::move(*created));
  }
  Sink sink(file ? file->fd() : STDOUT_FILENO);
  if (settings.format == "state_value") {
    put_state_values(sink, model);
  } else {
    put_lines(sink, model, settings.format == "jsonl");
  }
  if (const int error = sink.flush(); error != 0) {
    return report(from_errno(file ? settings.output : "standard output", error));
  }
  if (file) {
    if (const auto failure = file->commit(source, false)) return report(*failure);
  }
  return kOk;
}

}  // namespace

void add_kxo_export(const Command& kxo) {
  auto settings = std::make_shared<Settings>();
  const Command command = kxo.subcommand("export", "Write a model's values and moves as a table");
  command.option("MODEL", settings->model, "a file that training wrote").required();
  command.option("--format", settings->format, "of the table")
      .text("csv|jsonl|state_value [csv]")
      .check(one_of({"csv", "jsonl", "state_value"}));
  command.option("-o,--output", settings->output, "instead of standard output")
      .text("FILE")
      .check(not_empty());
  command.flag("-f,--force", settings->replace, "replace FILE");
  command.footer(kExamples);
  command.action([settings] { return run(*settings); });
}

}  // namespace tandem::cli
