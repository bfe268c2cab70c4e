// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "tandem/base/mapping.hpp"
#include "tandem/memory/memory.hpp"

/// What the tests of memory have in common.
namespace tandem::memory::test {

/// Page-aligned host memory filled with one byte.
class HostPages {
 public:
  explicit HostPages(std::size_t pages, int fill = 0)
      : mapping_(std::move(*Mapping::anonymous(pages * kPageSize))) {
    std::memset(mapping_.data(), fill, mapping_.size());
  }
  std::span<std::byte> bytes() const { return mapping_.bytes(); }

 private:
  Mapping mapping_;
};

/// An I/O region over a buffer that refuses from `limit` on and counts calls.
class BufferRegion : public IoRegion {
 public:
  explicit BufferRegion(std::size_t size_bytes) : BufferRegion(size_bytes, size_bytes) {}
  BufferRegion(std::size_t size_bytes, std::size_t accessible)
      : data(size_bytes), limit(accessible) {}
  Outcome read(std::uint64_t offset, std::span<std::byte> to) override {
    ++calls;
    const std::size_t n = allowed(offset, to.size());
    std::copy_n(data.begin() + static_cast<std::ptrdiff_t>(offset), n, to.begin());
    return {n, n == to.size() ? Fault::kNone : Fault::kRefused};
  }
  Outcome write(std::uint64_t offset, std::span<const std::byte> from) override {
    ++calls;
    const std::size_t n = allowed(offset, from.size());
    std::copy_n(from.begin(), n, data.begin() + static_cast<std::ptrdiff_t>(offset));
    return {n, n == from.size() ? Fault::kNone : Fault::kRefused};
  }
  std::vector<std::byte> data;
  std::atomic<std::size_t> limit;
  std::atomic<int> calls{0};

 private:
  std::size_t allowed(std::uint64_t offset, std::size_t length) const {
    const std::size_t end = limit;
    return offset >= end ? 0 : std::min<std::size_t>(length, end - offset);
  }
};

}  // namespace tandem::memory::test
