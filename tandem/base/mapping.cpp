// SPDX-License-Identifier: Apache-2.0
#include "tandem/base/mapping.hpp"

#include <fcntl.h>
#include <sys/mman.h>

#include <utility>

namespace tandem {

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}

Mapping::~Mapping() {
  if (data_ != nullptr) ::munmap(data_, size_bytes_);
}

Result<Mapping> Mapping::shared(int fd, std::size_t size_bytes, std::int64_t offset) {
  void* at = ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
  if (at == MAP_FAILED) return last_errno();
  return Mapping(static_cast<std::byte*>(at), size_bytes);
}

Result<Mapping> Mapping::anonymous(std::size_t size_bytes, bool reserve) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | (reserve ? 0 : MAP_NORESERVE);
  void* at = ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (at == MAP_FAILED) return last_errno();
  return Mapping(static_cast<std::byte*>(at), size_bytes);
}

void Mapping::exclude_from_fork() noexcept {
  if (data_ != nullptr) ::madvise(data_, size_bytes_, MADV_DONTFORK);
}

void Mapping::release() noexcept {
  data_ = nullptr;
  size_bytes_ = 0;
}

Result<UniqueFd> make_sealed_memfd(const char* name, std::size_t size_bytes) {
  UniqueFd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return last_errno();
  if (::ftruncate(fd.get(), static_cast<off_t>(size_bytes)) != 0) return last_errno();
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return last_errno();
  }
  return fd;
}

}  // namespace tandem
