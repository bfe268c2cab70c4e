// SPDX-License-Identifier: Apache-2.0
/// The C ABI: finds the context behind a queue, or makes this process's own, and calls it.
#include "tandem/wd/wd.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <new>
#include <string_view>

#include "tandem/trace/trace.hpp"
#include "tandem/wd/detail/context.hpp"
#include "tandem/wd/detail/process.hpp"
#include "tandem/wd/detail/route.hpp"

namespace {

using tandem::wd::detail::choose_routes;
using tandem::wd::detail::Context;
using tandem::wd::detail::Parameters;
using tandem::wd::detail::Process;
using tandem::wd::detail::Route;

/// What the first published structures had; later ones are longer.
constexpr std::size_t kFirstQueueSize = 128;
constexpr std::size_t kFirstDeviceSize = 504;
constexpr std::size_t kFirstStatsSize = 72;
static_assert(sizeof(wd_queue) >= kFirstQueueSize);
static_assert(sizeof(wd_device) >= kFirstDeviceSize);
static_assert(sizeof(wd_stats) >= kFirstStatsSize);

/// Fills a structure that the caller knows as `size` bytes long.
template <class T>
void put_sized(void* to, std::size_t size, const T& from) {
  const std::size_t known = std::min(size, sizeof from);
  std::memcpy(to, &from, known);
  std::memset(static_cast<std::byte*>(to) + known, 0, size - known);
}

/// Calls `body`; what it throws becomes a negative errno.
template <class Body>
int guarded(Body&& body) noexcept {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return -ENOMEM;
  } catch (...) {
    return -EIO;
  }
}

Context* raw_context(const wd_queue* q) { return reinterpret_cast<Context*>(q->opaque[0]); }

/// Copies with a terminator, cutting what does not fit.
template <std::size_t N>
void copy_text(char (&to)[N], const char* from) {
  const std::size_t length = ::strnlen(from, N - 1);
  std::memcpy(to, from, length);
  std::memset(to + length, 0, N - length);
}

void publish(wd_queue* q, std::unique_ptr<Context> context) {
  const tandem_open_reply& granted = context->granted();
  q->depth = granted.depth;
  q->path = context->parameters().route.path;
  q->device_flags = granted.device_flags;
  copy_text(q->device, granted.device);
  q->opaque[0] = reinterpret_cast<std::uint64_t>(context.release());
}

/// Opens what `old` had been opened with, and puts it in its place. `old` stays as it is.
int open_again(wd_queue* q, const Context& old) {
  auto process = Process::current();
  if (!process) return -process.error().value();
  auto fresh = Context::open(**process, old.parameters());
  if (!fresh) return -fresh.error().value();
  for (int hold = 0; hold < old.holds(); ++hold) {
    if (const int held = (*fresh)->hold(true); held != 0) return held;
  }
  TANDEM_TRACE(fork_rebind, (*fresh)->granted().queue, (*process)->generation());
  publish(q, std::move(*fresh));
  return 0;
}

int rebind(wd_queue* q) {
  const int result = open_again(q, *raw_context(q));
  if (result != 0) return result;
  if (auto process = Process::current()) {
    (*process)->rebinds.fetch_add(1, std::memory_order_relaxed);
  }
  return 0;
}

/// Calls `body` with the context of `q`, which in a forked child is made first.
template <class Body>
int with_context(wd_queue* q, Body&& body) noexcept {
  if (q == nullptr || raw_context(q) == nullptr) [[unlikely]]
    return -EINVAL;
  return guarded([&] {
    if (!raw_context(q)->ours()) [[unlikely]] {
      if (const int result = rebind(q); result != 0) return result;
    }
    return body(*raw_context(q));
  });
}

/// Whether another way may be tried: nobody there, not to be trusted, or without the algorithm.
bool may_go_on(int error) { return error == ECONNREFUSED || error == EACCES || error == ENODEV; }

/// Tries `attempt` along the routes for `path` until one succeeds. Returns its value or an error.
template <class Attempt>
int along_routes(std::uint32_t path, Attempt&& attempt) {
  auto routes = choose_routes(path);
  if (!routes) return -routes.error().value();
  bool refused = false;
  for (const Route& route : routes->candidates) {
    const int result = attempt(route);
    if (result >= 0 || routes->explicit_choice || !may_go_on(-result)) return result;
    refused = refused || result == -EACCES;
  }
  return refused ? -EACCES : -ENODEV;
}

int request_queue(wd_queue* q) {
  auto process = Process::current();
  if (!process) return -process.error().value();
  const std::uint32_t depth = q->depth == 0 ? TANDEM_DEFAULT_DEPTH : q->depth;
  return along_routes(q->path, [&](const Route& route) {
    auto context = Context::open(**process, Parameters{q->algorithm, depth, route});
    if (!context) return -context.error().value();
    publish(q, std::move(*context));
    return 0;
  });
}

wd_device describe(const tandem_devices_reply& from) {
  wd_device device{};
  copy_text(device.name, from.name);
  copy_text(device.api, from.api);
  copy_text(device.algorithms, from.algorithms);
  device.flags = from.flags;
  device.numa_node = from.numa_node;
  device.queues_max = from.queues_max;
  device.queues_used = from.queues_used;
  device.clients = from.clients;
  device.engines = from.engines;
  device.operations = from.operations;
  device.bytes = from.bytes;
  device.region_mmio_size = from.region_mmio_size;
  device.region_dus_size = from.region_dus_size;
  return device;
}

}  // namespace

extern "C" {

int wd_request_queue(wd_queue* q) noexcept {
  if (q == nullptr || q->size < kFirstQueueSize || q->algorithm == nullptr) return -EINVAL;
  const std::size_t length = ::strnlen(q->algorithm, TANDEM_NAME_SIZE);
  const bool depth_ok =
      q->depth == 0 || (std::has_single_bit(q->depth) && q->depth >= TANDEM_MIN_DEPTH &&
                        q->depth <= TANDEM_MAX_DEPTH);
  if (length == 0 || length >= TANDEM_NAME_SIZE || !depth_ok || raw_context(q) != nullptr) {
    return -EINVAL;
  }
  return guarded([q] { return request_queue(q); });
}

void wd_release_queue(wd_queue* q) noexcept {
  if (q == nullptr || raw_context(q) == nullptr) return;
  (void)guarded([q] {
    Context* const context = raw_context(q);
    q->opaque[0] = 0;
    if (context->ours()) {
      delete context;
    } else {
      // The parent's. Ours to let go of are the inherited descriptors, which this closes.
      (void)Process::current();
    }
    return 0;
  });
}

int wd_reinit(wd_queue* q) noexcept {
  if (q == nullptr || raw_context(q) == nullptr) return -EINVAL;
  return guarded([q] {
    Context* const old = raw_context(q);
    if (!old->ours()) return rebind(q);
    const int result = open_again(q, *old);
    if (result == 0) delete old;
    return result;
  });
}

int wd_send(wd_queue* q, wd_request* request) noexcept {
  const int sent = with_context(q, [&](Context& context) { return context.send(&request, 1); });
  return sent > 0 ? 0 : sent;
}

int wd_send_batch(wd_queue* q, wd_request* const* requests, unsigned count) noexcept {
  if (requests == nullptr && count != 0) return -EINVAL;
  return with_context(q, [&](Context& context) { return context.send(requests, count); });
}

int wd_recv(wd_queue* q, wd_request** request) noexcept {
  if (request == nullptr) return -EINVAL;
  return with_context(q, [&](Context& context) { return context.receive(request); });
}

int wd_recv_batch(wd_queue* q, wd_request** requests, unsigned capacity) noexcept {
  if (requests == nullptr || capacity == 0) return -EINVAL;
  return with_context(q,
                      [&](Context& context) { return context.receive_batch(requests, capacity); });
}

int wd_recv_sync(wd_queue* q, wd_request** request) noexcept {
  if (request == nullptr) return -EINVAL;
  return with_context(q, [&](Context& context) { return context.receive_sync(request); });
}

void wd_flush(wd_queue* q) noexcept {
  // Nothing that was sent before a fork is this process's to wait for.
  if (q == nullptr || raw_context(q) == nullptr || !raw_context(q)->ours()) return;
  (void)guarded([q] {
    raw_context(q)->flush();
    return 0;
  });
}

int wd_cancel(wd_queue* q, wd_request* request) noexcept {
  if (request == nullptr) return -EINVAL;
  return with_context(q, [&](Context& context) { return context.cancel(*request); });
}

void* wd_reserve_memory(wd_queue* q, size_t size) noexcept {
  void* memory = nullptr;
  const int result = with_context(q, [&](Context& context) {
    auto process = Process::current();
    if (!process) return -process.error().value();
    auto reserved = (*process)->reservations().reserve(context.connection(), size);
    if (!reserved) return -reserved.error().value();
    memory = *reserved;
    return 0;
  });
  if (result != 0) errno = -result;
  return memory;
}

int wd_release_memory(wd_queue* q, void* memory) noexcept {
  if (q == nullptr || raw_context(q) == nullptr) return -EINVAL;
  return guarded([memory] {
    // A forked child that has not used the library has nothing, and is not made to open anything.
    Process* const process = Process::existing();
    if (process == nullptr) return -EINVAL;
    auto released = process->reservations().release(memory);
    return released ? 0 : -released.error().value();
  });
}

uint64_t wd_memory_id(const void* memory) noexcept {
  Process* const process = Process::existing();
  return process == nullptr ? 0 : process->reservations().serial_at(memory);
}

int wd_share_reserved_memory(wd_queue* q, wd_queue* target) noexcept {
  // Reserved memory belongs to the address space: a queue of another path reaches it as it reaches
  // any other memory of this process.
  const auto nothing = [](Context&) { return 0; };
  const int result = with_context(q, nothing);
  return result != 0 ? result : with_context(target, nothing);
}

int wd_fd(wd_queue* q) noexcept {
  return with_context(q, [](Context& context) { return context.event_descriptor(); });
}

int wd_arm(wd_queue* q) noexcept {
  return with_context(q, [](Context& context) { return context.arm(); });
}

int wd_keep_awake(wd_queue* q, int hold) noexcept {
  return with_context(q, [hold](Context& context) { return context.hold(hold != 0); });
}

unsigned wd_in_flight(const wd_queue* q) noexcept {
  const bool ours = q != nullptr && raw_context(q) != nullptr && raw_context(q)->ours();
  return ours ? raw_context(q)->in_flight() : 0;
}

int wd_list_devices_sized(uint32_t path, wd_device* devices, size_t device_size,
                          unsigned capacity) noexcept {
  if ((devices == nullptr && capacity != 0) || device_size < kFirstDeviceSize) return -EINVAL;
  return guarded([&] {
    auto process = Process::current();
    if (!process) return -process.error().value();
    return along_routes(path, [&](const Route& route) {
      auto connection = (*process)->connect(route);
      if (!connection) return -connection.error().value();
      auto found = (*connection)->transport().devices();
      if (!found) return -found.error().value();
      const std::size_t shown = std::min<std::size_t>(capacity, found->size());
      auto* const first = reinterpret_cast<std::byte*>(devices);
      for (std::size_t i = 0; i < shown; ++i) {
        put_sized(first + i * device_size, device_size, describe((*found)[i]));
      }
      return static_cast<int>(found->size());
    });
  });
}

int wd_get_stats_sized(wd_queue* q, wd_stats* stats, size_t size) noexcept {
  if (stats == nullptr || size < kFirstStatsSize) return -EINVAL;
  return with_context(q, [&](Context& context) {
    auto answer = context.connection()->transport().stats();
    if (!answer) return -answer.error().value();
    auto process = Process::current();
    if (!process) return -process.error().value();
    const wd_stats all{answer->operations,
                       answer->faults,
                       answer->bytes_zero_copy,
                       answer->bytes_copied,
                       answer->page_faults,
                       answer->translations,
                       answer->translation_hits,
                       (*process)->staged.load(std::memory_order_relaxed),
                       (*process)->rebinds.load(std::memory_order_relaxed)};
    put_sized(stats, size, all);
    return 0;
  });
}

}  // extern "C"
