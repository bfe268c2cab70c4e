// SPDX-License-Identifier: Apache-2.0
/// `tandem bench comp`: compression through the broker next to the same codec called directly, and
/// `tandem compress` next to gzip and pigz.
#include <fcntl.h>
#include <fmt/format.h>
#include <isa-l/igzip_lib.h>
#include <libdeflate.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <stdexcept>

#include "apps/broker_process/broker_process.hpp"
#include "bench/corpus.hpp"
#include "bench/harness.hpp"
#include "tandem/base/cpu.hpp"
#include "tandem/base/unique_fd.hpp"
#include "tandem/wd/wd.h"

namespace tandem::bench {
namespace {

constexpr std::size_t kBlock = 64 << 10;
constexpr std::size_t kRoom = kBlock + (kBlock >> 3) + 64;

/// Keeps `kInFlight` blocks of a corpus in flight on one queue of the broker.
class Stream {
 public:
  Stream(bool reserved, std::span<const std::byte> corpus) : corpus_(corpus) {
    queue_.algorithm = "deflate";
    queue_.path = WD_PATH_BROKER;
    if (const int error = wd_request_queue(&queue_); error != 0) {
      throw std::runtime_error(fmt::format("cannot open a queue: {}", wd_strerror(error)));
    }
    const std::size_t size = corpus.size() + kInFlight * kRoom;
    std::byte* base = reserved ? static_cast<std::byte*>(wd_reserve_memory(&queue_, size))
                               : static_cast<std::byte*>(std::malloc(size));
    if (base == nullptr) throw std::runtime_error("cannot get memory");
    std::memcpy(base, corpus.data(), corpus.size());
    input_ = base;
    output_ = base + corpus.size();
    std::memset(output_, 0, kInFlight * kRoom);
    heap_ = reserved ? nullptr : base;
  }
  ~Stream() {
    wd_release_queue(&queue_);
    std::free(heap_);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  /// MB/s of input over the whole corpus.
  double sample() {
    pin_thread(0);
    const std::size_t blocks = corpus_.size() / kBlock;
    const auto start = now_ns();
    std::size_t sent = 0;
    for (std::size_t received = 0; received < blocks;) {
      while (sent < blocks && sent - received < kInFlight) {
        wd_request& request = requests_[sent % kInFlight];
        request = {};
        request.opcode = WD_OP_DEFLATE;
        request.param = 1;
        request.src = input_ + sent * kBlock;
        request.src_len = kBlock;
        request.dst = output_ + (sent % kInFlight) * kRoom;
        request.dst_len = kRoom;
        if (wd_send(&queue_, &request) != 0) throw std::runtime_error("send failed");
        ++sent;
      }
      wd_request* back = nullptr;
      if (wd_recv(&queue_, &back) == 1) {
        if (back->status != TANDEM_STATUS_OK) throw std::runtime_error(wd_strstatus(back->status));
        ++received;
      } else {
        cpu_pause();
      }
    }
    return static_cast<double>(blocks * kBlock) * 1e3 / static_cast<double>(now_ns() - start);
  }

 private:
  static constexpr std::size_t kInFlight = 8;
  std::span<const std::byte> corpus_;
  wd_queue queue_ = WD_QUEUE_INIT;
  std::array<wd_request, kInFlight> requests_{};
  std::byte* input_ = nullptr;
  std::byte* output_ = nullptr;
  void* heap_ = nullptr;
};

/// isa-l level 1 on the engine's CPU, block by block, as a program would call it. `memory`: a
/// descriptor through which each block is read and its result written, as an engine does for
/// ordinary memory; -1: in place.
double direct_isal(std::span<const std::byte> corpus, int memory = -1) {
  pin_thread(1);
  std::vector<std::byte> block(kBlock);
  const auto offset = [](const void* at) {
    return static_cast<off_t>(std::bit_cast<std::uintptr_t>(at));
  };
  std::vector<std::byte> result(kRoom);
  std::vector<std::uint8_t> level_buffer(ISAL_DEF_LVL1_DEFAULT);
  std::vector<std::uint8_t> out(kRoom);
  const auto start = now_ns();
  for (std::size_t at = 0; at + kBlock <= corpus.size(); at += kBlock) {
    isal_zstream stream;
    isal_deflate_stateless_init(&stream);
    stream.level = 1;
    stream.level_buf = level_buffer.data();
    stream.level_buf_size = static_cast<std::uint32_t>(level_buffer.size());
    stream.end_of_stream = 1;
    stream.flush = NO_FLUSH;
    const std::byte* in = corpus.data() + at;
    if (memory >= 0) {
      if (::pread(memory, block.data(), kBlock, offset(in)) != kBlock) {
        throw std::runtime_error("cannot read through the mem descriptor");
      }
      in = block.data();
    }
    stream.next_in = reinterpret_cast<std::uint8_t*>(const_cast<std::byte*>(in));
    stream.avail_in = kBlock;
    stream.next_out = out.data();
    stream.avail_out = kRoom;
    if (isal_deflate_stateless(&stream) != COMP_OK) throw std::runtime_error("isa-l failed");
    if (memory >= 0 && ::pwrite(memory, out.data(), stream.total_out, offset(result.data())) !=
                           static_cast<ssize_t>(stream.total_out)) {
      throw std::runtime_error("cannot write through the mem descriptor");
    }
  }
  return static_cast<double>(corpus.size() / kBlock * kBlock) * 1e3 /
         static_cast<double>(now_ns() - start);
}

struct CompWorld {
  explicit CompWorld(std::size_t size) : corpus(make_corpus(size)) {}
  std::vector<std::byte> corpus;
  std::unique_ptr<broker::BrokerProcess> broker =
      broker::BrokerProcess::start({.cpu = cpu_at(1)}).value();
  Stream reserved{true, corpus}, heap{false, corpus};
};

/// A file of `size_bytes` of real data in a scratch directory.
class CorpusFile {
 public:
  explicit CorpusFile(std::size_t size_bytes) {
    std::string pattern = (std::filesystem::temp_directory_path() / "tandem-bench-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("cannot make " + pattern);
    directory_ = pattern;
    const auto data = make_corpus(size_bytes);
    std::ofstream(path(), std::ios::binary)
        .write(reinterpret_cast<const char*>(data.data()),
               static_cast<std::streamsize>(data.size()));
  }
  ~CorpusFile() {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }
  CorpusFile(const CorpusFile&) = delete;
  CorpusFile& operator=(const CorpusFile&) = delete;
  std::string path() const { return directory_ + "/corpus"; }
  std::string output() const { return directory_ + "/out.gz"; }

 private:
  std::string directory_;
};

/// Seconds that `command` (a shell line) takes.
double run_seconds(const std::string& command) {
  unpin_thread();
  const auto start = now_ns();
  if (std::system(command.c_str()) != 0) throw std::runtime_error("failed: " + command);
  return static_cast<double>(now_ns() - start) / 1e9;
}

std::string first_line(const char* command) {
  std::array<char, 128> line{};
  FILE* pipe = ::popen(command, "r");
  if (pipe == nullptr) return "?";
  const bool got = std::fgets(line.data(), line.size(), pipe) != nullptr;
  ::pclose(pipe);
  std::string text = got ? line.data() : "?";
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

std::vector<Case> cases(const Options& options) {
  using Target = Case::Target;
  std::vector<Case> list;
  const auto world = std::make_shared<CompWorld>(options.quick ? 16u << 20 : 64u << 20);
  const std::string isal = fmt::format("isa-l {} level 1 called directly, same core",
                                       first_line("dpkg-query -W -f='${Version}' libisal-dev"));
  for (const bool reserved : {true, false}) {
    list.push_back({.name = fmt::format("comp/deflate-1:64K/{}", reserved ? "reserved" : "heap"),
                    .unit = "MB/s",
                    .peer_name = isal,
                    .higher_is_better = true,
                    .target = Target::kAtLeastRatio,
                    .limit = reserved ? 0.97 : 0.88,
                    .ours = [=] { return (reserved ? world->reserved : world->heap).sample(); },
                    .peer = [=] { return direct_isal(world->corpus); }});
  }
  list.push_back({.name = "comp/deflate-1:64K/heap/copied",
                  .unit = "MB/s",
                  .peer_name = isal + ", its operands through /proc/self/mem",
                  .higher_is_better = true,
                  .target = Target::kAtLeastRatio,
                  .limit = 0.9,
                  .ours = [=] { return world->heap.sample(); },
                  .peer =
                      [=] {
                        const UniqueFd memory(::open("/proc/self/mem", O_RDWR | O_CLOEXEC));
                        return direct_isal(world->corpus, memory.get());
                      }});
  const auto file = std::make_shared<CorpusFile>(options.quick ? 64u << 20 : 256u << 20);
  const std::string ours =
      fmt::format("env TANDEM=auto '{}' compress -1 -c '{}' > '{}'", broker::program_path("tandem"),
                  file->path(), file->output());
  const auto size_after = [=](const std::string& command) {
    run_seconds(command);
    return static_cast<double>(std::filesystem::file_size(file->output()));
  };
  const auto peer = [=](const char* program) {
    return fmt::format("{} -1 -c '{}' > '{}'", program, file->path(), file->output());
  };
  const int samples = options.quick ? 1 : 3;
  list.push_back({.name = "comp/file/gzip-1",
                  .unit = "s",
                  .peer_name = first_line("gzip --version"),
                  .target = Target::kTimesFaster,
                  .limit = 6,
                  .ours = [=] { return run_seconds(ours); },
                  .peer = [=] { return run_seconds(peer("gzip")); },
                  .samples = samples});
  list.push_back({.name = "comp/file/pigz-1",
                  .unit = "s",
                  .peer_name = first_line("pigz --version 2>&1"),
                  .target = Target::kTimesFaster,
                  .limit = 3,
                  .ours = [=] { return run_seconds(ours); },
                  .peer = [=] { return run_seconds(peer("pigz")); },
                  .samples = samples});
  list.push_back({.name = "comp/file/size",
                  .unit = "bytes",
                  .peer_name = "size of gzip -1's output",
                  .target = Target::kAtMostRatio,
                  .limit = 1.05,
                  .ours = [=] { return size_after(ours); },
                  .peer = [=] { return size_after(peer("gzip")); },
                  .samples = 1});
  return list;
}

}  // namespace

Area comp_area() { return {"comp", "compression: through the broker, and of files", cases}; }

}  // namespace tandem::bench
