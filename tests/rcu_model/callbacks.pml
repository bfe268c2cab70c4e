/* SPDX-License-Identifier: Apache-2.0
 *
 * Callback queues and the idle hand-off. A producer retires: it replaces its pointer, then pushes
 * the old object on its own queue. The consumer notes how far each queue has got, runs a grace
 * period and then the callbacks noted; with nothing to do it falls asleep, and a producer that finds
 * it asleep wakes it. No section touches what was reclaimed; no callback is left behind by a
 * consumer that sleeps for ever.
 */
#ifndef READERS
#define READERS 1
#endif
#ifndef SECTIONS
#define SECTIONS 1
#endif
#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef CALLBACKS
#define CALLBACKS 1
#endif
#define THREADS (READERS + PRODUCERS + 1)
#define CONSUMER (READERS + PRODUCERS)
#define SEQUENCE 0
#define ASLEEP 1 /* futex */
#define STATE(reader) (2 + (reader))
#define POINTER(producer) (2 + READERS + (producer))
#define PUSHED(producer) (2 + READERS + PRODUCERS + (producer))
#define LOCATIONS (2 + READERS + 2 * PRODUCERS)
#include "memory.pml"

byte reclaimed[PRODUCERS];
bit sleeping; /* in the kernel's queue */

#if READERS > 0
proctype Reader(byte me) {
  byte sequence, seen, which, section;
  do
  :: section < SECTIONS ->
     atomic {
       if
       :: which = 0
#if PRODUCERS > 1
       :: which = 1
#endif
       fi
     }
     load(me, SEQUENCE, sequence);
     store(me, STATE(me), sequence, RELEASE);
     load(me, POINTER(which), seen);
     assert(seen >= reclaimed[which]);
     store(me, STATE(me), 0, RELEASE);
     section++;
     seen = 0
  :: else -> break
  od
}
#endif

proctype Producer(byte me; byte which) {
  byte count, asleep, old;
  do
  :: count < CALLBACKS ->
     count++;
     store(me, POINTER(which), count, RELEASE);
#ifdef ASLEEP_BEFORE_PUSH
     load(me, ASLEEP, asleep);
     store(me, PUSHED(which), count, RELEASE);
#else
     /* Without a fence, the load of `asleep` may run before the push. */
     if
     :: load_early(me, ASLEEP, asleep)
     :: skip
     fi;
#ifdef RELAXED_PUSH
     store(me, PUSHED(which), count, RELAXED);
#else
     store(me, PUSHED(which), count, RELEASE);
#endif
     /* light fence */
     load_unless_early(me, ASLEEP, asleep);
#endif
     if
     :: asleep ->
        exchange(me, ASLEEP, 0, old);
        if
        :: old -> sleeping = 0 /* futex_wake */
        :: else
        fi
     :: else
     fi;
     asleep = 0; old = 0
  :: else -> break
  od
}

#if PRODUCERS > 1
#define NOTE() load(me, PUSHED(0), noted[0]); load(me, PUSHED(1), noted[1])
#define NEWS (noted[0] > done[0] || noted[1] > done[1])
#define MORE (done[0] < CALLBACKS || done[1] < CALLBACKS)
#define RUN() d_step { done[0] = noted[0]; done[1] = noted[1]; \
                       reclaimed[0] = noted[0]; reclaimed[1] = noted[1] }
#else
#define NOTE() load(me, PUSHED(0), noted[0])
#define NEWS (noted[0] > done[0])
#define MORE (done[0] < CALLBACKS)
#define RUN() d_step { done[0] = noted[0]; reclaimed[0] = noted[0] }
#endif

proctype Consumer(byte me) {
  byte noted[PRODUCERS], done[PRODUCERS], bound, reached;
  do
  :: MORE ->
     NOTE();
     if
     :: NEWS ->
        fetch_add(me, SEQUENCE, 1, bound);
        bound++;
        heavy_fence(me, reached);
#if READERS > 0
        memory[STATE(0)] == 0 || memory[STATE(0)] >= bound;
#endif
#ifdef NOTED_TOO_LATE
        NOTE();
#endif
        RUN();
        bound = 0
     :: else ->
        store(me, ASLEEP, 1, RELEASE);
#ifdef ASLEEP_WITHOUT_FENCE
        skip;
#else
        heavy_fence(me, reached);
#endif
#ifndef NO_SECOND_LOOK
        NOTE();
#endif
        if
        :: NEWS
        :: else ->
           d_step { /* futex_wait */
             drain(me);
             sleeping = memory[ASLEEP]
           }
           sleeping == 0
        fi;
        store(me, ASLEEP, 0, RELEASE)
     fi
  :: else -> break
  od
}

init {
  atomic {
    memory[SEQUENCE] = 1;
#if READERS > 0
    run Reader(0);
#endif
    run Producer(READERS, 0);
#if PRODUCERS > 1
    run Producer(READERS + 1, 1);
#endif
    run Consumer(CONSUMER)
  }
}
