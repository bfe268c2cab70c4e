// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>
#include <string>

#include "tandem/base/result.hpp"
#include "tandem/wd/wd.h"

namespace tandem::cli {

/// An open queue of wd.h that is released with its owner. Errors are wd's negative errno.
class Queue {
 public:
  static Result<std::unique_ptr<Queue>, int> open(const std::string& algorithm,
                                                  std::uint32_t depth = 0,
                                                  std::uint32_t path = WD_PATH_AUTO) {
    std::unique_ptr<Queue> queue(new Queue(algorithm));
    queue->raw_.algorithm = queue->algorithm_.c_str();
    queue->raw_.depth = depth;
    queue->raw_.path = path;
    if (const int error = wd_request_queue(&queue->raw_); error < 0) return Unexpected{error};
    queue->open_ = true;
    return queue;
  }
  ~Queue() {
    if (open_) wd_release_queue(&raw_);
  }
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  wd_queue* raw() { return &raw_; }
  const char* device() const { return raw_.device; }
  std::uint32_t path() const { return raw_.path; }

  /// Sends and waits; use only with nothing else in flight. Returns 0 or a negative errno.
  int run(wd_request& request) {
    if (const int error = wd_send(&raw_, &request); error < 0) return error;
    wd_request* done = nullptr;
    const int received = wd_recv_sync(&raw_, &done);
    if (received < 0) return received;
    return done == &request ? 0 : -EPROTO;
  }
  /// Reserved memory; lives as long as the queue. Empty when there is none to be had.
  std::span<std::byte> reserve(std::size_t size) {
    void* memory = wd_reserve_memory(&raw_, size);
    return memory == nullptr ? std::span<std::byte>()
                             : std::span(static_cast<std::byte*>(memory), size);
  }
  /// The parent's queue in a forked child is not ours to release.
  void forget() { open_ = false; }

 private:
  explicit Queue(std::string algorithm) : algorithm_(std::move(algorithm)) { raw_ = WD_QUEUE_INIT; }
  std::string algorithm_;
  wd_queue raw_;
  bool open_ = false;
};

/// Where a queue runs, in words.
inline const char* path_name(std::uint32_t path) {
  switch (path) {
    case WD_PATH_BROKER:
      return "broker";
    case WD_PATH_EMBEDDED:
      return "embedded";
    case WD_PATH_INLINE:
      return "inline";
    default:
      return "auto";
  }
}

}  // namespace tandem::cli
