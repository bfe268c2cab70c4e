// SPDX-License-Identifier: Apache-2.0
// The protocol is in docs/kxo-engines.md.
#include <bit>
#include <charconv>
#include <chrono>
#include <optional>
#include <utility>

#include "tandem/kxo/detail/built_in_agents.hpp"
#include "tandem/kxo/detail/engine_process.hpp"

namespace tandem::kxo::detail {
namespace {

using std::chrono::milliseconds;

/// Beyond the time that the engine was told, for its answer to arrive.
constexpr milliseconds kGrace(200);

/// Another program, asked for every move anew with the whole board: it may be replaced, or join, in
/// the middle of a game. One that fails is killed, and started again for the next move.
class ExternalAgent final : public Agent {
 public:
  ExternalAgent(const Rules& rules, std::string command, AgentOptions& options)
      : Agent(rules), command_(std::move(command)) {
    own_.time = options.time("time", {});
    timeout_ = options.time("timeout", std::chrono::seconds(10));
  }

 private:
  Result<int> do_choose(const Position& position, const Budget& budget) override {
    Result<int> cell = ask(position, budget);
    // It may still answer this question when the next one is asked.
    if (!cell || *cell < 0 || (rules().free(position) & cell_bit(*cell)) == 0) engine_.reset();
    return cell;
  }
  Result<void> start(const Budget& budget);
  Result<int> ask(const Position& position, const Budget& budget);
  std::string question(const Position& position, std::chrono::nanoseconds time) const;
  Result<std::string> answer(const Deadline& deadline);
  int cell_of(std::string_view text) const noexcept;

  std::string command_;
  Budget own_;
  std::chrono::nanoseconds timeout_{};
  std::optional<EngineProcess> engine_;
};

Result<void> ExternalAgent::start(const Budget& budget) {
  auto started = EngineProcess::start(command_);
  if (!started) return Unexpected{started.error()};
  engine_.emplace(std::move(*started));
  const Deadline deadline(timeout_, budget.stop);
  const std::string width = std::to_string(rules().width());
  const std::string hello =
      rules().width() == rules().height()
          ? "START " + width + "\n"
          : "RECTSTART " + width + "," + std::to_string(rules().height()) + "\n";
  if (const auto sent = engine_->send(hello, deadline); !sent) return sent;
  const auto ready = answer(deadline);
  if (!ready) return Unexpected{ready.error()};
  if (*ready != "OK") return errno_error(EPROTO);
  return engine_->send("INFO goal " + std::to_string(rules().goal()) + "\n", deadline);
}

Result<int> ExternalAgent::ask(const Position& position, const Budget& budget) {
  if (!engine_) {
    if (const auto started = start(budget); !started) return Unexpected{started.error()};
  }
  const auto time = tighter(tighter(own_, budget), {timeout_, 0}).time;
  const Deadline deadline(time + kGrace, budget.stop);
  if (const auto sent = engine_->send(question(position, time), deadline); !sent) {
    return Unexpected{sent.error()};
  }
  const auto said = answer(deadline);
  if (!said) return Unexpected{said.error()};
  return cell_of(*said);
}

std::string ExternalAgent::question(const Position& position, std::chrono::nanoseconds time) const {
  const auto ms = std::chrono::ceil<milliseconds>(time).count();
  std::string text = "INFO timeout_turn " + std::to_string(ms) + "\nBOARD\n";
  const Cells mine = position.of(position.to_move());
  for (Cells rest = position.taken(); rest != 0; rest &= rest - 1) {
    const int cell = std::countr_zero(rest);
    text += std::to_string(cell % rules().width()) + "," + std::to_string(cell / rules().width()) +
            ((mine & cell_bit(cell)) != 0 ? ",1\n" : ",2\n");
  }
  return text + "DONE\n";
}

/// The engine's next line that is not for people.
Result<std::string> ExternalAgent::answer(const Deadline& deadline) {
  for (;;) {
    auto line = engine_->receive(deadline);
    if (!line) return line;
    if (!line->starts_with("MESSAGE") && !line->starts_with("DEBUG") && !line->empty()) return line;
  }
}

/// -1 when `text` is no cell of the board.
int ExternalAgent::cell_of(std::string_view text) const noexcept {
  int column = -1, row = -1;
  const char* const end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, column);
  if (first.ec != std::errc() || first.ptr == end || *first.ptr != ',') return -1;
  const auto second = std::from_chars(first.ptr + 1, end, row);
  if (second.ec != std::errc() || second.ptr != end) return -1;
  const bool on_board =
      column >= 0 && column < rules().width() && row >= 0 && row < rules().height();
  return on_board ? row * rules().width() + column : -1;
}

}  // namespace

Result<std::unique_ptr<Agent>, std::string> make_external_agent(const Rules& rules,
                                                                AgentOptions& options) {
  std::string command = options.text("command", "");
  auto agent = std::make_unique<ExternalAgent>(rules, command, options);
  if (command.empty())
    return Unexpected{std::string("it needs a program: external:command=PROGRAM")};
  return std::unique_ptr<Agent>(std::move(agent));
}

}  // namespace tandem::kxo::detail
