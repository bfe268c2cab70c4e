// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "tandem/abi/ring.h"
#include "tandem/base/mapping.hpp"
#include "tandem/wd/detail/process.hpp"
#include "tandem/wd/detail/staging.hpp"
#include "tandem/wd/wd.h"

namespace tandem::wd::detail {

/// What a queue was opened with: a forked child opens it so again.
struct Parameters {
  std::string algorithm;
  std::uint32_t depth = TANDEM_DEFAULT_DEPTH;
  Route route;
};

/// What stands behind one struct wd_queue: the client's side of a queue's rings.
///
/// The shared regions are written by an engine that need not be honest. Everything that decides is
/// private: how many were submitted and completed, and which request stands in which slot. A
/// completion's tag must be the number of the oldest submission without one, since an engine
/// completes in order; any other, like a state other than ALIVE, ends the queue: what is in flight
/// then comes back once each with DEVICE_LOST.
///
/// A request is in one of: free → (send) submitted → (completion) free, with two detours: submitted
/// → (NEEDS_STAGING) submitted again with its operands in reserved memory; and submitted → ready →
/// free, when flush() or arm() took the completion before anybody received it. `in_flight` counts
/// all but free and never exceeds `depth`, so neither ring nor the ready list can overflow.
///
/// Thread safety: one thread at a time.
/// Ordering: (T) the tail is stored with release after the descriptors; pairs with the engine's
///           acquire load of it. (C) the last word of a completion is loaded with acquire before
///           the others; pairs with the engine's release store of it. (S) `state` is loaded with
///           acquire before the ring is looked at for the last time; pairs with the engine's
///           release store after its last completion. (P) tail store, full fence, load of `parked`;
///           pairs with the engine's store of `parked`, full fence, load of the tail: one of us
///           sees the other. (W) store of `waiting`, full fence, look at the ring; pairs with the
///           engine's completion, full fence, load of `waiting`.
class alignas(64) Context {
 public:
  static Result<std::unique_ptr<Context>> open(Process& process, Parameters parameters);
  ~Context();

  /// Whether this is still the process that opened it. One load.
  bool ours() const noexcept { return word_->is(generation_); }

  const Parameters& parameters() const { return parameters_; }
  const std::shared_ptr<Connection>& connection() { return connection_; }
  const tandem_open_reply& granted() const { return granted_; }
  std::uint32_t depth() const { return depth_; }
  std::uint32_t in_flight() const { return in_flight_; }
  int holds() const { return holds_; }

  int send(wd_request* const* requests, unsigned count);
  int receive(wd_request** request);
  int receive_batch(wd_request** requests, unsigned capacity);
  int receive_sync(wd_request** request);
  void flush();
  int cancel(const wd_request& request);
  int hold(bool keep_awake);
  int event_descriptor();
  int arm();

 private:
  Context(Process& process, Parameters parameters, std::shared_ptr<Connection> connection);
  Result<void> set_up();

  std::uint32_t outstanding() const { return static_cast<std::uint32_t>(submitted_ - completed_); }
  bool accepts(wd_request& request);
  bool in_flight_elsewhere(const wd_request& request);
  void write_descriptor(wd_request& request, const StagedRequest* staged);
  /// Submits requests up to the first about which there is something special: the loop that has to
  /// be quick. Returns how many.
  unsigned submit_plain(wd_request* const* requests, unsigned count);
  /// Submits any request. Returns 0 or a negative errno, with nothing done.
  int submit(wd_request* request);
  void ring_doorbell();
  /// Stages and submits; returns 0 or a negative errno, with nothing done.
  int send_staged(wd_request& request);
  bool needs_staging_at_once(const wd_request& request);

  /// Receives requests up to the first that did not simply succeed: the loop that has to be quick.
  /// Returns how many.
  unsigned reap_plain(wd_request** requests, unsigned capacity);
  /// The next completed request, or nullptr when there is none.
  wd_request* reap();
  /// Handles what is not a plain completion: staging. Returns whether the request is finished.
  bool finish_detour(wd_request& request, tandem_completion& completion);
  wd_request* reap_lost();
  /// Like reap(), but runs the engine first when it has no thread, and notices a dead queue.
  wd_request* reap_thoroughly();
  wd_request* pop_ready();
  void push_ready(wd_request& request);
  int deliver(wd_request* request, wd_request** out);
  bool await_engine();
  bool completion_waits() const;
  bool died();
  void sleep_until_something_happens();
  bool spin();
  void learn(std::chrono::nanoseconds gap);

  std::uint32_t load_state() const;
  void store_waiting(std::uint32_t value);

  // The fast path, in two cache lines.
  const GenerationWord* word_;
  tandem_doorbell* doorbell_ = nullptr;
  tandem_descriptor* descriptors_ = nullptr;
  tandem_completion* completions_ = nullptr;
  std::unique_ptr<wd_request*[]> table_;  // by submission number & mask
  std::uint64_t submitted_ = 0;           // descriptors written since the start
  std::uint64_t completed_ = 0;           // completions taken since the start
  std::uint64_t serial_;
  std::uint32_t generation_;
  std::uint32_t mask_ = 0;
  std::uint32_t depth_ = 0;
  std::uint32_t in_flight_ = 0;
  std::uint32_t ready_count_ = 0;
  std::uint32_t empty_polls_ = 0;
  bool in_caller_ = false;
  bool stages_all_ = false;  // ordinary memory is out of reach
  bool dead_ = false;
  bool armed_ = false;
  bool streaming_ = false;  // a stream's request is in flight

  // The rest.
  Process& process_;
  const Parameters parameters_;
  const std::shared_ptr<Connection> connection_;
  Transport& transport_;
  tandem_open_reply granted_{};
  bool opened_ = false;
  Mapping doorbell_page_, rings_;
  std::unique_ptr<wd_request*[]> ready_;  // a ring of depth_ entries
  std::uint32_t ready_head_ = 0;
  ReservedView reserved_;
  StagingPool pool_;
  std::unordered_map<const wd_request*, StagedRequest> staging_;  // those that are staged now
  int holds_ = 0;
  bool can_spin_;
  std::chrono::nanoseconds usual_gap_{50'000};
  int event_ = -1, epoll_ = -1;  // the ledger's
};

}  // namespace tandem::wd::detail
