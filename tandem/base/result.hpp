// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <variant>

#include "tandem/base/check.hpp"

namespace tandem {

/// Wraps an error so that it converts to any Result with that error type.
template <class E>
class Unexpected {
 public:
  constexpr explicit Unexpected(E error) : error_(std::move(error)) {}
  constexpr const E& error() const& { return error_; }
  constexpr E&& error() && { return std::move(error_); }

 private:
  E error_;
};

namespace detail {
/// Tells the error that nobody looked at on standard error and aborts.
[[noreturn]] void no_value(const char* error) noexcept;

template <class E>
[[noreturn, gnu::cold, gnu::noinline]] void no_value_but(const E& error) noexcept {
  if constexpr (requires { std::string(error.message()); }) {
    no_value(std::string(error.message()).c_str());
  } else if constexpr (std::is_constructible_v<std::string, const E&>) {
    no_value(std::string(error).c_str());
  } else {
    no_value("one that has no text");
  }
}
}  // namespace detail

/// A value or the reason why there is none; spells its members as std::expected does.
///
/// Errors: value(), * and -> end the program where there is none, with the error's text; error()
///         where there is a value.
template <class T, class E = std::error_code>
class [[nodiscard]] Result {
 public:
  using value_type = T;
  using error_type = E;

  constexpr Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  template <class G>
  constexpr Result(Unexpected<G> unexpected)
      : state_(std::in_place_index<1>, std::move(unexpected).error()) {}

  constexpr bool has_value() const noexcept { return state_.index() == 0; }
  constexpr explicit operator bool() const noexcept { return has_value(); }

  constexpr T& value() & {
    if (!has_value()) [[unlikely]]
      detail::no_value_but(error());
    return *std::get_if<0>(&state_);
  }
  constexpr const T& value() const& { return const_cast<Result&>(*this).value(); }
  constexpr T&& value() && { return std::move(value()); }
  constexpr T& operator*() & { return value(); }
  constexpr const T& operator*() const& { return value(); }
  constexpr T&& operator*() && { return std::move(value()); }
  constexpr T* operator->() { return &value(); }
  constexpr const T* operator->() const { return &value(); }

  constexpr const E& error() const {
    const E* const held = std::get_if<1>(&state_);
    TANDEM_CHECK(held != nullptr);
    return *held;
  }
  template <class U>
  constexpr T value_or(U&& fallback) const& {
    return has_value() ? value() : static_cast<T>(std::forward<U>(fallback));
  }

 private:
  std::variant<T, E> state_;
};

template <class E>
class [[nodiscard]] Result<void, E> {
 public:
  using value_type = void;
  using error_type = E;

  constexpr Result() = default;
  template <class G>
  constexpr Result(Unexpected<G> unexpected)
      : state_(std::in_place_index<1>, std::move(unexpected).error()) {}

  constexpr bool has_value() const noexcept { return state_.index() == 0; }
  constexpr explicit operator bool() const noexcept { return has_value(); }
  constexpr void value() const {
    if (!has_value()) [[unlikely]]
      detail::no_value_but(error());
  }
  constexpr const E& error() const {
    const E* const held = std::get_if<1>(&state_);
    TANDEM_CHECK(held != nullptr);
    return *held;
  }

 private:
  std::variant<std::monostate, E> state_;
};

/// The errno `number` (positive) as a result's error.
inline Unexpected<std::error_code> errno_error(int number) {
  return Unexpected{std::error_code(number, std::generic_category())};
}
/// The calling thread's errno as a result's error.
inline Unexpected<std::error_code> last_errno() { return errno_error(errno); }

}  // namespace tandem
