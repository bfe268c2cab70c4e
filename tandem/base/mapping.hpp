// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tandem/base/result.hpp"
#include "tandem/base/unique_fd.hpp"

namespace tandem {

/// Owns one mmap()ed range.
///
/// Fork: inherited unless exclude_from_fork() was called; the destructor in a child unmaps the
/// child's copy only.
class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping();

  /// Maps `size_bytes` of `fd` from `offset`, shared, readable and writable.
  /// Errors: the errno of mmap().
  static Result<Mapping> shared(int fd, std::size_t size_bytes, std::int64_t offset = 0);
  /// Maps private anonymous memory; `reserve` false adds MAP_NORESERVE.
  static Result<Mapping> anonymous(std::size_t size_bytes, bool reserve = true);

  /// Owns a range that the caller mapped.
  static Mapping adopt(void* data, std::size_t size_bytes) noexcept {
    return Mapping(static_cast<std::byte*>(data), size_bytes);
  }

  std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_bytes_; }
  std::span<std::byte> bytes() const noexcept { return {data_, size_bytes_}; }
  explicit operator bool() const noexcept { return data_ != nullptr; }

  /// MADV_DONTFORK: a forked child does not have this range.
  void exclude_from_fork() noexcept;
  /// Forgets the range without unmapping it.
  void release() noexcept;

 private:
  Mapping(std::byte* data, std::size_t size_bytes) : data_(data), size_bytes_(size_bytes) {}
  std::byte* data_ = nullptr;
  std::size_t size_bytes_ = 0;
};

/// A new memfd of `size_bytes`, close-on-exec, sealed against shrinking, growing and further seals.
/// Errors: the errno of memfd_create(), ftruncate() or fcntl().
Result<UniqueFd> make_sealed_memfd(const char* name, std::size_t size_bytes);

inline constexpr std::size_t kPageSize = 4096;

constexpr std::size_t round_up_to_page(std::size_t size_bytes) {
  return (size_bytes + kPageSize - 1) & ~(kPageSize - 1);
}

}  // namespace tandem
