/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory as weak as the grace-period protocol may meet it, for the models beside this file.
 *
 * A thread's stores wait in its buffer and reach memory one by one, in any order that keeps each
 * location's own order; a release store goes after all stores before it. A thread sees its own
 * stores at once. A load that runs before earlier instructions is written out by the model:
 * load_early(), and a fence in between makes it load again. That covers x86 (buffers
 * that drain in order) and aarch64 (stores reach all other threads at the same time).
 *
 * A read-modify-write is acq_rel: what the thread stored before is visible first, and it happens in
 * one step. The heavy fence is a full fence of its caller, then one of every other thread,
 * each at its own time and in any order, then one of its caller, as membarrier does it.
 *
 * Before including: THREADS (up to 5), LOCATIONS. Every location starts as 0.
 */
#ifndef DEPTH
#define DEPTH 3 /* stores that may wait in one buffer */
#endif
#define RELAXED 0
#define RELEASE 1

typedef Stores {
  byte count;
  byte location[DEPTH];
  byte value[DEPTH];
  bit release[DEPTH]
}

byte memory[LOCATIONS];
Stores buffer[THREADS];
bit fetched[THREADS]; /* what the thread loaded early is still good */
hidden byte i_, j_;

/* Lets the store at `index` reach memory. Only within d_step. */
inline commit(thread, index) {
  memory[buffer[thread].location[index]] = buffer[thread].value[index];
  j_ = index;
  do
  :: j_ + 1 < buffer[thread].count ->
     buffer[thread].location[j_] = buffer[thread].location[j_ + 1];
     buffer[thread].value[j_] = buffer[thread].value[j_ + 1];
     buffer[thread].release[j_] = buffer[thread].release[j_ + 1];
     j_++
  :: else -> break
  od;
  buffer[thread].location[j_] = 0;
  buffer[thread].value[j_] = 0;
  buffer[thread].release[j_] = 0;
  buffer[thread].count--;
  j_ = 0
}

/* Only within d_step. */
inline drain(thread) {
  do
  :: buffer[thread].count > 0 -> commit(thread, 0)
  :: else -> break
  od
}

/* Only within d_step. */
inline look(thread, where, into) {
  into = memory[where];
  i_ = 0;
  do
  :: i_ < buffer[thread].count ->
     if
     :: buffer[thread].location[i_] == where -> into = buffer[thread].value[i_]
     :: else
     fi;
     i_++
  :: else -> break
  od;
  i_ = 0
}

inline load(thread, where, into) { d_step { look(thread, where, into) } }

/* A load that ran before instructions that stand before it; good until a fence. */
inline load_early(thread, where, into) {
  d_step {
    look(thread, where, into);
    fetched[thread] = 1
  }
}
/* The same load where it stands. */
inline load_unless_early(thread, where, into) {
  d_step {
    if
    :: fetched[thread]
    :: else -> look(thread, where, into)
    fi;
    fetched[thread] = 0
  }
}

inline store(thread, where, what, order) {
  d_step {
    buffer[thread].count < DEPTH ->
    buffer[thread].location[buffer[thread].count] = where;
    buffer[thread].value[buffer[thread].count] = what;
    buffer[thread].release[buffer[thread].count] = order;
    buffer[thread].count++
  }
}

inline full_fence(thread) {
  d_step {
    drain(thread);
    fetched[thread] = 0
  }
}

inline fetch_add(thread, where, what, old) {
  d_step {
    drain(thread);
    fetched[thread] = 0;
    old = memory[where];
    memory[where] = old + what
  }
}

/* A relaxed one: what the thread stored before may still be in its buffer. */
inline fetch_add_relaxed(thread, where, what, old) {
  d_step {
    old = memory[where];
    memory[where] = old + what
  }
}

inline exchange(thread, where, what, old) {
  d_step {
    drain(thread);
    fetched[thread] = 0;
    old = memory[where];
    memory[where] = what
  }
}

inline lock_mutex(thread, where) {
  d_step {
    memory[where] == 0 && buffer[thread].count == 0 -> /* own unlock() may be under way */
    fetched[thread] = 0;
    memory[where] = 1
  }
}

inline unlock_mutex(thread, where) { store(thread, where, 0, RELEASE) }

#define REACH(thread) :: d_step { !(reached & (1 << (thread))) -> \
    drain(thread); fetched[thread] = 0; reached = reached | (1 << (thread)) }
inline heavy_fence(thread, reached) {
  full_fence(thread);
  reached = 1 << thread;
  do
  REACH(0)
  REACH(1)
#if THREADS > 2
  REACH(2)
#endif
#if THREADS > 3
  REACH(3)
#endif
#if THREADS > 4
  REACH(4)
#endif
  :: reached == (1 << THREADS) - 1 -> break
  od;
  reached = 0;
  full_fence(thread)
}

#define MAY_OVERTAKE(thread, index, earlier) \
  (!buffer[thread].release[index] && buffer[thread].location[index] != buffer[thread].location[earlier])
#define DRAIN(thread) \
  :: d_step { buffer[thread].count > 0 -> commit(thread, 0) } \
  :: d_step { buffer[thread].count > 1 && MAY_OVERTAKE(thread, 1, 0) -> commit(thread, 1) } \
  :: d_step { buffer[thread].count > 2 && MAY_OVERTAKE(thread, 2, 0) && MAY_OVERTAKE(thread, 2, 1) -> \
              commit(thread, 2) }

active proctype Memory() {
end:
  do
  DRAIN(0)
  DRAIN(1)
#if THREADS > 2
  DRAIN(2)
#endif
#if THREADS > 3
  DRAIN(3)
#endif
#if THREADS > 4
  DRAIN(4)
#endif
  od
}
