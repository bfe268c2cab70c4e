// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace tandem::rcutorture {

/// While it lives, the thread that made it is sent signals.
class Signalled {
 public:
  Signalled();
  ~Signalled();
  Signalled(const Signalled&) = delete;
  Signalled& operator=(const Signalled&) = delete;
};

/// Has every signal call `act(context)` in its handler. Null: no more.
void set_signal_action(void (*act)(void* context) noexcept, void* context);
/// Sends a signal to one of those threads. Returns: whether there was one.
bool send_signal(unsigned choice);

}  // namespace tandem::rcutorture
