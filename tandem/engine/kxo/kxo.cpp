// SPDX-License-Identifier: Apache-2.0
#include "tandem/engine/kxo/kxo.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>
#include <utility>

#include "tandem/abi/kxo.h"
#include "tandem/engine/kxo/detail/engine.hpp"

namespace tandem::engine::kxo {
namespace {

using detail::Owner;
using detail::UserRef;
using pcie::AddressSpace;
using pcie::DmaResult;
using pcie::Iova;
using uacce::Completion;

Completion refused(tandem_status status) { return {.status = status}; }

constexpr std::uint64_t kRingAlignment = 64;

class KxoWorker final : public uacce::Worker {
 public:
  explicit KxoWorker(detail::Device& device) : device_(device), here_(device.options().agents) {}

  Completion execute(const tandem_descriptor& descriptor, const AddressSpace& space,
                     uacce::Session* session) override;

 private:
  /// Which fields an operation takes; the others are zero.
  struct Operation {
    tandem_opcode opcode;
    std::uint32_t src_len, dst_len;
    bool param;
    Completion (KxoWorker::*run)(const tandem_descriptor&, const AddressSpace&, Owner&);
  };
  static const Operation kOperations[];

  Completion get_id(const tandem_descriptor& descriptor, const AddressSpace& space, Owner& owner);
  Completion set_permission(const tandem_descriptor& descriptor, const AddressSpace& space,
                            Owner& owner);
  Completion release_id(const tandem_descriptor& descriptor, const AddressSpace& space,
                        Owner& owner);
  Completion write(const tandem_descriptor& descriptor, const AddressSpace& space, Owner& owner);
  Completion board(const tandem_descriptor& descriptor, const AddressSpace& space, Owner& owner);
  Completion resume(const tandem_descriptor& descriptor, const AddressSpace& space, Owner& owner);

  bool may_play(std::uint32_t player) const {
    return player == TANDEM_KXO_USER ||
           (player < TANDEM_KXO_PLAYERS &&
            device_.options().agents->knows(static_cast<std::uint8_t>(player)));
  }

  detail::Device& device_;
  detail::AgentCache here_;
};

const KxoWorker::Operation KxoWorker::kOperations[] = {
    {TANDEM_OP_KXO_GET_ID, sizeof(tandem_kxo_setup), 0, false, &KxoWorker::get_id},
    {TANDEM_OP_KXO_SET_PERMISSION, 0, 0, true, &KxoWorker::set_permission},
    {TANDEM_OP_KXO_RELEASE_ID, 0, 0, false, &KxoWorker::release_id},
    {TANDEM_OP_KXO_WRITE, 0, 0, true, &KxoWorker::write},
    {TANDEM_OP_KXO_BOARD, 0, sizeof(tandem_kxo_board), false, &KxoWorker::board},
    {TANDEM_OP_KXO_RESUME, 0, 0, false, &KxoWorker::resume},
};

Completion KxoWorker::execute(const tandem_descriptor& descriptor, const AddressSpace& space,
                              uacce::Session* session) {
  for (const Operation& operation : kOperations) {
    if (operation.opcode != descriptor.opcode) continue;
    if (descriptor.flags != 0 || descriptor.reserved[0] != 0 || descriptor.reserved[1] != 0 ||
        descriptor.src_len != operation.src_len || descriptor.dst_len != operation.dst_len ||
        (descriptor.param != 0 && !operation.param)) {
      return refused(TANDEM_STATUS_BAD_DESCRIPTOR);
    }
    return (this->*operation.run)(descriptor, space, static_cast<Owner&>(*session));
  }
  return refused(TANDEM_STATUS_UNKNOWN_OPCODE);
}

Completion KxoWorker::get_id(const tandem_descriptor& descriptor, const AddressSpace& space,
                             Owner& owner) {
  if (descriptor.operand != 0) return refused(TANDEM_STATUS_BAD_DESCRIPTOR);
  tandem_kxo_setup wanted;  // a private copy: what is checked is what is used
  const DmaResult read =
      space.read(Iova{descriptor.src}, std::as_writable_bytes(std::span(&wanted, 1)));
  if (!read.ok())
    return Completion::from_fault(*read.fault, static_cast<std::uint32_t>(read.done_bytes));
  const auto is_zero = [](std::uint64_t word) { return word == 0; };
  if (!std::has_single_bit(wanted.capacity) || wanted.capacity < TANDEM_KXO_MIN_CAPACITY ||
      wanted.capacity > TANDEM_KXO_MAX_CAPACITY || wanted.ring % kRingAlignment != 0 ||
      wanted.reserved0 != 0 || wanted.reserved1 != 0 ||
      !std::ranges::all_of(wanted.reserved, is_zero)) {
    return refused(TANDEM_STATUS_BAD_DESCRIPTOR);
  }
  if (!may_play(wanted.player_o) || !may_play(wanted.player_x)) {
    return refused(TANDEM_STATUS_UNKNOWN_AGENT);
  }
  const bool standard = wanted.width == 0 && wanted.height == 0 && wanted.goal == 0;
  auto rules =
      standard ? device_.rules(4, 4, 3) : device_.rules(wanted.width, wanted.height, wanted.goal);
  if (!rules) return refused(TANDEM_STATUS_BAD_DESCRIPTOR);
  const auto id = owner.add(wanted, std::move(*rules), space);
  if (!id) {
    Completion completion = refused(id.error());
    if (id.error() == TANDEM_STATUS_BAD_RANGE) completion.fault_address = wanted.ring;
    return completion;
  }
  return {.done = sizeof wanted, .result = *id, .bytes_copied = sizeof wanted};
}

Completion KxoWorker::set_permission(const tandem_descriptor& descriptor, const AddressSpace&,
                                     Owner& owner) {
  const std::uint32_t o = descriptor.param & 0xFF, x = descriptor.param >> 8;
  const UserRef user = owner.find(descriptor.operand);
  if (!user) return refused(TANDEM_STATUS_UNKNOWN_ID);
  if (!may_play(o) || !may_play(x)) return refused(TANDEM_STATUS_UNKNOWN_AGENT);
  const auto new_o = static_cast<std::uint8_t>(o), new_x = static_cast<std::uint8_t>(x);
  if (!owner.prepare(new_o, new_x, user->rules())) return refused(TANDEM_STATUS_NO_ROOM);
  const tandem_status status = user->set_players(new_o, new_x);
  if (status == TANDEM_STATUS_OK) device_.pool().kick(*user);
  return refused(status);
}

Completion KxoWorker::release_id(const tandem_descriptor& descriptor, const AddressSpace&,
                                 Owner& owner) {
  const UserRef user = owner.find(descriptor.operand);
  if (!user || !owner.remove(*user, true)) return refused(TANDEM_STATUS_UNKNOWN_ID);
  return {};
}

Completion KxoWorker::write(const tandem_descriptor& descriptor, const AddressSpace&,
                            Owner& owner) {
  const UserRef user = owner.find(descriptor.operand);
  if (!user) return refused(TANDEM_STATUS_UNKNOWN_ID);
  const auto move = user->write(descriptor.param);
  if (!move) return refused(move.error());
  device_.pool().kick(*user);
  return {.result = *move};
}

Completion KxoWorker::board(const tandem_descriptor& descriptor, const AddressSpace& space,
                            Owner& owner) {
  const UserRef user = owner.find(descriptor.operand);
  if (!user) return refused(TANDEM_STATUS_UNKNOWN_ID);
  const tandem_kxo_board board = user->board();
  const DmaResult written = space.write(Iova{descriptor.dst}, std::as_bytes(std::span(&board, 1)));
  const auto done = static_cast<std::uint32_t>(written.done_bytes);
  if (!written.ok()) return Completion::from_fault(*written.fault, done);
  return {.done = done, .bytes_copied = done};
}

Completion KxoWorker::resume(const tandem_descriptor& descriptor, const AddressSpace&,
                             Owner& owner) {
  const UserRef user = owner.find(descriptor.operand);
  if (!user) return refused(TANDEM_STATUS_UNKNOWN_ID);
  const auto due = device_.pool().run_here(*user, here_);
  return {.result = static_cast<std::uint64_t>(due.count())};
}

}  // namespace

uacce::DeviceTraits detail::KxoEngine::traits() const {
  return {.name = name_, .api = "tandem_kxo_v1", .algorithms = {"game"}};
}

std::unique_ptr<uacce::Worker> detail::KxoEngine::make_worker() {
  return std::make_unique<KxoWorker>(device_);
}

std::unique_ptr<uacce::Session> detail::KxoEngine::make_session_for(std::uint32_t tenant) {
  return std::make_unique<Owner>(device_, tenant);
}

std::unique_ptr<uacce::Engine> make_engine(std::string name, Options options) {
  return std::make_unique<detail::KxoEngine>(std::move(name), std::move(options));
}

}  // namespace tandem::engine::kxo
