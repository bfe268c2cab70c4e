// SPDX-License-Identifier: Apache-2.0
#include "tandem/trace/trace.hpp"

#include <pthread.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>

#include "tandem/base/rseq.hpp"
#include "tandem/trace/detail/ring.hpp"
#include "tandem/trace/detail/ring_file.hpp"

namespace tandem::trace {
namespace {

using detail::Ring;

static_assert((kRingEntries & (kRingEntries - 1)) == 0, "the ring index is masked");

/// The ring of one thread at a time; outlives it, and is then given to a new thread.
struct Node {
  Ring ring;
  Node* next = nullptr;  // set before the node is published
};

constinit std::atomic<Node*> all_rings{nullptr};     // only grows, by a push in new_ring()
constinit std::atomic<std::uint64_t> lost{0};        // events while there was no ring at all
constinit std::atomic<std::uint64_t> lost_start{0};  // `lost` when the recording began
constinit std::atomic<std::uint32_t> process_generation{1};  // forked_child() writes

/// Where rings are files. Written before the process has a second thread.
constinit detail::RingFiles files;

Node* new_ring() noexcept {
  Mapping memory = detail::new_ring_memory(files, kRingEntries);
  if (!memory) return nullptr;
  Node* const node = new (std::nothrow) Node;
  if (node == nullptr) return nullptr;
  node->ring = Ring::find(memory.data(), memory.size());
  memory.release();
  node->next = all_rings.load(std::memory_order_relaxed);
  while (!all_rings.compare_exchange_weak(node->next, node, std::memory_order_release,
                                          std::memory_order_relaxed)) {
  }
  return node;
}

Ring acquire_ring() noexcept {
  for (Node* node = all_rings.load(std::memory_order_acquire); node; node = node->next) {
    auto& owned = node->ring.header().owned;
    std::uint32_t nobody = 0;
    if (owned.load(std::memory_order_relaxed) == 0 &&
        owned.compare_exchange_strong(nobody, 1, std::memory_order_acquire)) {  // (O)
      return node->ring;
    }
  }
  Node* const node = new_ring();
  return node != nullptr ? node->ring : Ring();
}

/// What a thread remembers; there until the thread is gone, which is later than its destructors.
struct ThreadRing {
  Ring ring;
  std::uint32_t thread = 0;
  std::uint32_t generation = 0;  // of the process in which it began; 0: it has not
  bool exited = false;           // events of later destructors are lost

  void begin() noexcept;
};
constinit thread_local ThreadRing thread_ring;

/// Gives the ring back when the thread exits, but for that of the first thread. Where that calls
/// exit(), static objects are destroyed on it afterwards, which is how much comes to its end.
struct AtThreadExit {
  bool armed = false;
  AtThreadExit() = default;
  AtThreadExit(const AtThreadExit&) = delete;
  AtThreadExit& operator=(const AtThreadExit&) = delete;
  ~AtThreadExit();
};
thread_local AtThreadExit at_thread_exit;

void ThreadRing::begin() noexcept {
  at_thread_exit.armed = true;
  generation = process_generation.load(std::memory_order_relaxed);
  thread = static_cast<std::uint32_t>(::gettid());
  ring = acquire_ring();
  if (!ring) return;
  detail::Name name{};
  (void)::prctl(PR_GET_NAME, name.data());
  std::array<std::uint64_t, 2> words;
  static_assert(sizeof words == sizeof name);
  std::memcpy(words.data(), name.data(), sizeof words);
  ring.header().thread.store(thread, std::memory_order_relaxed);
  for (std::size_t i = 0; i < words.size(); ++i) {
    ring.header().thread_name[i].store(words[i], std::memory_order_relaxed);
  }
}

AtThreadExit::~AtThreadExit() {
  if (::gettid() == ::getpid()) return;
  thread_ring.exited = true;
  const bool ours = thread_ring.generation == process_generation.load(std::memory_order_relaxed);
  if (thread_ring.ring && ours) {
    thread_ring.ring.header().owned.store(0, std::memory_order_release);  // (O)
  }
}

/// The calling thread's ring; in a forked child, not one of its parent's files.
Ring current_ring() noexcept {
  if (thread_ring.exited) return {};
  if (thread_ring.generation != process_generation.load(std::memory_order_relaxed)) {
    thread_ring.begin();
  }
  return thread_ring.ring;
}

void count_lost() noexcept {
  // Where a reader of files finds it, if anywhere.
  Node* const any = all_rings.load(std::memory_order_acquire);
  (any != nullptr ? any->ring.header().lost : lost).fetch_add(1, std::memory_order_relaxed);
}

std::uint64_t now_ns() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(now.tv_nsec);
}

/// The child has one thread, this one, and its parent's files mapped, which it leaves alone.
void forked_child() {
  all_rings.store(nullptr, std::memory_order_relaxed);
  process_generation.fetch_add(1, std::memory_order_relaxed);
}

/// Starts to record if the environment says so. Anything wrong in it means that nothing is.
bool start_as_told() noexcept {
  const char* const directory = ::secure_getenv("TANDEM_TRACE_DIR");
  if (directory == nullptr || !files.set_directory(directory)) return false;
  const char* const entries = ::secure_getenv("TANDEM_TRACE_ENTRIES");
  if (entries != nullptr) files.set_entries(std::strtoul(entries, nullptr, 10));
  const char* const names = ::secure_getenv("TANDEM_TRACE_CATEGORIES");
  const auto categories = parse_categories(names != nullptr ? names : "all");
  if (!categories || ::pthread_atfork(nullptr, nullptr, forked_child) != 0) return false;
  enable(*categories);
  return true;
}

[[maybe_unused]] const bool told = start_as_told();

}  // namespace

void enable(Categories categories) noexcept {
  if (categories != kNoCategories && !enabled(kAllCategories)) {
    for (Node* node = all_rings.load(std::memory_order_acquire); node; node = node->next) {
      auto& header = node->ring.header();
      header.start.store(header.head.load(std::memory_order_acquire), std::memory_order_relaxed);
      header.lost.store(0, std::memory_order_relaxed);
    }
    lost_start.store(lost.load(std::memory_order_relaxed), std::memory_order_relaxed);
  }
  detail::enabled.store(categories & kAllCategories, std::memory_order_relaxed);
}

void emit(Event event, std::array<std::uint64_t, 4> arguments) noexcept {
  Ring ring = current_ring();
  if (!ring) {
    count_lost();
    return;
  }
  Record record;
  record.time_ns = now_ns();
  record.event = event;
  record.cpu = static_cast<std::uint16_t>(rseq_cpu());  // -1 becomes kNoCpu
  record.thread = thread_ring.thread;
  record.arguments = arguments;
  ring.write(record);
}

void mark(std::string_view text) noexcept {
  if (!enabled(static_cast<Categories>(Category::kMark))) return;
  std::array<std::uint64_t, 4> words{};
  std::memcpy(words.data(), text.data(), std::min(text.size(), sizeof words));
  emit(Event::kMark, words);
}

std::string Record::text() const {
  std::string bytes(sizeof arguments, '\0');
  std::memcpy(bytes.data(), arguments.data(), sizeof arguments);
  return bytes.substr(0, bytes.find('\0'));
}

std::vector<Record> snapshot() {
  std::vector<Record> records;
  for (const Node* node = all_rings.load(std::memory_order_acquire); node; node = node->next) {
    (void)node->ring.read(records);
  }
  detail::sort_by_time(records);
  return records;
}

std::uint64_t dropped() noexcept {
  std::uint64_t count =
      lost.load(std::memory_order_relaxed) - lost_start.load(std::memory_order_relaxed);
  for (const Node* node = all_rings.load(std::memory_order_acquire); node; node = node->next) {
    count += node->ring.overwritten() + node->ring.header().lost.load(std::memory_order_relaxed);
  }
  return count;
}

}  // namespace tandem::trace
