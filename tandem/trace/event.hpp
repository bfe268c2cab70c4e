// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

/// What trace points there are: their names, categories and arguments.
namespace tandem::trace {

/// Name in probes and listings, enumerator, category, phase, names of up to four arguments.
#define TANDEM_TRACE_EVENTS(X)                                                                 \
  X(queue_submit, kQueueSubmit, kQueue, kInstant, "queue", "tag", "", "")                      \
  X(queue_complete, kQueueComplete, kQueue, kInstant, "queue", "tag", "status", "")            \
  X(doorbell, kDoorbell, kQueue, kInstant, "queue", "tail", "", "")                            \
  X(wake, kWake, kQueue, kInstant, "queue", "tail", "", "")                                    \
  X(park, kPark, kQueue, kInstant, "queue", "pasid", "", "")                                   \
  X(unpark, kUnpark, kQueue, kInstant, "queue", "pasid", "", "")                               \
  X(wait_begin, kWaitBegin, kQueue, kBegin, "queue", "", "", "")                               \
  X(wait_end, kWaitEnd, kQueue, kEnd, "queue", "", "", "")                                     \
  X(wake_client, kWakeClient, kQueue, kInstant, "queue", "pasid", "how", "")                   \
  X(operation_begin, kOperationBegin, kEngine, kBegin, "queue", "opcode", "pasid", "device")   \
  X(operation_end, kOperationEnd, kEngine, kEnd, "queue", "tag", "status", "done")             \
  X(nop, kNop, kEngine, kInstant, "queue", "tag", "pasid", "")                                 \
  X(engine_given_up, kEngineGivenUp, kEngine, kInstant, "queue", "pasid", "", "")              \
  X(operation_fault, kOperationFault, kFault, kInstant, "pasid", "address", "queue", "opcode") \
  X(page_request, kPageRequest, kFault, kInstant, "pasid", "address", "group", "write")        \
  X(page_service_begin, kPageServiceBegin, kFault, kBegin, "pasid", "address", "write", "")    \
  X(page_service_end, kPageServiceEnd, kFault, kEnd, "pasid", "address", "code", "")           \
  X(page_response, kPageResponse, kFault, kInstant, "pasid", "code", "group", "")              \
  X(ats_invalidate, kAtsInvalidate, kFault, kInstant, "pasid", "address", "", "")              \
  X(pasid_bind, kPasidBind, kProcess, kInstant, "pasid", "pid", "", "")                        \
  X(pasid_unbind, kPasidUnbind, kProcess, kInstant, "pasid", "", "", "")                       \
  X(fork_rebind, kForkRebind, kProcess, kInstant, "queue", "generation", "", "")               \
  X(queue_death, kQueueDeath, kProcess, kInstant, "queue", "reason", "", "")                   \
  X(mark, kMark, kMark, kInstant, "", "", "", "") /* 32 bytes of text */                       \
  X(rcu_grace_period, kRcuGracePeriod, kRcu, kInstant, "domain", "bound", "", "")              \
  X(rcu_grace_period_end, kRcuGracePeriodEnd, kRcu, kInstant, "domain", "bound", "", "")       \
  X(rcu_callbacks, kRcuCallbacks, kRcu, kInstant, "domain", "queued words", "", "")            \
  X(rcu_stall, kRcuStall, kRcu, kInstant, "domain", "thread", "", "")                          \
  X(game_begun, kGameBegun, kKxo, kInstant, "board", "game", "players", "pasid")               \
  X(game_ended, kGameEnded, kKxo, kInstant, "board", "game", "winner", "moves")                \
  X(game_move, kGameMove, kKxo, kInstant, "board", "cell", "player", "number")                 \
  X(think_begin, kThinkBegin, kKxo, kBegin, "board", "player", "pasid", "move")                \
  X(think_end, kThinkEnd, kKxo, kEnd, "board", "cell", "", "")                                 \
  X(permission, kPermission, kKxo, kInstant, "board", "players", "pasid", "")                  \
  X(owner_gone, kOwnerGone, kKxo, kInstant, "owner", "boards", "", "")

enum class Event : std::uint16_t {
#define TANDEM_TRACE_ENUMERATOR(name, enumerator, ...) enumerator,
  TANDEM_TRACE_EVENTS(TANDEM_TRACE_ENUMERATOR)
#undef TANDEM_TRACE_ENUMERATOR
};

/// What is switched together; a bit of Categories.
enum class Category : std::uint32_t {
  kEngine = 1,   ///< operations, from the engine's side
  kQueue = 2,    ///< submissions, doorbells, completions, who sleeps and wakes
  kFault = 4,    ///< page requests and what becomes of them, refused operations, invalidations
  kProcess = 8,  ///< address spaces and queues that come and go
  kRcu = 16,     ///< grace periods and callbacks
  kMark = 32,    ///< what programs say with mark()
  kKxo = 64,     ///< games on the game device: moves, thinking agents, who may move
};

/// A set of them, as the sum of their values.
using Categories = std::uint32_t;
inline constexpr Categories kNoCategories = 0;
inline constexpr Categories kAllCategories = 127;

/// Whether an event stands for itself, or opens or closes a span of its thread's time.
enum class Phase : std::uint8_t { kInstant, kBegin, kEnd };

struct EventInfo {
  std::string_view name = "unknown";
  Category category = Category::kMark;
  Phase phase = Phase::kInstant;
  std::array<std::string_view, 4> arguments{};  ///< an empty name: there is none
};

/// What is known about `event`; the default EventInfo for a value that is none.
const EventInfo& event_info(Event event) noexcept;

/// "engine" for Category::kEngine; "unknown" for a value that is none.
std::string_view category_name(Category category) noexcept;

/// The set that a list like "engine,fault" names; "all" is all of them.
/// Returns: nothing if a name is none, or there is none.
std::optional<Categories> parse_categories(std::string_view list) noexcept;

}  // namespace tandem::trace
