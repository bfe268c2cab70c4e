/* SPDX-License-Identifier: Apache-2.0
 *
 * Polled grace periods. An updater replaces its pointer and takes a cookie, the number of a grace
 * period that has yet to begin; other threads run grace periods, without a lock against each other;
 * once `completed` has reached the cookie the updater reclaims the old object, without having
 * waited. A grace period always begins by advancing the sequence.
 */
#ifndef READERS
#define READERS 1
#endif
#ifndef SECTIONS
#define SECTIONS 2
#endif
#ifndef DRIVERS
#define DRIVERS 1
#endif
#ifndef PERIODS
#define PERIODS 2
#endif
#define THREADS (READERS + DRIVERS + 1)
#define SEQUENCE 0
#define COMPLETED 1
#define POINTER 2
#define STATE(reader) (3 + (reader))
#define LOCATIONS (3 + READERS)
#include "memory.pml"

byte reclaimed;

proctype Reader(byte me) {
  byte sequence, seen, section;
  do
  :: section < SECTIONS ->
     load(me, SEQUENCE, sequence);
     store(me, STATE(me), sequence, RELEASE);
     load(me, POINTER, seen);
     assert(seen >= reclaimed);
     store(me, STATE(me), 0, RELEASE);
     section++;
     seen = 0
  :: else -> break
  od
}

proctype Updater(byte me) {
  byte cookie, completed;
  store(me, POINTER, 1, RELEASE);
#ifdef COOKIE_LOADED
  load(me, SEQUENCE, cookie); /* may run before the update is visible */
#else
  fetch_add(me, SEQUENCE, 0, cookie);
#endif
#ifndef COOKIE_WITHOUT_ONE
  cookie++;
#endif
  load(me, COMPLETED, completed); /* asks once, at any time */
  if
  :: completed >= cookie -> reclaimed = 1
  :: else
  fi
}

#define HAS_LEFT(reader) (memory[STATE(reader)] == 0 || memory[STATE(reader)] >= bound)
proctype Driver(byte me) {
  byte bound, reached, period, old;
  do
  :: period < PERIODS ->
     fetch_add(me, SEQUENCE, 1, bound);
     bound++;
#ifdef COMPLETED_EARLY
     store(me, COMPLETED, bound, RELEASE);
#endif
#ifdef NO_MEMBARRIER
     full_fence(me);
#else
     heavy_fence(me, reached);
#endif
     HAS_LEFT(0);
#if READERS > 1
     HAS_LEFT(1);
#endif
#ifdef COMPLETED_TOO_NEW
     load(me, SEQUENCE, bound);
#endif
#ifndef COMPLETED_EARLY
     /* To the maximum, by compare-and-swap. */
     d_step {
       drain(me);
       fetched[me] = 0;
       if
       :: memory[COMPLETED] < bound -> memory[COMPLETED] = bound
       :: else
       fi
     }
#endif
     bound = 0;
     period++
  :: else -> break
  od
}

init {
  atomic {
    memory[SEQUENCE] = 1;
    run Reader(0);
#if READERS > 1
    run Reader(1);
#endif
    run Updater(READERS);
    run Driver(READERS + 1);
#if DRIVERS > 1
    run Driver(READERS + 2)
#endif
  }
}
