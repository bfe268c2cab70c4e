/* SPDX-License-Identifier: Apache-2.0
 *
 * The sleep of a grace period and its end: Core::sleep_for_readers(), rcu_domain::unlock() and
 * wake_waiters(). Several sleepers may wait at once, with different bounds. Whoever sleeps is woken
 * (else the run ends in a state that is no end), and nobody leaves while a section lasts.
 */
#ifndef READERS
#define READERS 1
#endif
#ifndef SECTIONS
#define SECTIONS 2
#endif
#ifndef SLEEPERS
#define SLEEPERS 2
#endif
#define THREADS (READERS + SLEEPERS)
#define SEQUENCE 0
#define MOVED 1 /* futex */
#define STATE(reader) (2 + (reader))
#define WAKE(reader) (2 + READERS + (reader))
#define POINTER(updater) (2 + 2 * READERS + (updater))
#define LOCATIONS (2 + 2 * READERS + SLEEPERS)
#define DEPTH 4
#include "memory.pml"

bit reclaimed[SLEEPERS];
bit asleep[SLEEPERS]; /* in the kernel's queue */

inline futex_wake_all() {
  d_step {
    asleep[0] = 0;
#if SLEEPERS > 1
    asleep[1] = 0
#endif
  }
}

proctype Reader(byte me) {
  byte sequence, seen, which, section, wake, old;
  do
  :: section < SECTIONS ->
     atomic {
       if
       :: which = 0
#if SLEEPERS > 1
       :: which = 1
#endif
       fi
     }
     load(me, SEQUENCE, sequence);
     store(me, STATE(me), sequence, RELEASE);
     load(me, POINTER(which), seen);
     assert(seen >= reclaimed[which]);
     /* Without a fence, the load of `wake` may run as early as the section's loads. */
     if
     :: load_early(me, WAKE(me), wake)
     :: skip
     fi;
     store(me, STATE(me), 0, RELEASE);
     /* light fence (D) */
     load_unless_early(me, WAKE(me), wake);
     if
     :: wake ->
        store(me, WAKE(me), 0, RELEASE);
#ifndef MOVED_UNCHANGED
        fetch_add(me, MOVED, 1, old);
#endif
        futex_wake_all()
     :: else
     fi;
     section++;
     seen = 0; wake = 0; old = 0
  :: else -> break
  od
}

#define BLOCKS (state != 0 && state < bound)
/* The first reader that holds us up; READERS if none does. */
inline scan() {
  blocker = 0;
  do
  :: blocker < READERS ->
     load(me, STATE(blocker), state);
     if
     :: BLOCKS -> break
     :: else -> blocker++
     fi
  :: else -> break
  od;
  state = 0
}

/* One reader that holds us up is reason enough to sleep, if it was told before the fence; it wakes
 * us, and we look for the next one. */
inline tell_blockers() {
  scan();
#ifdef ALL_AT_ONCE
  first = blocker;
  do
  :: blocker < READERS ->
     load(me, STATE(blocker), state);
     if
     :: BLOCKS -> store(me, WAKE(blocker), 1, RELAXED)
     :: else
     fi;
     blocker++
  :: else -> break
  od;
  state = 0;
  blocker = first; first = 0
#else
  if
  :: blocker < READERS -> store(me, WAKE(blocker), 1, RELAXED)
  :: else
  fi
#endif
}
inline look_again() {
#ifdef ALL_AT_ONCE
  scan() /* may find a reader that was not told */
#else
  if
#ifdef NO_SECOND_LOOK
  :: true
#else
  :: blocker < READERS ->
     load(me, STATE(blocker), state);
     if
     :: BLOCKS
     :: else -> blocker = READERS
     fi;
     state = 0
  :: else
#endif
  fi
#endif
}

proctype Sleeper(byte me; byte which) {
  byte bound, seen, reached, blocker, state;
#ifdef ALL_AT_ONCE
  byte first;
#endif
  store(me, POINTER(which), 1, RELEASE);
  fetch_add(me, SEQUENCE, 1, bound);
  bound++;
  heavy_fence(me, reached);
  scan();
  do
  :: blocker < READERS ->
#ifndef SEEN_TOO_LATE
     load(me, MOVED, seen);
#endif
     tell_blockers();
#ifndef WAKE_WITHOUT_FENCE
     heavy_fence(me, reached);
#endif
     look_again();
#ifdef SEEN_TOO_LATE
     load(me, MOVED, seen);
#endif
     if
     :: blocker < READERS ->
        d_step {
          drain(me); /* the kernel's barriers */
          if
          :: memory[MOVED] == seen -> asleep[which] = 1
          :: else
          fi
        }
        asleep[which] == 0
     :: else
     fi;
     scan()
  :: else -> break
  od;
  reclaimed[which] = 1
}

init {
  atomic {
    memory[SEQUENCE] = 1;
    run Reader(0);
#if READERS > 1
    run Reader(1);
#endif
    run Sleeper(READERS, 0);
#if SLEEPERS > 1
    run Sleeper(READERS + 1, 1)
#endif
  }
}
