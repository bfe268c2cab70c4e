// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "tandem/engine/kxo/detail/owner.hpp"
#include "tandem/engine/kxo/kxo.hpp"

namespace tandem::engine::kxo::detail {

/// What make_engine() makes; tests look inside.
class KxoEngine final : public uacce::Engine {
 public:
  KxoEngine(std::string name, Options options)
      : name_(std::move(name)), device_(std::move(options)) {}

  uacce::DeviceTraits traits() const override;
  std::unique_ptr<uacce::Worker> make_worker() override;
  std::unique_ptr<uacce::Session> make_session_for(std::uint32_t tenant) override;

  Device& device() noexcept { return device_; }

 private:
  const std::string name_;
  Device device_;
};

}  // namespace tandem::engine::kxo::detail
