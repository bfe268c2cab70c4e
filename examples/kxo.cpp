// SPDX-License-Identifier: Apache-2.0
// Plays a game against an agent on the device "kxo", and has two agents play another one meanwhile.
#include "tandem/wd/kxo.hpp"

#include <cstdio>

namespace wd = tandem::wd;
using wd::kxo::Player;

int main() {
  auto device = wd::kxo::Device::open();
  if (!device) return std::fprintf(stderr, "kxo: %s\n", device.error().hint), 1;
  auto mine = device->add({.o = Player::kUser, .x = Player::kRandom, .seed = 1}).value();
  auto theirs = device->add({.o = Player::kRandom, .x = Player::kRandom, .seed = 2}).value();

  for (int cell = 0;;) {
    const auto move = mine.wait();
    if (move) {
      std::printf("%c%d ", move->x ? 'X' : 'O', move->cell);
      if (!move->over) continue;
      std::printf("%s\n", move->draw ? "draw" : move->x ? "you lost" : "you won");
      break;
    }
    if (move.error().code != wd::Code::kWrongTurn) return 1;
    while (!mine.play(cell)) ++cell;  // the first free cell: not a strong player
  }
  for (auto move = theirs.wait(); move; move = theirs.wait()) {
    std::printf("%c%d ", move->x ? 'X' : 'O', move->cell);
    if (move->over) return std::puts(move->draw ? "draw" : ""), 0;
  }
  return 1;
}
