// SPDX-License-Identifier: Apache-2.0
/// WarpDrive for C++: queues, operations and results over wd.h.
///
///     auto q = tandem::wd::open("gzip").value();
///     auto n = q.run(tandem::wd::Gzip{out, in});     // Result<Done, Error>
///
/// Operations are aggregates over memory; any pointer works, reserved memory only removes faults
/// and copies. A Queue is move-only and belongs to one thread at a time, and so do the Ops it
/// handed out. Header-only over the C ABI. Nothing here throws, but for std::bad_alloc while
/// opening a queue, making a batch or listing devices.
///
/// Fork: a child may go on with a Queue; Ops that were pending are the parent's and end here with
/// Code::kDeviceLost.
#pragma once

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <memory_resource>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "tandem/base/result.hpp"
#include "tandem/wd/wd.h"

namespace tandem::wd {

/// Where operations run.
enum class Path : std::uint32_t {
  kAuto = WD_PATH_AUTO,
  kBroker = WD_PATH_BROKER,
  kEmbedded = WD_PATH_EMBEDDED,
  kInline = WD_PATH_INLINE,
};

enum class Code : std::uint8_t {
  kBusy,         ///< queue full; finish something first
  kDeadline,     ///< not done in time; the operation goes on
  kCancelled,    ///< withdrawn before it ran
  kDeviceLost,   ///< the queue died, or the operation was sent by the parent of a fork
  kFault,        ///< fault_address cannot be accessed
  kDenied,       ///< the broker is not to be trusted, or refuses
  kShortOutput,  ///< no room in the output
  kCorrupt,      ///< input is not what its format says
  kTruncated,    ///< input ends too early
  kUnsupported,  ///< the device does not have this operation
  kInvalid,      ///< parameters that mean nothing
  kNoDevice,     ///< no device has the algorithm
  kNoMemory,     ///< memory, reserved memory or descriptors ran out
  kSystem,       ///< the errno is in `hint`'s text
  kUnknownId,    ///< kxo: not a user of this queue
  kWrongTurn,    ///< kxo: it is not the turn of a player whom the client moves
  kIllegalCell,  ///< kxo: taken, or not on the board
};

struct Error {
  Code code = Code::kSystem;
  std::size_t done_bytes = 0;       ///< done before it ended
  std::uint64_t fault_address = 0;  ///< with kFault
  const char* hint = "";            ///< what went wrong and what to do; static

  static Error from_errno(int negative_errno) {
    Error error{Code::kSystem, 0, 0, wd_strerror(negative_errno)};
    switch (-negative_errno) {
      case EBUSY:
      case EAGAIN:
        error.code = Code::kBusy;
        break;
      case ETIMEDOUT:
        error.code = Code::kDeadline;
        break;
      case ESHUTDOWN:
      case ENOMSG:
        error.code = Code::kDeviceLost;
        break;
      case EACCES:
      case EPERM:
        error.code = Code::kDenied;
        break;
      case EINVAL:
        error.code = Code::kInvalid;
        break;
      case ENODEV:
      case ECONNREFUSED:
        error.code = Code::kNoDevice;
        break;
      case ENOMEM:
      case EMFILE:
      case ENOSPC:
        error.code = Code::kNoMemory;
        break;
      default:
        break;
    }
    return error;
  }

  static Error from_request(const wd_request& request) {
    Error error{Code::kSystem, request.done, request.fault_address, wd_strstatus(request.status)};
    switch (request.status) {
      case TANDEM_STATUS_FAULT:
        error.code = Code::kFault;
        break;
      case TANDEM_STATUS_UNKNOWN_OPCODE:
        error.code = Code::kUnsupported;
        break;
      case TANDEM_STATUS_BAD_DESCRIPTOR:
      case TANDEM_STATUS_BAD_RANGE:
        error.code = Code::kInvalid;
        break;
      case TANDEM_STATUS_OUTPUT_TOO_SMALL:
        error.code = Code::kShortOutput;
        break;
      case TANDEM_STATUS_CORRUPT_INPUT:
        error.code = Code::kCorrupt;
        break;
      case TANDEM_STATUS_TRUNCATED_INPUT:
        error.code = Code::kTruncated;
        break;
      case TANDEM_STATUS_NEEDS_STAGING:
        error.code = Code::kNoMemory;
        break;
      case TANDEM_STATUS_CANCELLED:
        error.code = Code::kCancelled;
        break;
      case TANDEM_STATUS_DEVICE_LOST:
        error.code = Code::kDeviceLost;
        break;
      case TANDEM_STATUS_UNKNOWN_ID:
        error.code = Code::kUnknownId;
        break;
      case TANDEM_STATUS_WRONG_TURN:
        error.code = Code::kWrongTurn;
        break;
      case TANDEM_STATUS_ILLEGAL_CELL:
        error.code = Code::kIllegalCell;
        break;
      case TANDEM_STATUS_UNKNOWN_AGENT:
        error.code = Code::kUnsupported;
        break;
      case TANDEM_STATUS_NO_ROOM:
        error.code = Code::kNoMemory;
        break;
      case TANDEM_STATUS_WOULD_BLOCK:
        error.code = Code::kBusy;
        break;
      default:
        break;
    }
    return error;
  }
};

/// What an operation came to.
struct Done {
  std::size_t value = 0;     ///< bytes produced; operations without output: bytes read
  std::uint64_t result = 0;  ///< checksum, offset of a difference, …: see enum tandem_opcode
  Path path = Path::kAuto;   ///< where it ran
  std::string_view device;   ///< on which device; lives as long as the queue
  bool zero_copy = false;    ///< all operands were reached in place
  bool stream_end = false;   ///< a stream came to its end
};

/// Memory to read: any contiguous range of plain data.
class In {
 public:
  In() = default;
  In(const void* data, std::size_t size_bytes) : data_(data), size_bytes_(size_bytes) {}
  template <std::ranges::contiguous_range R>
  requires(
      std::ranges::sized_range<R>&& std::is_trivially_copyable_v<std::ranges::range_value_t<R>>)
      In(const R& range)
      : In(std::ranges::data(range),
           std::ranges::size(range) * sizeof(std::ranges::range_value_t<R>)) {}
  const void* data() const { return data_; }
  std::size_t size() const { return size_bytes_; }

 private:
  const void* data_ = nullptr;
  std::size_t size_bytes_ = 0;
};

/// Memory to write: any contiguous range of plain data.
class Out {
 public:
  Out() = default;
  Out(void* data, std::size_t size_bytes) : data_(data), size_bytes_(size_bytes) {}
  template <std::ranges::contiguous_range R>
  requires(
      std::ranges::sized_range<R>&& std::is_trivially_copyable_v<std::ranges::range_value_t<R>> &&
      !std::is_const_v<std::remove_reference_t<std::ranges::range_reference_t<R>>>)
      Out(R&& range)  // NOLINT(bugprone-forwarding-reference-overload): constrained to ranges
      : Out(std::ranges::data(range),
            std::ranges::size(range) * sizeof(std::ranges::range_value_t<R>)) {}
  void* data() const { return data_; }
  std::size_t size() const { return size_bytes_; }

 private:
  void* data_ = nullptr;
  std::size_t size_bytes_ = 0;
};

namespace detail {

/// The request for an operation; nothing when a length does not fit into it.
inline std::optional<wd_request> make_request(std::uint16_t opcode, Out dst, In src,
                                              std::uint32_t param = 0, std::uint64_t operand = 0) {
  constexpr std::size_t kMost = std::numeric_limits<std::uint32_t>::max();
  if (src.size() > kMost || dst.size() > kMost) return std::nullopt;
  wd_request request{};
  request.opcode = opcode;
  request.param = param;
  request.src = src.data();
  request.dst = dst.data();
  request.src_len = static_cast<std::uint32_t>(src.size());
  request.dst_len = static_cast<std::uint32_t>(dst.size());
  request.operand = operand;
  return request;
}

}  // namespace detail

/// The operations. kAlgorithm: what a queue that can run it is opened for.
struct Nop {
  static constexpr const char* kAlgorithm = "memory";
  std::optional<wd_request> request() const { return detail::make_request(WD_OP_NOP, {}, {}); }
};
/// dst ← src; dst may be longer.
struct Copy {
  static constexpr const char* kAlgorithm = "memory";
  Out dst;
  In src;
  std::optional<wd_request> request() const { return detail::make_request(WD_OP_COPY, dst, src); }
};
/// dst ← the pattern's eight bytes, again and again.
struct Fill {
  static constexpr const char* kAlgorithm = "memory";
  Out dst;
  std::uint64_t pattern = 0;
  std::optional<wd_request> request() const {
    return detail::make_request(WD_OP_FILL, dst, {}, 0, pattern);
  }
};
/// Done::result: offset of the first difference, or the length when there is none.
struct Compare {
  static constexpr const char* kAlgorithm = "memory";
  In a, b;
  std::optional<wd_request> request() const {
    // The operation reads what its descriptor calls dst.
    return detail::make_request(WD_OP_COMPARE, Out(const_cast<void*>(b.data()), b.size()), a);
  }
};
/// Done::result: CRC-32C of src, going on from `seed`.
struct Crc32c {
  static constexpr const char* kAlgorithm = "memory";
  In src;
  std::uint32_t seed = 0;
  std::optional<wd_request> request() const {
    return detail::make_request(WD_OP_CRC32C, {}, src, 0, seed);
  }
};

/// Compression: Done::value bytes stand in dst; tandem_compress_bound() tells how many may.
template <std::uint16_t kOpcode>
struct Compress {
  static constexpr const char* kAlgorithm = "deflate";
  Out dst;
  In src;
  std::uint32_t level = 0;  ///< 0: the default
  std::optional<wd_request> request() const {
    return detail::make_request(kOpcode, dst, src, level);
  }
};
struct Deflate : Compress<WD_OP_DEFLATE> {};
struct Zlib : Compress<WD_OP_ZLIB> {};
struct Gzip : Compress<WD_OP_GZIP> {};

/// Decompression of one member: Done::value bytes stand in dst, Done::result of src were read.
template <std::uint16_t kOpcode>
struct Decompress {
  static constexpr const char* kAlgorithm = "deflate";
  Out dst;
  In src;
  std::optional<wd_request> request() const { return detail::make_request(kOpcode, dst, src); }
};
struct Inflate : Decompress<WD_OP_INFLATE> {};
struct ZlibInflate : Decompress<WD_OP_ZLIB_INFLATE> {};
struct GzipInflate : Decompress<WD_OP_GZIP_INFLATE> {};

template <class T>
concept Operation = requires(const T& operation) {
  { operation.request() } -> std::same_as<std::optional<wd_request>>;
  { T::kAlgorithm } -> std::convertible_to<const char*>;
};

namespace detail {

/// One struct wd_queue and the slots of the operations on it. Shared, without atomics, by the Queue
/// and its Ops: they belong to one thread at a time.
class Channel {
 public:
  enum class State : std::uint8_t { kFree, kPending, kDone };
  struct Slot {
    wd_request request{};
    State state = State::kFree;
    Slot* next = nullptr;  // in the list of free ones, or of those whose waiter is to be called
    void (*call)(void*) = nullptr;  // the waiter: what poll_and_call() calls when it is done
    void* argument = nullptr;
  };

  /// Returns nullptr and sets `error` on failure.
  static Channel* open(const char* algorithm, Path path, std::uint32_t depth, int& error) {
    auto channel = std::make_unique<Channel>();
    channel->queue_.algorithm = algorithm;
    channel->queue_.path = static_cast<std::uint32_t>(path);
    channel->queue_.depth = depth;
    error = wd_request_queue(&channel->queue_);
    if (error != 0) return nullptr;
    channel->slots_ = std::vector<Slot>(channel->queue_.depth);
    for (Slot& slot : channel->slots_) channel->give_back(&slot);
    return channel.release();
  }
  Channel() = default;
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;
  ~Channel() { wd_release_queue(&queue_); }

  void add_reference() { ++references_; }
  void drop_reference() {
    if (--references_ == 0) delete this;
  }

  wd_queue& queue() { return queue_; }
  Path path() const { return static_cast<Path>(queue_.path); }

  Slot* take(const wd_request& request) {
    Slot* const slot = free_;
    if (slot == nullptr) return nullptr;
    free_ = slot->next;
    slot->request = request;
    return slot;
  }
  void give_back(Slot* slot) {
    slot->state = State::kFree;
    slot->next = free_;
    free_ = slot;
  }

  int poll(int most) {
    int received = 0;
    for (wd_request* got = nullptr; received < most && wd_recv(&queue_, &got) == 1; ++received) {
      finish(got);
    }
    return received;
  }
  /// Also calls who waits for what is done by now, in that order. Returns how many were received.
  int poll_and_call(int most) {
    const int received = poll(most);
    if (waiters_ != 0 && wd_in_flight(&queue_) == 0) lose_pending();
    while (to_call_ != nullptr) {
      Slot* const slot = to_call_;
      to_call_ = slot->next;
      --waiters_;
      std::exchange(slot->call, nullptr)(slot->argument);
    }
    return received;
  }
  /// Whether there is something for poll_and_call() to do; if not, fd() tells when there is.
  bool arm() { return to_call_ != nullptr || wd_arm(&queue_) != 0; }
  void set_waiter(Slot& slot, void (*call)(void*), void* argument) {
    forget_waiter(slot);
    slot.call = call;
    slot.argument = argument;
    ++waiters_;
  }
  /// Nobody waits for `slot` any more.
  void forget_waiter(Slot& slot) {
    if (slot.call == nullptr) return;
    slot.call = nullptr;
    --waiters_;
    for (Slot** at = &to_call_; *at != nullptr; at = &(*at)->next) {
      if (*at == &slot) {
        *at = slot.next;
        return;
      }
    }
  }
  /// Waits until `slot` is done.
  void settle(Slot& slot) {
    while (slot.state == State::kPending) {
      wd_request* got = nullptr;
      if (wd_in_flight(&queue_) != 0 && wd_recv_sync(&queue_, &got) == 1) {
        finish(got);
      } else {
        lose_pending();
      }
    }
  }
  /// Nothing is in flight any more: what is still pending was another process's, or a dead queue's.
  void lose_pending() {
    for (Slot& slot : slots_) {
      if (slot.state != State::kPending) continue;
      slot.request.status = TANDEM_STATUS_DEVICE_LOST;
      slot.request.done = 0;
      slot.request.fault_address = 0;
      slot.request.opaque[0] = 0;
      finish(slot);
    }
  }
  /// Like settle(), until `deadline`. Returns whether the slot is done.
  bool settle_until(Slot& slot, std::chrono::steady_clock::time_point deadline) {
    while (slot.state == State::kPending) {
      if (wd_in_flight(&queue_) == 0) lose_pending();
      if (poll(1) != 0) continue;
      const auto left = deadline - std::chrono::steady_clock::now();
      if (left <= left.zero()) return false;
      if (wd_arm(&queue_) != 0) continue;
      pollfd event{wd_fd(&queue_), POLLIN, 0};
      const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
      (void)::poll(&event, 1, static_cast<int>(std::min<std::int64_t>(ms, 1000)));
    }
    return true;
  }

  Result<Done, Error> outcome(const Slot& slot) const {
    const wd_request& request = slot.request;
    if (request.status != TANDEM_STATUS_OK) return Unexpected{Error::from_request(request)};
    return Done{request.done,
                request.result,
                path(),
                queue_.device,
                (request.result_flags & TANDEM_CPL_ZERO_COPY) != 0,
                (request.result_flags & TANDEM_CPL_STREAM_END) != 0};
  }

 private:
  void finish(wd_request* request) {
    static_assert(std::is_standard_layout_v<Slot>);  // the request is the slot's first member
    finish(*reinterpret_cast<Slot*>(request));
  }
  void finish(Slot& slot) {
    slot.state = State::kDone;
    if (slot.call == nullptr) return;
    Slot** end = &to_call_;
    while (*end != nullptr) end = &(*end)->next;
    slot.next = nullptr;
    *end = &slot;
  }

  wd_queue queue_ = WD_QUEUE_INIT;
  std::vector<Slot> slots_;
  Slot* free_ = nullptr;
  Slot* to_call_ = nullptr;  // done, in that order
  unsigned waiters_ = 0;     // slots with a waiter
  unsigned references_ = 1;
};

/// Counts a reference to a Channel.
class ChannelRef {
 public:
  ChannelRef() = default;
  explicit ChannelRef(Channel* owned) : channel_(owned) {}
  ChannelRef(const ChannelRef& other) : channel_(other.channel_) {
    if (channel_ != nullptr) channel_->add_reference();
  }
  ChannelRef(ChannelRef&& other) noexcept : channel_(std::exchange(other.channel_, nullptr)) {}
  ChannelRef& operator=(ChannelRef other) noexcept {
    std::swap(channel_, other.channel_);
    return *this;
  }
  ~ChannelRef() {
    if (channel_ != nullptr) channel_->drop_reference();
  }
  Channel* operator->() const { return channel_; }
  explicit operator bool() const { return channel_ != nullptr; }

 private:
  Channel* channel_ = nullptr;
};

}  // namespace detail

/// A submitted operation. Its buffers must live until it is done; destroying a pending one waits.
///
/// Thread safety: belongs to the thread of its Queue. Allocates nothing.
class [[nodiscard]] Op {
 public:
  Op(Op&& other) noexcept
      : channel_(std::move(other.channel_)),
        slot_(std::exchange(other.slot_, nullptr)),
        error_(other.error_) {}
  Op& operator=(Op&& other) noexcept {
    finish();
    channel_ = std::move(other.channel_);
    slot_ = std::exchange(other.slot_, nullptr);
    error_ = other.error_;
    return *this;
  }
  ~Op() { finish(); }

  /// Whether get() would not wait.
  bool ready() {
    if (slot_ == nullptr) return true;
    if (pending()) {
      (void)channel_->poll(std::numeric_limits<int>::max());
      if (wd_in_flight(&channel_->queue()) == 0) channel_->lose_pending();
    }
    return !pending();
  }
  /// Waits for the result. The same however often it is asked for.
  Result<Done, Error> get() {
    if (slot_ == nullptr) return Unexpected{error_};
    channel_->settle(*slot_);
    return channel_->outcome(*slot_);
  }
  /// Waits until `deadline`; Code::kDeadline when it is not done by then: it goes on, ask again.
  Result<Done, Error> get_until(std::chrono::steady_clock::time_point deadline) {
    if (slot_ != nullptr && !channel_->settle_until(*slot_, deadline)) {
      return Unexpected{Error{Code::kDeadline, 0, 0,
                              "not done in time; the operation goes on: wait again or cancel()"}};
    }
    return get();
  }
  /// Has Queue::poll() call `call(argument)` once when it is done; false, and no call, when it is
  /// already. For adapters to whatever runs the program: see coroutine.hpp.
  bool call_when_done(void (*call)(void*), void* argument) {
    if (ready()) return false;
    channel_->set_waiter(*slot_, call, argument);
    return true;
  }
  /// Tries to withdraw it. Returns whether the attempt was in time to be made; get() then says
  /// Code::kCancelled, or the result when the engine was faster.
  bool cancel() {
    return slot_ != nullptr && pending() && wd_cancel(&channel_->queue(), &slot_->request) == 0;
  }

 private:
  friend class Queue;
  friend class Batch;
  explicit Op(Error error) : error_(error) {}
  Op(detail::ChannelRef channel, detail::Channel::Slot* slot)
      : channel_(std::move(channel)), slot_(slot) {}

  bool pending() const { return slot_->state == detail::Channel::State::kPending; }
  void finish() {
    if (slot_ == nullptr) return;
    channel_->forget_waiter(*slot_);
    channel_->settle(*slot_);
    channel_->give_back(slot_);
    slot_ = nullptr;
  }

  detail::ChannelRef channel_;
  detail::Channel::Slot* slot_ = nullptr;  // nullptr: error_ is the result
  Error error_;
};

/// Operations that one doorbell submits together.
class Batch {
 public:
  template <Operation T>
  Batch& add(const T& operation) {
    requests_.push_back(operation.request());
    return *this;
  }
  std::size_t size() const { return requests_.size(); }

  /// Submits them, in order, and starts anew. What was not taken ends with Code::kBusy or why.
  std::vector<Op> submit() {
    std::vector<Op> ops;
    std::vector<wd_request*> to_send;
    ops.reserve(requests_.size());
    to_send.reserve(requests_.size());
    for (const auto& request : requests_) {
      detail::Channel::Slot* const slot = request ? channel_->take(*request) : nullptr;
      if (slot == nullptr) {
        ops.push_back(Op(Error::from_errno(request ? -EBUSY : -EINVAL)));
      } else {
        to_send.push_back(&slot->request);
        ops.push_back(Op(channel_, slot));
      }
    }
    const int sent =
        wd_send_batch(&channel_->queue(), to_send.data(), static_cast<unsigned>(to_send.size()));
    std::size_t taken = sent < 0 ? 0 : static_cast<std::size_t>(sent);
    for (Op& op : ops) {
      if (op.slot_ == nullptr) continue;
      if (taken != 0) {
        op.slot_->state = detail::Channel::State::kPending;
        --taken;
      } else {
        channel_->give_back(std::exchange(op.slot_, nullptr));
        op.error_ = Error::from_errno(sent < 0 ? sent : -EBUSY);
      }
    }
    requests_.clear();
    return ops;
  }

 private:
  friend class Queue;
  explicit Batch(detail::ChannelRef channel) : channel_(std::move(channel)) {}
  detail::ChannelRef channel_;
  std::vector<std::optional<wd_request>> requests_;
};

/// Reserved memory: engines reach it without copies. Given back by the destructor, when no engine
/// reaches it any more. Fork: not inherited; a child must not touch the memory, and destroying the
/// object there does nothing.
class Reserved {
 public:
  Reserved(Reserved&& other) noexcept
      : channel_(std::move(other.channel_)),
        bytes_(std::exchange(other.bytes_, {})),
        id_(other.id_),
        resource_(std::move(other.resource_)) {}
  Reserved& operator=(Reserved&& other) noexcept {
    std::swap(channel_, other.channel_);
    std::swap(bytes_, other.bytes_);
    std::swap(id_, other.id_);
    std::swap(resource_, other.resource_);
    return *this;
  }
  ~Reserved() {
    // What starts there may be another reservation by now: that of a forked child.
    if (bytes_.data() == nullptr || wd_memory_id(bytes_.data()) != id_) return;
    (void)wd_release_memory(&channel_->queue(), bytes_.data());
  }

  std::span<std::byte> bytes() const { return bytes_; }
  /// Allocates from it, from the start, and frees nothing before the end; std::bad_alloc when full.
  std::pmr::memory_resource* resource() {
    if (!resource_) {
      resource_ = std::make_unique<std::pmr::monotonic_buffer_resource>(
          bytes_.data(), bytes_.size(), std::pmr::null_memory_resource());
    }
    return resource_.get();
  }

 private:
  friend class Queue;
  Reserved(detail::ChannelRef channel, std::span<std::byte> bytes)
      : channel_(std::move(channel)), bytes_(bytes), id_(wd_memory_id(bytes.data())) {}
  detail::ChannelRef channel_;
  std::span<std::byte> bytes_;
  std::uint64_t id_ = 0;  // which reservation
  std::unique_ptr<std::pmr::monotonic_buffer_resource> resource_;
};

struct Options {
  Path path = Path::kAuto;
  std::uint32_t depth = 0;       ///< operations at once, a power of two; 0: 256
  std::size_t inline_below = 0;  ///< operations on fewer input bytes run in the caller, if they can
};

/// A queue: one device, one thread at a time.
class Queue {
 public:
  /// Errors: kNoDevice, kDenied, kNoMemory, kInvalid.
  static Result<Queue, Error> open(const char* algorithm, const Options& options = {}) {
    int error = 0;
    detail::ChannelRef main(detail::Channel::open(algorithm, options.path, options.depth, error));
    if (!main) return Unexpected{Error::from_errno(error)};
    Queue queue(std::move(main));
    if (options.inline_below != 0 && queue.main_->path() != Path::kInline) {
      queue.inline_ =
          detail::ChannelRef(detail::Channel::open(algorithm, Path::kInline, options.depth, error));
      if (queue.inline_) queue.inline_below_ = options.inline_below;
    }
    return queue;
  }

  /// Runs `operation` and waits for it.
  template <Operation T>
  Result<Done, Error> run(const T& operation) {
    return submit(operation).get();
  }

  /// Starts `operation`; never waits. When it cannot be started the Op is ready and says why.
  template <Operation T>
  Op submit(const T& operation) {
    const auto request = operation.request();
    if (!request) return Op(Error::from_errno(-EINVAL));
    detail::ChannelRef& channel = channel_for(request->src_len);
    detail::Channel::Slot* const slot = channel->take(*request);
    if (slot == nullptr) return Op(Error::from_errno(-EBUSY));
    if (const int sent = wd_send(&channel->queue(), &slot->request); sent != 0) {
      channel->give_back(slot);
      return Op(Error::from_errno(sent));
    }
    slot->state = detail::Channel::State::kPending;
    return Op(channel, slot);
  }

  Batch make_batch() { return Batch(main_); }

  /// Errors: kNoMemory, kInvalid for zero bytes.
  Result<Reserved, Error> reserve(std::size_t size_bytes) {
    void* const memory = wd_reserve_memory(&main_->queue(), size_bytes);
    if (memory == nullptr) return Unexpected{Error::from_errno(-errno)};
    return Reserved(main_, {static_cast<std::byte*>(memory), size_bytes});
  }

  /// For event loops: a descriptor that is readable after arm() once something is done. When arm()
  /// says true, something is done already. poll() then finishes at most `most` operations, and
  /// goes on with coroutines that await them. Returns how many it finished.
  int fd() { return wd_fd(&main_->queue()); }
  bool arm() { return inline_waits() || main_->arm(); }
  int poll(int most) {
    const detail::ChannelRef main(main_), small(inline_);  // who is called may end the queue
    const int finished = main->poll_and_call(most);
    return small ? finished + small->poll_and_call(most) : finished;
  }
  /// Operations started and not finished.
  unsigned in_flight() {
    return wd_in_flight(&main_->queue()) + (inline_ ? wd_in_flight(&inline_->queue()) : 0);
  }

  /// Opens it again after Code::kDeviceLost, with the same parameters.
  Result<void, Error> reopen() {
    const int error = wd_reinit(&main_->queue());
    if (error != 0) return Unexpected{Error::from_errno(error)};
    main_->lose_pending();
    return {};
  }

  Path path() const { return main_->path(); }
  std::string_view device() const { return main_->queue().device; }
  /// For calls of wd.h that are not here.
  wd_queue& c_queue() { return main_->queue(); }

 private:
  explicit Queue(detail::ChannelRef main) : main_(std::move(main)) {}
  detail::ChannelRef& channel_for(std::size_t size_bytes) {
    return size_bytes < inline_below_ ? inline_ : main_;
  }
  /// What runs in the caller is run by poll(), not by waiting for the descriptor.
  bool inline_waits() {
    return inline_ && (wd_in_flight(&inline_->queue()) != 0 || inline_->arm());
  }

  detail::ChannelRef main_, inline_;
  std::size_t inline_below_ = 0;
};

/// Opens a queue for `algorithm`, or on the device of that name.
inline Result<Queue, Error> open(const char* algorithm, const Options& options = {}) {
  return Queue::open(algorithm, options);
}

/// Runs `operation` on this thread's own queue, which the first call opens.
template <Operation T>
Result<Done, Error> run(const T& operation) {
  struct Entry {
    std::string_view algorithm;
    Queue queue;
  };
  thread_local std::vector<Entry> queues;
  auto entry = std::ranges::find(queues, std::string_view(T::kAlgorithm), &Entry::algorithm);
  if (entry == queues.end()) {
    auto opened = Queue::open(T::kAlgorithm);
    if (!opened) return Unexpected{opened.error()};
    queues.push_back({T::kAlgorithm, std::move(*opened)});
    entry = std::prev(queues.end());
  }
  auto result = entry->queue.run(operation);
  if (!result && result.error().code == Code::kDeviceLost) {
    queues.erase(entry);  // the next call finds a device again, if there is one
  }
  return result;
}

}  // namespace tandem::wd
