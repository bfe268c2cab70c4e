// SPDX-License-Identifier: Apache-2.0
// A device of your own: write an engine, give it to a framework, send it a request.
//
// Memory is reached through the operation's AddressSpace alone, so the engine works on plain
// pointers of whoever asks, and what they may not use ends as a FAULT of their request.
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tandem/base/mapping.hpp"
#include "tandem/uacce/framework.hpp"

namespace {

using tandem::Mapping;
namespace uacce = tandem::uacce;
namespace pcie = tandem::pcie;

// The upper bits say that src is read and dst is written; the rest is the device's to number.
constexpr std::uint16_t kRot13 = TANDEM_OP_SRC_IN | TANDEM_OP_DST_OUT | 0x80;

char rotated(char c) {
  const char first = c >= 'a' && c <= 'z' ? 'a' : c >= 'A' && c <= 'Z' ? 'A' : '\0';
  return first == '\0' ? c : static_cast<char>(first + (c - first + 13) % 26);
}

class Worker final : public uacce::Worker {
 public:
  uacce::Completion execute(const tandem_descriptor& d, const pcie::AddressSpace& space,
                            uacce::Session*) override {
    uacce::Completion refused;
    refused.status = d.opcode != kRot13        ? TANDEM_STATUS_UNKNOWN_OPCODE
                     : d.dst_len < d.src_len   ? TANDEM_STATUS_OUTPUT_TOO_SMALL
                     : d.reserved[0] | d.flags ? TANDEM_STATUS_BAD_DESCRIPTOR
                                               : TANDEM_STATUS_OK;
    if (refused.status != TANDEM_STATUS_OK) return refused;

    auto input = uacce::Input::fetch(space, d.src, d.src_len, false, in_);
    if (!input) return uacce::Completion::from_fault(input.error(), 0);
    auto output = uacce::Output::prepare(space, d.dst, d.src_len, true, out_);
    if (!output) return uacce::Completion::from_fault(output.error(), 0);
    for (std::size_t i = 0; i < d.src_len; ++i) {
      output->bytes()[i] = std::byte(rotated(static_cast<char>(input->bytes()[i])));
    }
    const auto written = output->commit(d.src_len, std::move(*input));
    const auto done = static_cast<std::uint32_t>(written.done_bytes);
    if (!written.ok()) return uacce::Completion::from_fault(*written.fault, done);
    uacce::Completion completion;
    completion.done = done;
    return completion;
  }

 private:
  std::vector<std::byte> in_, out_;  // scratch, for operands that cannot be reached in place
};

class Engine final : public uacce::Engine {
 public:
  uacce::DeviceTraits traits() const override {
    uacce::DeviceTraits traits;
    traits.name = "rot-0";
    traits.api = "example_rot_v1";
    traits.algorithms = {"rot13"};
    return traits;
  }
  std::unique_ptr<uacce::Worker> make_worker() override { return std::make_unique<Worker>(); }
};

/// A queue with one request at a time: what the client library does, at its shortest.
class Queue {
 public:
  Queue(uacce::Client& client, const char* algorithm)
      : client_(client), info_(client.open(algorithm, 2).value()) {
    doorbell_ = map(TANDEM_REGION_MMIO, info_.region_mmio_size);
    rings_ = map(TANDEM_REGION_DUS, info_.region_dus_size);
    client_.start(info_.queue).value();
  }

  tandem_completion run(const tandem_descriptor& descriptor) {
    auto* const descriptors = reinterpret_cast<tandem_descriptor*>(rings_.data());
    auto* const completions = reinterpret_cast<tandem_completion*>(descriptors + info_.depth);
    const std::uint32_t slot = sent_++ & (info_.depth - 1);
    descriptors[slot] = descriptor;
    auto& doorbell = *reinterpret_cast<tandem_doorbell*>(doorbell_.data());
    std::atomic_ref(doorbell.tail).store(sent_, std::memory_order_release);
    client_.run_in_caller(info_.queue).value();
    return completions[slot];
  }

 private:
  Mapping map(std::uint32_t region, std::uint64_t size) {
    const auto fd = client_.map(info_.queue, region, size);
    return Mapping::shared(fd.value().get(), size).value();
  }

  uacce::Client& client_;
  const uacce::QueueInfo info_;
  Mapping doorbell_, rings_;
  std::uint32_t sent_ = 0;
};

}  // namespace

int main() {
  uacce::Framework::Options options;
  options.engine_threads = 0;  // requests run in the thread that asks
  const auto framework = uacce::Framework::create(options).value();
  framework->add_device(std::make_unique<Engine>()).value();
  uacce::MmAccess access;
  access.kind = uacce::MmAccess::Kind::kSelf;
  const auto client = framework->connect(::getuid(), std::move(access), false).value();
  Queue queue(*client, "rot13");

  const std::string text = "Gnaqrz: na nppryrengbe nf nabgure guernq";
  std::string turned(text.size(), '?');
  tandem_descriptor request{};
  request.opcode = kRot13;
  request.src = reinterpret_cast<std::uint64_t>(text.data());
  request.dst = reinterpret_cast<std::uint64_t>(turned.data());
  request.src_len = request.dst_len = static_cast<std::uint32_t>(text.size());
  const auto good = queue.run(request);
  std::printf("status %u, %u bytes: %s\n", good.status, good.done, turned.c_str());

  request.src = 16;  // nobody's memory: the request fails, the process does not
  const auto bad = queue.run(request);
  std::printf("status %u at %#lx\n", bad.status, static_cast<unsigned long>(bad.fault_address));
  return good.status == TANDEM_STATUS_OK && good.done == text.size() &&
                 turned.starts_with("Tandem") && bad.status == TANDEM_STATUS_FAULT &&
                 bad.fault_address == 16
             ? 0
             : 1;
}
