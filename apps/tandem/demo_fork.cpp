// SPDX-License-Identifier: Apache-2.0
/// tandem demo fork: what happens to an open device at fork and at exec, step by step.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <optional>

#include "apps/broker_process/broker_process.hpp"
#include "apps/tandem/demo.hpp"
#include "apps/tandem/pipe.hpp"
#include "apps/tandem/queue.hpp"
#include "tandem/base/mapping.hpp"

namespace tandem::cli {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kPatience{5000};
// CRC-32C of what stands at the same address, in the parent and in the child.
constexpr char kParentText[] = "123456789";
constexpr std::uint64_t kParentSum = 0xe3069283;
constexpr char kChildText[] = "the quick";
constexpr std::size_t kTextBytes = 9;

/// What the child found, for the parent to check.
struct ChildReport {
  std::uint32_t in_flight_at_once = 0, in_flight_at_end = 0, received = 0;
  std::int32_t error = 0;
  std::uint64_t sum = 0, rebinds = 0;
  bool reserved_inherited = true, reserved_works = false;
};

wd_request crc_of(const void* data, std::size_t size) {
  wd_request request{};
  request.opcode = WD_OP_CRC32C;
  request.src = data;
  request.src_len = static_cast<std::uint32_t>(size);
  return request;
}

/// CRC-32C bit by bit: what the device's answer is compared with.
std::uint64_t reference_crc32c(const char* data, std::size_t size) {
  std::uint32_t crc = ~0u;
  for (std::size_t i = 0; i < size; ++i) {
    crc ^= static_cast<unsigned char>(data[i]);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
  }
  return ~crc;
}

class Story {
 public:
  std::optional<Failure> run();

 private:
  void step(const std::string& text) {
    fmt::print("\n{}\n", bold(fmt::format("{}. {}", ++step_, text), STDOUT_FILENO));
    std::fflush(stdout);
  }
  static void tell(const std::string& text) {
    fmt::print("   {}\n", text);
    std::fflush(stdout);
  }
  std::optional<Failure> open();
  std::optional<Failure> send_without_receiving();
  std::optional<Failure> fork_child();
  std::optional<Failure> hear_from_child(const broker::BrokerProcess::Event& child);
  std::optional<Failure> receive_ours();
  std::optional<Failure> exec_child();
  std::optional<Failure> go_on();
  void live_as_child(int report_fd);

  int step_ = 0;
  std::unique_ptr<broker::BrokerProcess> broker_;
  std::unique_ptr<Queue> queue_;
  std::span<std::byte> reserved_;
  std::array<wd_request, 2> pending_{};
  char* text_ = nullptr;
  std::uint32_t our_pasid_ = 0;
  Pipe pipe_;
  pid_t child_ = 0;
};

std::optional<Failure> Story::open() {
  auto broker = broker::BrokerProcess::start({.events = true});
  if (!broker) return Failure{kFailure, "private broker: " + broker.error()};
  broker_ = std::move(*broker);
  step("Open a queue, compute something");
  auto queue = Queue::open("crc32c", 16);
  if (!queue) return from_wd("opening the device", queue.error());
  queue_ = std::move(*queue);
  const auto* us = broker_->wait_for("connected", ::getpid(), kPatience);
  if (us == nullptr) return Failure{kFailure, "the broker did not tell our PASID"};
  our_pasid_ = us->pasid;
  text_ = static_cast<char*>(
      ::mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (text_ == MAP_FAILED) return from_errno("a page", errno);
  std::memcpy(text_, kParentText, sizeof kParentText);
  wd_request request = crc_of(text_, kTextBytes);
  if (const int error = queue_->run(request); error < 0) return from_wd("CRC-32C", error);
  if (request.status != TANDEM_STATUS_OK || request.result != kParentSum) {
    return Failure{kFailure, "the device computed a wrong CRC-32C"};
  }
  reserved_ = queue_->reserve(kPageSize);
  if (reserved_.empty()) return Failure{kFailure, "no reserved memory"};
  tell(fmt::format("process {} is PASID {} at {}; CRC-32C of \"{}\" is {:#x}", ::getpid(),
                   our_pasid_, queue_->device(), kParentText, request.result));
  return std::nullopt;
}

std::optional<Failure> Story::send_without_receiving() {
  step("Send two requests and do not receive them yet");
  for (wd_request& request : pending_) {
    request = crc_of(text_, kTextBytes);
    if (const int error = wd_send(queue_->raw(), &request); error < 0) {
      return from_wd("sending", error);
    }
  }
  wd_flush(queue_->raw());
  if (wd_in_flight(queue_->raw()) != 2) return Failure{kFailure, "not two requests in flight"};
  tell("both have completed; the results wait in the queue");
  return std::nullopt;
}

/// Everything here runs in the child, with the parent's variables.
void Story::live_as_child(int report_fd) {
  ChildReport report;
  const auto give_up = [&](int error) {
    report.error = error;
    [[maybe_unused]] const ssize_t written = ::write(report_fd, &report, sizeof report);
    ::_exit(kFailure);
  };
  report.in_flight_at_once = wd_in_flight(queue_->raw());
  unsigned char resident = 0;
  report.reserved_inherited = ::mincore(reserved_.data(), kPageSize, &resident) == 0;
  // Same pointer, another address space: what we write the parent does not see.
  std::memcpy(text_, kChildText, sizeof kChildText);
  wd_request request = crc_of(text_, kTextBytes);
  wd_request* done = nullptr;
  if (const int error = wd_send(queue_->raw(), &request); error < 0) give_up(error);
  if (const int error = wd_recv_sync(queue_->raw(), &done); error < 0) give_up(error);
  if (done != &request || request.status != TANDEM_STATUS_OK) give_up(-EPROTO);
  report.sum = request.result;
  report.received = 1;
  while (wd_recv(queue_->raw(), &done) == 1) ++report.received;
  report.in_flight_at_end = wd_in_flight(queue_->raw());
  if (const auto memory = queue_->reserve(kPageSize); !memory.empty()) {
    std::memcpy(memory.data(), kParentText, sizeof kParentText);
    wd_request again = crc_of(memory.data(), kTextBytes);
    report.reserved_works = queue_->run(again) == 0 && again.result == kParentSum;
  }
  wd_stats stats{};
  if (wd_get_stats(queue_->raw(), &stats) == 0) report.rebinds = stats.rebinds;
  [[maybe_unused]] const ssize_t written = ::write(report_fd, &report, sizeof report);
}

std::optional<Failure> Story::fork_child() {
  step("fork(): the child uses the same queue, the same pointer");
  auto pipe = Pipe::make();
  if (!pipe) return pipe.error();
  auto hold = Pipe::make();
  if (!hold) return hold.error();
  child_ = ::fork();
  if (child_ < 0) return from_errno("fork", errno);
  if (child_ == 0) {
    hold->write_end.reset();
    live_as_child(pipe->write_end.get());
    char byte = 0;  // until the parent has looked
    [[maybe_unused]] const ssize_t got = ::read(hold->read_end.get(), &byte, 1);
    queue_.reset();
    ::_exit(kOk);
  }
  pipe_ = std::move(*pipe);
  pipe_.write_end.reset();
  const auto* child = broker_->wait_for("connected", child_, kPatience);
  if (child == nullptr) return Failure{kFailure, "the child did not connect by itself"};
  const broker::BrokerProcess::Event seen = *child;
  if (auto failure = hear_from_child(seen)) return failure;
  if (auto failure = receive_ours()) return failure;
  hold->write_end.reset();
  int status = 0;
  if (::waitpid(child_, &status, 0) != child_ || status != 0) {
    return Failure{kFailure, "the child did not end well"};
  }
  return std::nullopt;
}

std::optional<Failure> Story::hear_from_child(const broker::BrokerProcess::Event& child) {
  ChildReport report;
  if (!read_exactly(pipe_.read_end.get(), &report, sizeof report, kPatience)) {
    return Failure{kFailure, "the child does not say anything"};
  }
  if (report.error != 0) return from_wd("in the child", report.error);
  if (child.pasid == our_pasid_) return Failure{kFailure, "the child has its parent's PASID"};
  if (report.rebinds < 1) return Failure{kFailure, "the child did not bind anew"};
  tell(fmt::format("process {}: its first call finds the generation changed and opens", child_));
  tell(fmt::format("a new queue: PASID {}, same parameters, no lock taken, no parent asked",
                   child.pasid));
  if (report.sum != reference_crc32c(kChildText, kTextBytes)) {
    return Failure{kFailure, "the child's CRC-32C is wrong"};
  }
  tell(fmt::format("it writes \"{}\" at {}: CRC-32C {:#x}, right", kChildText,
                   static_cast<void*>(text_), report.sum));
  if (report.in_flight_at_once != 0 || report.received != 1 || report.in_flight_at_end != 0) {
    return Failure{kFailure, "the child saw its parent's requests"};
  }
  tell("of its parent's two results it receives none");
  if (report.reserved_inherited || !report.reserved_works) {
    return Failure{kFailure, "reserved memory: inherited, or not to be had anew"};
  }
  tell("its parent's reserved memory is not there; it reserves its own");
  return std::nullopt;
}

std::optional<Failure> Story::receive_ours() {
  step("Meanwhile in the parent nothing has changed");
  for (wd_request& request : pending_) {
    wd_request* done = nullptr;
    if (const int error = wd_recv_sync(queue_->raw(), &done); error < 0) {
      return from_wd("receiving", error);
    }
    if (done != &request || request.status != TANDEM_STATUS_OK || request.result != kParentSum) {
      return Failure{kFailure, "the parent's results are not its own"};
    }
  }
  wd_request* none = nullptr;
  if (wd_recv(queue_->raw(), &none) != -EAGAIN) return Failure{kFailure, "a third result came"};
  tell("its two results arrive, each once");
  wd_request request = crc_of(text_, kTextBytes);
  if (const int error = queue_->run(request); error < 0) return from_wd("CRC-32C", error);
  if (request.result != kParentSum)
    return Failure{kFailure, "the child's bytes reached the parent"};
  tell(fmt::format("at {} it still has \"{}\": CRC-32C {:#x}", static_cast<void*>(text_), text_,
                   request.result));
  return std::nullopt;
}

std::optional<Failure> Story::exec_child() {
  step("exec(): another child uses the device, then becomes another program");
  auto ready = Pipe::make();
  if (!ready) return ready.error();
  auto go = Pipe::make();
  if (!go) return go.error();
  const pid_t child = ::fork();
  if (child < 0) return from_errno("fork", errno);
  if (child == 0) {
    wd_request request = crc_of(text_, kTextBytes);
    if (queue_->run(request) < 0 || request.result != kParentSum) ::_exit(kFailure);
    ::fcntl(ready->write_end.get(), F_SETFD, 0);
    ::fcntl(go->read_end.get(), F_SETFD, 0);
    const std::string ready_fd = std::to_string(ready->write_end.get());
    const std::string go_fd = std::to_string(go->read_end.get());
    ::execl("/proc/self/exe", "tandem", "internal-exec-probe", "--ready-fd", ready_fd.c_str(),
            "--go-fd", go_fd.c_str(), nullptr);
    ::_exit(127);
  }
  ready->write_end.reset();
  go->read_end.reset();
  const auto finish = [&]() {
    go->write_end.reset();
    int status = 0;
    return ::waitpid(child, &status, 0) == child && status == 0;
  };
  char byte = 0;
  if (!read_exactly(ready->read_end.get(), &byte, 1, kPatience)) {
    finish();
    return Failure{kFailure, "the program that the child became does not answer"};
  }
  const auto* connected = broker_->wait_for("connected", child, kPatience);
  const std::uint32_t pasid = connected != nullptr ? connected->pasid : 0;
  const auto* ended = broker_->wait_for("ended", child, kPatience);
  const bool alive = ::kill(child, 0) == 0 && ::waitpid(child, nullptr, WNOHANG) == 0;
  const std::string why = ended != nullptr ? ended->why : "";
  const bool good = finish();
  if (connected == nullptr || ended == nullptr) {
    return Failure{kFailure, "after exec the PASID was not revoked"};
  }
  if (!alive || !good) return Failure{kFailure, "the program after exec did not live on"};
  tell(fmt::format("process {} was PASID {}; it lives on as another program, and the broker", child,
                   pasid));
  tell(fmt::format("has revoked the PASID ({}): no device reaches the new image", why));
  return std::nullopt;
}

std::optional<Failure> Story::go_on() {
  step("The parent goes on");
  wd_request request = crc_of(text_, kTextBytes);
  if (const int error = queue_->run(request); error < 0) return from_wd("CRC-32C", error);
  if (request.result != kParentSum) return Failure{kFailure, "the parent's CRC-32C is wrong"};
  for (const auto& event : broker_->events()) {
    if (event.kind == "ended" && event.pid == ::getpid()) {
      return Failure{kFailure, "the broker lost the parent"};
    }
  }
  tell(fmt::format("still PASID {}, still the same queue", our_pasid_));
  return std::nullopt;
}

std::optional<Failure> Story::run() {
  if (auto failure = open()) return failure;
  if (auto failure = send_without_receiving()) return failure;
  if (auto failure = fork_child()) return failure;
  if (auto failure = exec_child()) return failure;
  return go_on();
}

}  // namespace

int demo_fork() {
  std::optional<Failure> failure;
  {
    Story story;
    failure = story.run();
  }
  return failure ? report({failure->code, "demo fork: " + failure->text}) : kOk;
}

int run_exec_probe(int ready_fd, int go_fd) {
  if (::write(ready_fd, "r", 1) != 1) return kFailure;
  char byte = 0;
  return ::read(go_fd, &byte, 1) >= 0 ? kOk : kFailure;
}

}  // namespace tandem::cli
