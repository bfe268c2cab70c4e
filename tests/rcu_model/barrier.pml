/* SPDX-License-Identifier: Apache-2.0
 *
 * Stamps, and rcu_barrier() inside a section. Every retire advances the sequence and stamps the
 * object with the new value; an object is free once every reader in a section has a state of at
 * least its stamp. A barrier in a section with state s runs what is stamped up to s, which its own
 * section does not hold up; so it returns, also when its own thread retired in that section.
 */
#ifndef READERS
#define READERS 1 /* beside the thread in barrier() */
#endif
#ifndef SECTIONS
#define SECTIONS 2
#endif
#ifndef OTHER_RETIRER
#define OTHER_RETIRER 1
#endif
#define OBJECTS 2
#define THREADS (READERS + 2)
#define BARRIER READERS
#define RETIRER (READERS + 1)
#define SEQUENCE 0
#define STATE(thread) (1 + (thread)) /* readers, then the thread in barrier() */
#define POINTER(object) (1 + READERS + 1 + (object))
#define LOCATIONS (1 + READERS + 1 + OBJECTS)
#include "memory.pml"

bit queued[OBJECTS]; /* pushed and taken by sequentially consistent operations */
byte stamp[OBJECTS];
bit gone[OBJECTS];

proctype Reader(byte me) {
  byte sequence, seen, which, section;
  do
  :: section < SECTIONS ->
     atomic {
       if
       :: which = 0
       :: which = 1
       fi
     }
     load(me, SEQUENCE, sequence);
     store(me, STATE(me), sequence, RELEASE);
     load(me, POINTER(which), seen); /* 0: the object, 1: another one */
     assert(seen == 1 || !gone[which]);
     store(me, STATE(me), 0, RELEASE);
     section++;
     seen = 0
  :: else -> break
  od
}

inline retire(me, object, old) {
  store(me, POINTER(object), 1, RELEASE);
  fetch_add(me, SEQUENCE, 1, old);
#ifdef STAMP_WITHOUT_ONE
  stamp[object] = old;
#else
  stamp[object] = old + 1;
#endif
  d_step {
    drain(me);
    queued[object] = 1
  }
}

proctype Retirer(byte me) {
  byte old;
  retire(me, 1, old)
}

/* Retires object 0 before its section, or in it; then calls barrier there. */
proctype Barrier(byte me) {
  byte old, state, limit, bound, safe, other, reader, reached;
  bit before, taken[OBJECTS], late;
  if
  :: before = 1; retire(me, 0, old)
  :: skip
  fi;
  load(me, SEQUENCE, state);
  store(me, STATE(me), state, RELEASE);
  if
  :: !before -> retire(me, 0, old)
  :: else
  fi;
#ifdef LIMIT_IS_CURRENT
  load(me, SEQUENCE, limit);
#else
  limit = state;
#endif
  do
  :: true ->
     d_step {
       drain(me);
       taken[0] = queued[0];
       taken[1] = queued[1]
     }
     load(me, SEQUENCE, bound);
     heavy_fence(me, reached);
     safe = bound;
     reader = 0;
     do
     :: reader <= READERS ->
        load(me, STATE(reader), other);
        if
        :: other != 0 && other < safe -> safe = other
        :: else
        fi;
        reader++
     :: else -> break
     od;
     reader = 0;
     d_step {
#ifdef NO_COMPARISON
       gone[0] = gone[0] || taken[0];
       gone[1] = gone[1] || taken[1];
#else
       gone[0] = gone[0] || (taken[0] && stamp[0] <= safe);
       gone[1] = gone[1] || (taken[1] && stamp[1] <= safe);
#endif
       late = (taken[0] && !gone[0] && stamp[0] <= limit) || (taken[1] && !gone[1] && stamp[1] <= limit);
       other = 0; safe = 0
     }
     if
     :: !late -> break
     :: else ->
        /* wait_for_readers(limit) */
        memory[STATE(0)] == 0 || memory[STATE(0)] >= limit;
        memory[STATE(BARRIER)] == 0 || memory[STATE(BARRIER)] >= limit
     fi
  od;
  assert(!before || gone[0]);
  store(me, STATE(me), 0, RELEASE)
}

init {
  atomic {
    memory[SEQUENCE] = 1;
    run Reader(0);
    run Barrier(BARRIER);
#if OTHER_RETIRER
    run Retirer(RETIRER)
#endif
  }
}
