/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The game device: what its operations mean, and the ring through which a user's moves come out.
 *
 * A queue on the device is an owner. Its users are boards with two players; they end with the
 * queue. A user's moves are published in a ring in the client's reserved memory, by the device and
 * without an operation, and read there without a system call. Bits and words are the framework's:
 * little-endian, naturally aligned, accessed atomically, loaded once.
 *
 * Operations (fields that are not named are 0):
 *
 * | opcode         | in                                     | out |
 * |----------------|----------------------------------------|-----|
 * | GET_ID         | src: struct tandem_kxo_setup           | result: the id |
 * | SET_PERMISSION | operand: id; param: O's player, X's << 8 | |
 * | RELEASE_ID     | operand: id                            | nothing reaches the ring any more |
 * | WRITE          | operand: id; param: cell               | result: the move, as in the ring |
 * | BOARD          | operand: id; dst: struct tandem_kxo_board | |
 * | RESUME         | operand: id                            | result: ns until a move is due |
 */
#ifndef TANDEM_ABI_KXO_H
#define TANDEM_ABI_KXO_H

#include "tandem/abi/ring.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Who moves for a player: a permission. Others than USER are agents of the device. */
enum tandem_kxo_player {
  TANDEM_KXO_USER = 0, /* the client, by WRITE */
  TANDEM_KXO_MCTS = 1,
  TANDEM_KXO_NEGAMAX = 2,
  TANDEM_KXO_TD = 3,
  TANDEM_KXO_RANDOM = 4,
  TANDEM_KXO_PERFECT = 5,
  TANDEM_KXO_Q = 6,
};
#define TANDEM_KXO_PLAYERS 7u

/**
 * What GET_ID asks for. 64 bytes. Reserved words are zero.
 *
 * Agents are those of tandem::kxo; docs/kxo-engines.md says how to get the same moves without a
 * device. What they find out for one move they keep for the next ones of the same game as far as
 * `memory_kib` goes; SET_PERMISSION makes them forget. 0: they begin anew with every move.
 */
struct tandem_kxo_setup {
  uint64_t ring;     /* address of struct tandem_kxo_ring, in reserved memory, 64-byte aligned */
  uint32_t capacity; /* moves that the ring holds: a power of two, 2 … 65536 */
  uint8_t width, height, goal; /* all 0: 4, 4, 3 */
  uint8_t reserved0;
  uint8_t player_o, player_x; /* enum tandem_kxo_player */
  uint16_t moves_per_second;  /* of agents; 0: as fast as they can */
  uint32_t work;              /* nodes or iterations an agent may spend on a move; 0: its default */
  uint64_t seed;              /* game g of the user has the random numbers of (seed, g) */
  uint32_t memory_kib;        /* that its agents may keep from move to move, each the half of it */
  uint32_t reserved1;
  uint64_t reserved[3];
};

#define TANDEM_KXO_MIN_CAPACITY 2u
#define TANDEM_KXO_MAX_CAPACITY 65536u

/** What a user waits for. */
enum tandem_kxo_state {
  TANDEM_KXO_AGENTS_TURN = 0,
  TANDEM_KXO_USERS_TURN = 1, /* nothing comes before a WRITE */
  TANDEM_KXO_GONE = 2,       /* released, or its queue died */
};

/**
 * A ring, 128 bytes, and behind it `capacity` moves of four bytes: number n in slot
 * n & (capacity - 1). Zeroed by the client before GET_ID.
 *
 * The device publishes no move while `capacity` are not taken: nothing is overwritten. It then
 * stores 1 in `stalled`, and looks at `taken` again; the client stores `taken`, then loads
 * `stalled`, and if it is 1 sends RESUME. It may do so once for several moves, at the latest when
 * it has taken all. Likewise publication/`waiting`. Between each store and load stands a full
 * fence.
 */
struct tandem_kxo_ring {
  /* device */
  uint64_t progress; /* moves published so far, modulo 2^32; enum tandem_kxo_state << 32 */
  uint32_t event;    /* futex word: bumped before a sleeping reader is woken */
  uint32_t stalled;
  uint32_t device_pad[12];
  /* client */
  uint32_t taken;   /* moves read so far, modulo 2^32 */
  uint32_t waiting; /* 1: sleeps on `event` */
  uint32_t client_pad[14];
};

/** Bytes of a ring with its moves. */
static inline uint64_t tandem_kxo_ring_size(uint32_t capacity) {
  return sizeof(struct tandem_kxo_ring) + (uint64_t)capacity * 4;
}

/**
 * A move. Its low byte is that of kxo: bits 0–3 the cell, 4 the player (0: O), 5 the game is over,
 * 6 it is a draw. Bits 8–9 are bits 4–5 of the cell on boards of more than 16; bits 10–31 are the
 * low bits of the move's number, so that a slot that is read too late or too early shows.
 */
#define TANDEM_KXO_MOVE_X 0x10u
#define TANDEM_KXO_MOVE_OVER 0x20u
#define TANDEM_KXO_MOVE_DRAW 0x40u
#define TANDEM_KXO_MOVE_NUMBER_SHIFT 10

static inline uint32_t tandem_kxo_move_cell(uint32_t move) {
  return (move & 0xFu) | (move >> 4 & 0x30u);
}
static inline uint32_t tandem_kxo_make_move(uint32_t cell, uint32_t flags, uint32_t number) {
  return (cell & 0xFu) | (cell & 0x30u) << 4 | flags | number << TANDEM_KXO_MOVE_NUMBER_SHIFT;
}

/** What BOARD tells: the state after `published` moves. 64 bytes. */
struct tandem_kxo_board {
  uint64_t o, x;                     /* bit (row * width + column): a stone */
  uint32_t published;                /* moves, over all games */
  uint32_t state;                    /* enum tandem_kxo_state */
  uint64_t games;                    /* that have ended */
  uint8_t width, height, goal, over; /* over: these are the stones of a game that has ended */
  uint8_t player_o, player_x;
  uint8_t reserved0[2];
  uint64_t reserved[3];
};

#ifdef __cplusplus
}
static_assert(sizeof(tandem_kxo_setup) == 64 && sizeof(tandem_kxo_ring) == 128);
static_assert(sizeof(tandem_kxo_board) == 64);
#endif

#endif
