// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/device.hpp"

#include <algorithm>
#include <new>
#include <utility>

namespace tandem::uacce {
namespace {

/// Scratch grows by doubling from here while reads succeed, so that a bad pointer with a huge
/// length costs no memory.
constexpr std::size_t kFirstRead = std::size_t{1} << 20;

/// Makes `scratch` hold at least `length` bytes; never shrinks, so bytes are zeroed at most once.
bool grow(std::vector<std::byte>& scratch, std::size_t length) {
  if (scratch.size() >= length) return true;
  try {
    scratch.resize(length);
  } catch (const std::bad_alloc&) {
    return false;
  }
  return true;
}

std::optional<pcie::DmaFault> read_all(const pcie::AddressSpace& space, std::uint64_t address,
                                       std::size_t length, std::vector<std::byte>& scratch) {
  std::size_t done = 0;
  while (done < length) {
    const std::size_t end = std::min(length, std::max({scratch.size(), done * 2, kFirstRead}));
    if (!grow(scratch, end)) {
      return pcie::DmaFault{pcie::DmaFault::Reason::kMemory, pcie::Iova{address + done}};
    }
    const auto part =
        space.read(pcie::Iova{address + done}, std::span(scratch).subspan(done, end - done));
    if (part.fault) return part.fault;
    done = end;
  }
  return std::nullopt;
}

bool wraps(std::uint64_t address, std::size_t length) {
  return length != 0 && address + (length - 1) < address;
}

}  // namespace

Completion Completion::from_fault(const pcie::DmaFault& fault, std::uint32_t done) {
  Completion completion;
  completion.status = fault.reason == pcie::DmaFault::Reason::kWraps ? TANDEM_STATUS_BAD_RANGE
                                                                     : TANDEM_STATUS_FAULT;
  completion.done = done;
  completion.fault_address = fault.address.value;
  return completion;
}

Result<Input, pcie::DmaFault> Input::fetch(const pcie::AddressSpace& space, std::uint64_t address,
                                           std::size_t length, bool snapshot,
                                           std::vector<std::byte>& scratch) {
  Input input;
  if (length == 0) return input;
  if (wraps(address, length)) {
    return Unexpected{pcie::DmaFault{pcie::DmaFault::Reason::kWraps, pcie::Iova{address}}};
  }
  if (!snapshot) {
    auto window = space.map(pcie::Iova{address}, length, pcie::Access::kRead);
    if (window) {
      input.window_ = std::move(*window);
      input.bytes_ = input.window_.bytes();
      input.in_place_ = true;
      return input;
    }
    if (window.error().reason != pcie::DmaFault::Reason::kNotMappable) {
      return Unexpected{window.error()};
    }
  }
  if (const auto fault = read_all(space, address, length, scratch)) return Unexpected{*fault};
  input.bytes_ = std::span<const std::byte>(scratch).first(length);
  return input;
}

Result<Output, pcie::DmaFault> Output::prepare(const pcie::AddressSpace& space,
                                               std::uint64_t address, std::size_t length,
                                               bool in_place_allowed,
                                               std::vector<std::byte>& scratch) {
  Output output;
  output.space_ = &space;
  output.address_ = address;
  if (length == 0) return output;
  if (wraps(address, length)) {
    return Unexpected{pcie::DmaFault{pcie::DmaFault::Reason::kWraps, pcie::Iova{address}}};
  }
  if (in_place_allowed) {
    auto window = space.map(pcie::Iova{address}, length, pcie::Access::kWrite);
    if (window) {
      output.window_ = std::move(*window);
      output.bytes_ = output.window_.bytes();
      output.in_place_ = true;
      return output;
    }
    if (window.error().reason != pcie::DmaFault::Reason::kNotMappable) {
      return Unexpected{window.error()};
    }
  }
  if (!grow(scratch, length)) {
    return Unexpected{pcie::DmaFault{pcie::DmaFault::Reason::kMemory, pcie::Iova{address}}};
  }
  output.bytes_ = std::span(scratch).first(length);
  return output;
}

pcie::DmaResult Output::commit(std::size_t length, Input used) {
  TANDEM_CHECK(length <= bytes_.size());
  { const Input ends = std::move(used); }
  if (in_place_ || length == 0) return {length, std::nullopt};
  return space_->write(pcie::Iova{address_}, bytes_.first(length));
}

}  // namespace tandem::uacce
