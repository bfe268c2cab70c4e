// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/tenant.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <thread>

#include "apps/tandem/queue.hpp"
#include "tandem/trace/trace.hpp"

namespace tandem::cli {
namespace {

constexpr unsigned kInFlight = 4;
constexpr unsigned kForker = 1, kProber = 3;  // the parts of tenants 2 and 4; 3 is killed
constexpr unsigned kChildSeat = Board::kTenants;
/// Tenant i keeps a page at kSecretBase + i × kSecretStep. Nothing maps there by itself: it is
/// above where programs are loaded and below libraries, and an address that sanitizers leave to
/// programs.
constexpr std::uint64_t kSecretBase = 0x567f00000000, kSecretStep = 0x10000000;

struct Slot {
  wd_request request{};
  std::span<std::byte> input, output;
  std::unique_ptr<std::byte[]> heap_input, heap_output;
  std::uint64_t sent_ns = 0;
};

struct TenantFailure {
  std::string text;
};

class Tenant {
 public:
  Tenant(Board& board, unsigned seat, Corpus& corpus, TenantKind kind)
      : board_(board), seat_(board.seats[seat]), number_(seat), corpus_(corpus), kind_(kind) {}

  void open();
  void work();

 private:
  void make_slots();
  void send_next(Slot& slot);
  void receive_one();
  void publish_stats();
  void fork_child();
  void wait_for_child();
  void keep_a_secret();
  void probe();
  std::uint64_t expect_fault(const void* pointer, const char* what);

  Board& board_;
  Seat& seat_;
  const unsigned number_;
  Corpus& corpus_;
  const TenantKind kind_;
  std::unique_ptr<Queue> queue_;
  std::array<Slot, kInFlight> slots_;
  std::uint64_t stats_at_ns_ = 0;
  pid_t child_ = 0;
  bool probed_ = false;
};

void Tenant::open() {
  auto queue = Queue::open("gzip", 2 * kInFlight,
                           kind_ == TenantKind::kThread ? WD_PATH_EMBEDDED : WD_PATH_AUTO);
  if (!queue) throw TenantFailure{from_wd("opening the device", queue.error()).text};
  queue_ = std::move(*queue);
  if (kind_ == TenantKind::kProcess) keep_a_secret();
  make_slots();
}

void Tenant::make_slots() {
  const std::size_t out_bytes = round_up_to_page(tandem_compress_bound(Corpus::kBlockBytes));
  const auto reserved = queue_->reserve(kInFlight / 2 * (Corpus::kBlockBytes + out_bytes));
  if (reserved.empty()) throw TenantFailure{"no reserved memory"};
  std::size_t used = 0;
  for (unsigned i = 0; i < kInFlight; ++i) {
    Slot& slot = slots_[i];
    slot = Slot{};
    if (i % 2 == 0) {
      slot.heap_input = std::make_unique<std::byte[]>(Corpus::kBlockBytes);
      slot.heap_output = std::make_unique<std::byte[]>(out_bytes);
      slot.input = {slot.heap_input.get(), Corpus::kBlockBytes};
      slot.output = {slot.heap_output.get(), out_bytes};
    } else {
      slot.input = reserved.subspan(used, Corpus::kBlockBytes);
      slot.output = reserved.subspan(used + Corpus::kBlockBytes, out_bytes);
      used += Corpus::kBlockBytes + out_bytes;
    }
  }
}

void Tenant::keep_a_secret() {
  void* const wanted = reinterpret_cast<void*>(kSecretBase + number_ * kSecretStep);
  void* const page = ::mmap(wanted, kPageSize, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (page != wanted) return;  // the parent says that there was nothing to probe
  std::memset(page, 's', kPageSize);
  // The device reaches it for its owner: what others get is their own lack of it.
  std::array<std::byte, 2 * kPageSize> out;
  wd_request request{};
  request.opcode = WD_OP_GZIP;
  request.param = kShareLevel;
  request.src = page;
  request.src_len = kPageSize;
  request.dst = out.data();
  request.dst_len = out.size();
  const int error = queue_->run(request);
  if (error < 0 || request.status != TANDEM_STATUS_OK) {
    throw TenantFailure{fmt::format("its own page at {}: {}", page,
                                    error < 0 ? wd_strerror(error) : wd_strstatus(request.status))};
  }
  seat_.secret_address.store(reinterpret_cast<std::uint64_t>(page), std::memory_order_release);
}

void Tenant::send_next(Slot& slot) {
  std::size_t size = 0;
  // A file may have gone since the list was made: go on to the next.
  for (int attempt = 0; size == 0 && attempt < 1000; ++attempt) {
    size = corpus_.read(board_.next_block.fetch_add(1, std::memory_order_relaxed), slot.input);
  }
  if (size == 0) throw TenantFailure{"the files cannot be read any more"};
  slot.request = wd_request{};
  slot.request.opcode = WD_OP_GZIP;
  slot.request.param = kShareLevel;
  slot.request.src = slot.input.data();
  slot.request.src_len = static_cast<std::uint32_t>(size);
  slot.request.dst = slot.output.data();
  slot.request.dst_len = static_cast<std::uint32_t>(slot.output.size());
  slot.request.user = &slot;
  slot.sent_ns = now_ns();
  if (const int error = wd_send(queue_->raw(), &slot.request); error < 0) {
    throw TenantFailure{fmt::format("sending a block: {}", wd_strerror(error))};
  }
}

void Tenant::receive_one() {
  wd_request* done = nullptr;
  if (const int error = wd_recv_sync(queue_->raw(), &done); error < 0) {
    throw TenantFailure{fmt::format("receiving a block: {}", wd_strerror(error))};
  }
  auto& slot = *static_cast<Slot*>(done->user);
  seat_.latency.add(std::chrono::nanoseconds(now_ns() - slot.sent_ns));
  if (done != &slot.request || done->status != TANDEM_STATUS_OK) {
    throw TenantFailure{fmt::format("a good block came back with: {}{}", wd_strstatus(done->status),
                                    done->status == TANDEM_STATUS_FAULT
                                        ? fmt::format(" at {:#x}", done->fault_address)
                                        : std::string())};
  }
  const std::string wrong =
      verify_with_zlib(slot.output.first(done->done), slot.input.first(done->src_len));
  if (!wrong.empty()) throw TenantFailure{"MISMATCH: " + wrong};
  (slot.heap_input != nullptr ? seat_.heap_blocks : seat_.reserved_blocks)
      .fetch_add(1, std::memory_order_relaxed);
  seat_.compressed.fetch_add(done->done, std::memory_order_relaxed);
  seat_.blocks.fetch_add(1, std::memory_order_relaxed);
  seat_.bytes.fetch_add(done->src_len, std::memory_order_relaxed);
}

void Tenant::publish_stats() {
  wd_stats stats{};
  if (wd_get_stats(queue_->raw(), &stats) == 0) seat_.set_stats(stats);
  stats_at_ns_ = now_ns();
}

void Tenant::work() {
  seat_.started_ns.store(now_ns(), std::memory_order_relaxed);
  seat_.state.store(Seat::kWorking, std::memory_order_release);
  for (Slot& slot : slots_) send_next(slot);
  std::size_t next = 0;
  while (board_.stop.load(std::memory_order_acquire) == 0) {
    receive_one();  // each queue completes in order
    if (number_ == kProber && !probed_ && board_.probe_now.load(std::memory_order_acquire) != 0) {
      probe();
    }
    send_next(slots_[next++ % kInFlight]);
    if (number_ == kForker && kind_ == TenantKind::kProcess && child_ == 0 &&
        board_.fork_now.load(std::memory_order_acquire) != 0) {
      fork_child();
    }
    if (now_ns() - stats_at_ns_ > 200'000'000) publish_stats();
  }
  for (unsigned i = 0; i < kInFlight; ++i) receive_one();
  if (wd_in_flight(queue_->raw()) != 0) throw TenantFailure{"requests are left that nobody sent"};
  publish_stats();
  seat_.ended_ns.store(now_ns(), std::memory_order_relaxed);
  wait_for_child();
  queue_.reset();
}

void Tenant::fork_child() {
  // With requests in flight: they stay ours.
  child_ = ::fork();
  if (child_ < 0) throw TenantFailure{std::string("fork: ") + std::strerror(errno)};
  if (child_ > 0) {
    seat_.forked.store(1, std::memory_order_release);
    return;
  }
  Seat& seat = board_.seats[kChildSeat];
  ::prctl(PR_SET_NAME, "tenant 2's kid");
  trace::mark("forked from tenant 2");
  try {
    seat.pid.store(::getpid(), std::memory_order_relaxed);
    // The same context, the same pointer to the same struct wd_queue. Its requests in flight are
    // the parent's; so is reserved memory, which the child does not have.
    Tenant child(board_, kChildSeat, corpus_, kind_);
    child.queue_ = std::move(queue_);
    child.make_slots();
    if (wd_in_flight(child.queue_->raw()) != 0) {
      throw TenantFailure{"after fork the child still waits for its parent's requests"};
    }
    child.work();
    seat.state.store(Seat::kDone, std::memory_order_release);
  } catch (const TenantFailure& failure) {
    seat.fail(failure.text);
    ::_exit(kFailure);
  }
  ::_exit(kOk);
}

void Tenant::wait_for_child() {
  if (child_ <= 0) return;
  int status = 0;
  if (::waitpid(child_, &status, 0) != child_ || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    throw TenantFailure{"its forked child did not end well"};
  }
}

std::uint64_t Tenant::expect_fault(const void* pointer, const char* what) {
  // On a queue of its own: the good blocks stay in flight meanwhile.
  const auto at = reinterpret_cast<std::uint64_t>(pointer);
  std::array<std::byte, 2 * kPageSize> out;
  wd_request request{};
  request.opcode = WD_OP_GZIP;
  request.param = kShareLevel;
  request.src = pointer;
  request.src_len = kPageSize;
  request.dst = out.data();
  request.dst_len = out.size();
  trace::mark(what);
  auto own = Queue::open("gzip", 2, queue_->path());
  if (!own) throw TenantFailure{from_wd("a second queue", own.error()).text};
  if (const int error = (*own)->run(request); error < 0) {
    throw TenantFailure{fmt::format("{}: {}", what, wd_strerror(error))};
  }
  if (request.status != TANDEM_STATUS_FAULT || request.fault_address != at) {
    throw TenantFailure{fmt::format("ISOLATION: {} at {:#x} was answered with '{}' at {:#x}", what,
                                    at, wd_strstatus(request.status), request.fault_address)};
  }
  return request.fault_address;
}

void Tenant::probe() {
  probed_ = true;
  // Mapped, used and unmapped again, where nothing maps by itself: it stays unmapped.
  void* const wanted = reinterpret_cast<void*>(kSecretBase - kSecretStep);
  void* const page = ::mmap(wanted, kPageSize, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (page != wanted) throw TenantFailure{"no page to unmap"};
  std::memset(page, 'u', kPageSize);
  ::munmap(page, kPageSize);
  seat_.unmapped_fault.store(expect_fault(page, "an unmapped pointer"));
  seat_.unmapped_address.store(reinterpret_cast<std::uint64_t>(page), std::memory_order_release);
  if (kind_ == TenantKind::kThread) return;
  const std::uint64_t foreign = board_.seats[0].secret_address.load(std::memory_order_acquire);
  unsigned char resident = 0;
  void* const there = reinterpret_cast<void*>(foreign);
  if (foreign == 0 || ::mincore(there, kPageSize, &resident) == 0 || errno != ENOMEM) {
    throw TenantFailure{"no address of tenant 1 that is not mapped here too"};
  }
  seat_.foreign_fault.store(expect_fault(there, "a pointer of tenant 1"));
  seat_.foreign_address.store(foreign, std::memory_order_release);
}

}  // namespace

std::string verify_with_zlib(std::span<const std::byte> member,
                             std::span<const std::byte> original) {
  thread_local std::array<std::byte, std::size_t{16} * 1024> buffer;
  z_stream stream{};
  constexpr int kGzipOnly = 16 + MAX_WBITS;
  if (inflateInit2(&stream, kGzipOnly) != Z_OK) return "zlib does not start";
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(member.data()));
  stream.avail_in = static_cast<uInt>(member.size());
  std::size_t at = 0;
  int status = Z_OK;
  std::string wrong;
  while (status == Z_OK && wrong.empty()) {
    stream.next_out = reinterpret_cast<Bytef*>(buffer.data());
    stream.avail_out = static_cast<uInt>(buffer.size());
    status = inflate(&stream, Z_NO_FLUSH);
    const std::size_t got = buffer.size() - stream.avail_out;
    if (got > original.size() - at || std::memcmp(buffer.data(), original.data() + at, got) != 0) {
      wrong = fmt::format("zlib inflates other bytes after offset {}", at);
    }
    at += got;
  }
  if (wrong.empty() && (status != Z_STREAM_END || stream.avail_in != 0 || at != original.size())) {
    wrong = fmt::format("zlib says {} after {} of {} bytes",
                        stream.msg != nullptr ? stream.msg : "incomplete", at, original.size());
  }
  inflateEnd(&stream);
  return wrong;
}

void run_tenant(Board& board, unsigned number, Corpus& corpus, TenantKind kind) {
  Seat& seat = board.seats[number];
  try {
    Tenant tenant(board, number, corpus, kind);
    tenant.open();
    seat.pid.store(::getpid(), std::memory_order_relaxed);
    seat.state.store(Seat::kReady, std::memory_order_release);
    while (board.go.load(std::memory_order_acquire) == 0) {
      if (board.stop.load(std::memory_order_acquire) != 0) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    tenant.work();
    seat.state.store(Seat::kDone, std::memory_order_release);
  } catch (const TenantFailure& failure) {
    seat.fail(failure.text);
  }
}

Result<pid_t, Failure> start_tenant_process(int board_fd, unsigned number,
                                            const std::string& corpus_list) {
  const std::string fd = std::to_string(board_fd), which = std::to_string(number);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return Unexpected{from_errno("starting a process", errno)};
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(kFailure);
    ::fcntl(board_fd, F_SETFD, 0);
    ::execl("/proc/self/exe", "tandem", "internal-tenant", "--board-fd", fd.c_str(), "--number",
            which.c_str(), "--corpus", corpus_list.c_str(), nullptr);
    ::_exit(127);
  }
  return child;
}

int run_tenant_process(int board_fd, unsigned number, const std::string& corpus_list) {
  auto memory = Mapping::shared(board_fd, round_up_to_page(sizeof(Board)));
  ::close(board_fd);
  if (!memory) return report(from_errno("tenant", memory.error().value()));
  Board& board = *reinterpret_cast<Board*>(memory->data());
  if (number >= Board::kTenants) return kUsage;
  ::prctl(PR_SET_NAME, fmt::format("tenant {}", number + 1).c_str());
  auto corpus = Corpus::load(corpus_list);
  if (!corpus) {
    board.seats[number].fail(corpus.error().text);
    return kFailure;
  }
  run_tenant(board, number, *corpus, TenantKind::kProcess);
  return board.seats[number].state.load() == Seat::kFailed ? kFailure : kOk;
}

}  // namespace tandem::cli
