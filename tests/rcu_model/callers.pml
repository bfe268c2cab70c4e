/* SPDX-License-Identifier: Apache-2.0
 *
 * Plain readers that are updaters, too: Core::drive() and Core::Waiting. Each has a section in which
 * it follows another's pointer, then replaces the object that its own pointer names, and reclaims
 * the old one after a grace period. While it waits for one it does not count as a plain reader, and
 * who finds nobody counted leaves the heavy fence out.
 */
#ifndef CALLERS
#define CALLERS 2
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#define THREADS CALLERS
#define SEQUENCE 0
#define PLAIN_READERS 1
#define STATE(thread) (2 + (thread))
#define POINTER(thread) (2 + CALLERS + (thread))
#define LOCATIONS (2 + 2 * CALLERS)
#include "memory.pml"

byte reclaimed[CALLERS]; /* objects below are gone */

#define HAS_LEFT(thread) (me == (thread) || memory[STATE(thread)] == 0 || memory[STATE(thread)] >= bound)

proctype Caller(byte me) {
  byte sequence, seen, which, round, bound, plain, old, reached;
  bit waits, counted = 1;
  do
  :: round < ROUNDS ->
     round++;
     which = (me + 1) % CALLERS;
     load(me, SEQUENCE, sequence);
     store(me, STATE(me), sequence, RELEASE);
     load(me, POINTER(which), seen);
#ifdef COUNTED_TOO_LATE
     if
     :: !counted -> fetch_add_relaxed(me, PLAIN_READERS, 1, old); counted = 1
     :: else
     fi;
#endif
#ifdef UNCOUNTED_TOO_EARLY
     fetch_add_relaxed(me, PLAIN_READERS, 255, old);
#endif
     assert(seen >= reclaimed[which]);
     store(me, STATE(me), 0, RELEASE);
     seen = 0;

#ifdef COUNT_BEFORE_BUMP
     load(me, PLAIN_READERS, plain);
#endif
     store(me, POINTER(me), round, RELEASE);
     fetch_add(me, SEQUENCE, 1, bound);
     bound++;
#ifndef COUNT_BEFORE_BUMP
     load(me, PLAIN_READERS, plain);
#endif
#ifdef UNCOUNTED_TOO_EARLY
     plain++;
#endif
     if
     :: plain > 1 -> /* others than this one */
#ifndef UNCOUNTED_TOO_EARLY
        fetch_add(me, PLAIN_READERS, 255, old); /* minus one */
#endif
        waits = 1;
        load(me, PLAIN_READERS, plain);
        if
        :: plain == 0
        :: heavy_fence(me, reached)
        fi
     :: else
     fi;
     HAS_LEFT(0) && HAS_LEFT(1);
#if CALLERS > 2
     HAS_LEFT(2);
#endif
     reclaimed[me] = round;
#ifdef UNCOUNTED_TOO_EARLY
     waits = 1;
#endif
     if
#ifdef COUNTED_TOO_LATE
     :: waits -> counted = 0
#elif defined(NEVER_COUNTED_AGAIN)
     :: waits
#else
     :: waits -> fetch_add(me, PLAIN_READERS, 1, old)
#endif
     :: else
     fi;
     waits = 0;
     plain = 0;
     bound = 0
  :: else -> break
  od;
  fetch_add(me, PLAIN_READERS, 255, old) /* its thread ends */
}

init {
  atomic {
    memory[SEQUENCE] = 1;
    memory[PLAIN_READERS] = CALLERS;
    run Caller(0);
    run Caller(1);
#if CALLERS > 2
    run Caller(2)
#endif
  }
}
