// SPDX-License-Identifier: Apache-2.0
#include "tandem/pcie/detail/register_file.hpp"

namespace tandem::pcie::detail {
namespace {

constexpr std::uint8_t byte_of(std::uint64_t value, unsigned index) {
  return static_cast<std::uint8_t>(value >> (8 * index));
}

}  // namespace

void RegisterFile::define(std::uint32_t offset, unsigned size_bytes, std::uint64_t value,
                          std::uint64_t writable, std::uint64_t cleared_by_1) {
  for (unsigned i = 0; i < size_bytes; ++i) {
    values_[offset + i] = initial_[offset + i] = byte_of(value, i);
    writable_[offset + i] = byte_of(writable, i);
    cleared_by_1_[offset + i] = byte_of(cleared_by_1, i);
  }
}

std::uint32_t RegisterFile::read(std::uint32_t offset, unsigned size_bytes) const {
  std::uint32_t value = 0;
  for (unsigned i = 0; i < size_bytes; ++i) value |= std::uint32_t{values_[offset + i]} << (8 * i);
  return value;
}

void RegisterFile::write(std::uint32_t offset, std::uint32_t value, unsigned size_bytes) {
  for (unsigned i = 0; i < size_bytes; ++i) {
    const std::uint8_t byte = byte_of(value, i);
    std::uint8_t& held = values_[offset + i];
    const std::uint8_t writable = writable_[offset + i];
    held = static_cast<std::uint8_t>((held & ~writable) | (byte & writable));
    held = static_cast<std::uint8_t>(held & ~(byte & cleared_by_1_[offset + i]));
  }
}

void RegisterFile::set(std::uint32_t offset, unsigned size_bytes, std::uint32_t value) {
  for (unsigned i = 0; i < size_bytes; ++i) values_[offset + i] = byte_of(value, i);
}

}  // namespace tandem::pcie::detail
