/* SPDX-License-Identifier: Apache-2.0
 *
 * Plain, fenced and quiescent-state readers in one registry, and a grace period that leaves the
 * heavy fence out while no plain reader is registered. A plain reader counts itself with a
 * sequentially consistent read-modify-write and makes a full fence in its first section; from then
 * on a light one does.
 */
#ifndef PLAIN_SECTIONS
#define PLAIN_SECTIONS 2
#endif
#ifndef FENCED_SECTIONS
#define FENCED_SECTIONS 0
#endif
#ifndef QUIESCENT_ROUNDS
#define QUIESCENT_ROUNDS 0
#endif
#ifndef UPDATES
#define UPDATES 2
#endif
#define THREADS 4
#define PLAIN 0
#define FENCED 1
#define QUIESCENT 2
#define UPDATER 3
#define SEQUENCE 0
#define POINTER 1
#define PLAIN_READERS 2
#define REGISTRY 3 /* mutex */
#define STATE(reader) (4 + (reader))
#define LOCATIONS 7
#include "memory.pml"

byte reclaimed;
bit linked[3]; /* under the registry's mutex */

#define USE_POINTER() load(me, POINTER, seen); assert(seen >= reclaimed)

inline link_reader(thread) {
  lock_mutex(thread, REGISTRY);
  linked[thread] = 1;
  unlock_mutex(thread, REGISTRY)
}
inline unlink_reader(thread) {
  lock_mutex(thread, REGISTRY);
  linked[thread] = 0;
  unlock_mutex(thread, REGISTRY)
}

proctype PlainReader(byte me) {
  byte sequence, seen, section, old;
#ifndef LINKED_TOO_LATE
  link_reader(me);
#endif
#ifndef COUNTED_TOO_LATE
  fetch_add(me, PLAIN_READERS, 1, old);
#endif
  do
  :: section < PLAIN_SECTIONS ->
     load(me, SEQUENCE, sequence);
     store(me, STATE(me), sequence, RELEASE);
#ifdef COUNTED_TOO_LATE
     if
     :: section == 1 -> fetch_add_relaxed(me, PLAIN_READERS, 1, old)
     :: else
     fi;
#elif !defined(ATTACHED_WITHOUT_FENCE)
     if
     :: section == 0 -> full_fence(me)
     :: else
     fi;
#endif
     load(me, POINTER, seen);
#ifdef LINKED_TOO_LATE
     if
     :: section == 0 -> link_reader(me)
     :: else
     fi;
#endif
     assert(seen >= reclaimed);
     store(me, STATE(me), 0, RELEASE);
     section++;
     seen = 0
  :: else -> break
  od;
  unlink_reader(me);
  fetch_add(me, PLAIN_READERS, 255, old) /* minus one */
}

proctype FencedReader(byte me) {
  byte sequence, seen, section;
  link_reader(me);
  do
  :: section < FENCED_SECTIONS ->
     load(me, SEQUENCE, sequence);
     store(me, STATE(me), sequence, RELEASE);
#ifndef FENCED_WITHOUT_FENCE
     full_fence(me);
#endif
     load(me, POINTER, seen);
     assert(seen >= reclaimed);
     store(me, STATE(me), 0, RELEASE);
     section++;
     seen = 0
  :: else -> break
  od;
  unlink_reader(me)
}

proctype QuiescentReader(byte me) {
  byte sequence, state, seen, round;
  link_reader(me);
  load(me, SEQUENCE, state); /* online */
  store(me, STATE(me), state, RELEASE);
#ifndef ONLINE_WITHOUT_FENCE
  full_fence(me);
#endif
  do
  :: round < QUIESCENT_ROUNDS ->
     load(me, POINTER, seen);
#ifdef QUIESCENT_EARLY
     load(me, SEQUENCE, sequence);
     store(me, STATE(me), sequence, RELAXED);
     assert(seen >= reclaimed);
#else
     assert(seen >= reclaimed);
     seen = 0;
     load(me, SEQUENCE, sequence);
     if
     :: sequence != state ->
        state = sequence;
        store(me, STATE(me), state, RELEASE);
#ifndef QUIESCENT_WITHOUT_FENCE
        full_fence(me)
#endif
     :: else
     fi;
#endif
     round++
  :: else -> break
  od;
  store(me, STATE(me), 0, RELEASE); /* offline */
  unlink_reader(me)
}

/* One scan of the registry for one reader, until it has left. */
inline wait_for(reader) {
  do
  :: atomic {
       memory[REGISTRY] == 0 && buffer[me].count == 0 ->
       left = !linked[reader] || memory[STATE(reader)] == 0 || memory[STATE(reader)] >= bound
     }
     if
     :: left -> break
     :: else -> (!linked[reader] || memory[STATE(reader)] == 0 || memory[STATE(reader)] >= bound)
     fi
  od;
  left = 0
}

proctype Updater(byte me) {
  byte bound, reached, update, plain;
  bit left;
  do
  :: update < UPDATES ->
     update++;
     store(me, POINTER, update, RELEASE);
#ifdef COUNT_BEFORE_BUMP
     load(me, PLAIN_READERS, plain);
     fetch_add(me, SEQUENCE, 1, bound);
#else
     fetch_add(me, SEQUENCE, 1, bound);
     load(me, PLAIN_READERS, plain);
#endif
     bound++;
     if
#ifdef ALWAYS_SKIP
     :: true -> full_fence(me)
#else
     :: plain != 0 -> heavy_fence(me, reached)
     :: else -> full_fence(me)
#endif
     fi;
     plain = 0;
     wait_for(PLAIN);
     wait_for(FENCED);
     wait_for(QUIESCENT);
     reclaimed = update
  :: else -> break
  od
}

init {
  atomic {
    memory[SEQUENCE] = 1;
#if PLAIN_SECTIONS > 0
    run PlainReader(PLAIN);
#endif
#if FENCED_SECTIONS > 0
    run FencedReader(FENCED);
#endif
#if QUIESCENT_ROUNDS > 0
    run QuiescentReader(QUIESCENT);
#endif
    run Updater(UPDATER)
  }
}
