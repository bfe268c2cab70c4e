/* SPDX-License-Identifier: Apache-2.0
 *
 * Grace periods and their sharing: rcu_domain::lock() and unlock(), Core::synchronize() and
 * Core::wait_for_readers(). Updater u replaces the object that pointer u names and reclaims the old
 * one after synchronize(); no section may touch a reclaimed object, and everybody finishes.
 */
#ifndef READERS
#define READERS 2
#endif
#ifndef SECTIONS
#define SECTIONS 2
#endif
#ifndef UPDATERS
#define UPDATERS 1
#endif
#ifndef UPDATES
#define UPDATES 2
#endif
#define THREADS (READERS + UPDATERS)
#define SEQUENCE 0
#define COMPLETED 1
#define GRACE 2 /* mutex */
#define STATE(reader) (3 + (reader))
#define POINTER(updater) (3 + READERS + (updater))
#define LOCATIONS (3 + READERS + UPDATERS)
#include "memory.pml"

byte reclaimed[UPDATERS]; /* objects below are gone */

proctype Reader(byte me) {
  byte sequence, seen, which, section;
  do
  :: section < SECTIONS ->
     atomic {
       if
       :: which = 0
#if UPDATERS > 1
       :: which = 1
#endif
       fi
     }
#ifdef RELAXED_SEQUENCE_LOAD
     load(me, POINTER(which), seen); /* no (B): the section's load runs first */
     load(me, SEQUENCE, sequence);
     store(me, STATE(me), sequence, RELEASE);
#else
     load(me, SEQUENCE, sequence);
     store(me, STATE(me), sequence, RELEASE);
     load(me, POINTER(which), seen);
#endif
#ifdef RELAXED_UNLOCK
     store(me, STATE(me), 0, RELAXED); /* no (C): it overtakes the section's last access */
     assert(seen >= reclaimed[which]);
#else
     assert(seen >= reclaimed[which]);
     store(me, STATE(me), 0, RELEASE);
#endif
     section++;
     seen = 0
  :: else -> break
  od
}

#define HAS_LEFT(reader) (memory[STATE(reader)] == 0 || memory[STATE(reader)] >= bound)
inline scan() {
  HAS_LEFT(0);
#if READERS > 1
  HAS_LEFT(1)
#endif
}

proctype Updater(byte me; byte which) {
  byte target, bound, completed, reached, update;
  do
  :: update < UPDATES ->
     update++;
#ifdef BOUND_BEFORE_UPDATE
     load(me, SEQUENCE, bound);
     store(me, POINTER(which), update, RELEASE);
     fetch_add(me, SEQUENCE, 1, target);
#elif defined(BUMP_RELAXED)
     store(me, POINTER(which), update, RELEASE);
     fetch_add_relaxed(me, SEQUENCE, 1, target);
#elif defined(BUMP_NOT_ATOMIC)
     store(me, POINTER(which), update, RELEASE);
     load(me, SEQUENCE, target);
     store(me, SEQUENCE, target + 1, RELEASE);
#else
     store(me, POINTER(which), update, RELEASE);
     fetch_add(me, SEQUENCE, 1, target);
#endif
#ifndef TARGET_WITHOUT_ONE
     target++;
#endif
     lock_mutex(me, GRACE);
     load(me, COMPLETED, completed);
     if
     :: completed >= target
     :: else ->
#ifndef BOUND_BEFORE_UPDATE
        load(me, SEQUENCE, bound);
#endif
#ifdef COMPLETED_EARLY
        store(me, COMPLETED, bound, RELAXED);
        unlock_mutex(me, GRACE);
#endif
#ifdef SCAN_BEFORE_FENCE
        scan();
        heavy_fence(me, reached);
#elif defined(NO_MEMBARRIER)
        full_fence(me);
        scan();
#else
        heavy_fence(me, reached);
        scan();
#endif
#ifdef COMPLETED_TOO_NEW
        load(me, SEQUENCE, bound); /* counts what was announced during this grace period */
#endif
#ifndef COMPLETED_EARLY
        store(me, COMPLETED, bound, RELAXED)
#endif
     fi;
#ifdef COMPLETED_EARLY
     if
     :: completed >= target -> unlock_mutex(me, GRACE)
     :: else
     fi;
#else
     unlock_mutex(me, GRACE);
#endif
     reclaimed[which] = update
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
    run Updater(READERS, 0);
#if UPDATERS > 1
    run Updater(READERS + 1, 1)
#endif
  }
}
