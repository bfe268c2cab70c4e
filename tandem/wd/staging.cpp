// SPDX-License-Identifier: Apache-2.0
#include "tandem/wd/detail/staging.hpp"

#include <algorithm>
#include <bit>

#include "tandem/wd/detail/memory.hpp"

namespace tandem::wd::detail {
namespace {

constexpr std::size_t kSmallestBuffer = std::size_t{64} << 10;
constexpr std::size_t kOperandAlignment = 64;

std::uint64_t address_of(const void* pointer) { return reinterpret_cast<std::uint64_t>(pointer); }

constexpr std::size_t aligned(std::size_t size) {
  return (size + kOperandAlignment - 1) & ~(kOperandAlignment - 1);
}

/// Operations that are still right on a shorter operand, up to its end.
constexpr bool runs_on_prefix(std::uint16_t opcode) {
  return opcode == TANDEM_OP_COPY || opcode == TANDEM_OP_COMPARE;
}

}  // namespace

void StagingPool::clear() {
  for (const StagingBuffer& buffer : all_) (void)reservations_.release(buffer.data);
  all_.clear();
  free_.clear();
}

Result<StagingBuffer> StagingPool::take(std::size_t size_bytes) {
  const auto fits = std::ranges::find_if(
      free_, [size_bytes](const StagingBuffer& buffer) { return buffer.size_bytes >= size_bytes; });
  if (fits != free_.end()) {
    const StagingBuffer buffer = *fits;
    free_.erase(fits);
    return buffer;
  }
  const std::size_t size = std::bit_ceil(std::max(size_bytes, kSmallestBuffer));
  all_.reserve(all_.size() + 1);
  free_.reserve(all_.capacity());
  auto memory = reservations_.reserve(connection_, size);
  if (!memory) return Unexpected{memory.error()};
  return all_.emplace_back(StagingBuffer{*memory, size});
}

void StagingPool::give_back(StagingBuffer buffer) {
  if (buffer.data != nullptr) free_.push_back(buffer);  // take() made room
}

bool StagedRequest::sensible(std::uint64_t address, std::uint64_t size_bytes) {
  return address < kUserAddressLimit && size_bytes <= kUserAddressLimit - address;
}

Result<StagedRequest> StagedRequest::start(const wd_request& request, ReservedView& reserved,
                                           StagingPool& pool) {
  StagedRequest staged;
  const std::uint16_t opcode = request.opcode;
  const auto wants = [&reserved](std::uint64_t address, std::uint32_t length) {
    return length != 0 && sensible(address, length) && !reserved.contains(address, length);
  };
  staged.src_ = {address_of(request.src), nullptr, request.src_len};
  staged.dst_ = {address_of(request.dst), nullptr, request.dst_len};
  const bool src = (opcode & TANDEM_OP_SRC_IN) != 0 && wants(staged.src_.user, request.src_len);
  const bool dst = (opcode & (TANDEM_OP_DST_IN | TANDEM_OP_DST_OUT)) != 0 &&
                   wants(staged.dst_.user, request.dst_len);
  if (!src && !dst) return staged;

  const std::size_t src_size = src ? aligned(request.src_len) : 0;
  auto buffer = pool.take(src_size + (dst ? aligned(request.dst_len) : 0));
  if (!buffer) return Unexpected{buffer.error()};
  staged.buffer_ = *buffer;
  if (src) staged.src_.copy = buffer->data;
  if (dst) staged.dst_.copy = buffer->data + src_size;

  if (src) staged.copy_in(staged.src_, opcode);
  if (dst && !staged.failed_ && (opcode & TANDEM_OP_DST_IN) != 0) {
    staged.copy_in(staged.dst_, opcode);
  }
  return staged;
}

void StagedRequest::copy_in(const Operand& operand, std::uint16_t opcode) {
  const std::size_t wanted = faulted_ ? std::min(readable_, operand.length) : operand.length;
  const std::size_t got = copy_from_user({operand.copy, wanted}, operand.user);
  if (got == wanted) return;
  faulted_ = true;
  readable_ = static_cast<std::uint32_t>(got);
  fault_address_ = operand.user + got;
  failed_ = got == 0 || !runs_on_prefix(opcode);
}

void StagedRequest::fill_failure(wd_request& request) const {
  const bool has_output = (request.opcode & TANDEM_OP_DST_OUT) != 0;
  request.status = TANDEM_STATUS_FAULT;
  request.result_flags = 0;
  request.done = has_output ? 0 : readable_;
  request.result = 0;
  request.fault_address = fault_address_;
}

wd_request StagedRequest::redirected(wd_request request) const {
  if (src_.copy != nullptr) request.src = src_.copy;
  if (dst_.copy != nullptr) request.dst = dst_.copy;
  if (faulted_) {
    request.src_len = readable_;
    request.dst_len = std::min(request.dst_len, readable_);
  }
  return request;
}

bool StagedRequest::map_back(const Operand& operand, std::uint64_t& address) {
  if (operand.copy == nullptr) return false;
  const std::uint64_t offset = address - address_of(operand.copy);
  if (offset > operand.length) return false;
  address = operand.user + offset;
  return true;
}

void StagedRequest::finish(const wd_request& request, tandem_completion& completion) const {
  completion.flags &= static_cast<std::uint16_t>(~TANDEM_CPL_ZERO_COPY);
  // dst first: it starts where src, rounded up, ends.
  if (completion.fault_address != 0 && !map_back(dst_, completion.fault_address)) {
    (void)map_back(src_, completion.fault_address);
  }
  if ((request.opcode & TANDEM_OP_DST_OUT) != 0 && dst_.copy != nullptr) {
    const std::uint32_t produced = std::min(completion.done, dst_.length);
    const std::size_t written = copy_to_user(dst_.user, {dst_.copy, produced});
    if (written != produced) {
      completion.status = TANDEM_STATUS_FAULT;
      completion.done = static_cast<std::uint32_t>(written);
      completion.fault_address = dst_.user + written;
      return;
    }
  }
  // The engine ran on what was readable; what came next is a fault, unless it has its answer.
  const bool answered = request.opcode == TANDEM_OP_COMPARE && completion.result < readable_;
  if (faulted_ && completion.status == TANDEM_STATUS_OK && !answered) {
    completion.status = TANDEM_STATUS_FAULT;
    completion.done = readable_;
    completion.result = 0;
    completion.fault_address = fault_address_;
  }
}

}  // namespace tandem::wd::detail
