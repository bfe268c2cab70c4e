/* SPDX-License-Identifier: Apache-2.0
 *
 * The wait line of callers: Core::drive(), Core::drive_in_turn(), Core::announce(). A caller that may
 * not end its grace period at once either drives it, in turn, or sleeps on `turn`, which is odd while
 * somebody drives, until it was served, by whomever. Others end grace periods out of turn and
 * announce that: callers that find nobody in the way, who look first whether anybody waits, and those
 * who do not wait in line (Core::expedite(), Core::try_await()). HURRIED is one of either kind, who
 * here gives up where somebody is in the way.
 *
 * The reader may stay in its last section for ever; then callers may wait for ever, too. But nobody
 * sleeps whose grace period is over (else the run ends in a state that is no end).
 *
 * PLAIN: the reader leaves its fence to who drives, so that no caller may end one at once.
 */
#ifndef CALLERS
#define CALLERS 3
#endif
#ifndef SECTIONS
#define SECTIONS 2
#endif
#ifndef HURRIED
#define HURRIED 0
#endif
#define READER (CALLERS + HURRIED)
#define THREADS (READER + 1)
#define SEQUENCE 0
#define COMPLETED 1
#define TURN 2 /* futex */
#define IN_LINE 3
#define STATE 4
#define POINTER 5 /* the first caller's; they are all alike, and one suffices to find a fault */
#define LOCATIONS 6
#include "memory.pml"

bit reclaimed[CALLERS];
bit asleep[CALLERS]; /* in the kernel's queue */
byte cookie[CALLERS];
bit stays; /* the reader, in its last section */

proctype Reader(byte me) {
  byte sequence, seen, section;
  do
  :: section < SECTIONS ->
     load(me, SEQUENCE, sequence);
     store(me, STATE, sequence, RELEASE);
#ifndef PLAIN
     full_fence(me);
#endif
     load(me, POINTER, seen);
     assert(seen >= reclaimed[0]);
     section++;
     if
     :: section == SECTIONS ->
        stays = 1;
end_stays:
        false
     :: true
     fi;
     store(me, STATE, 0, RELEASE);
     sequence = 0; seen = 0
  :: else -> break
  od
}

inline futex_wake_all() {
  d_step {
    asleep[0] = 0;
    asleep[1] = 0;
#if CALLERS > 2
    asleep[2] = 0
#endif
  }
}

inline add(where, what) {
  d_step {
    drain(me);
    memory[where] = memory[where] + what
  }
}

/* To the maximum, by compare-and-swap. */
inline complete() {
  d_step {
    drain(me);
    if
    :: memory[COMPLETED] < bound -> memory[COMPLETED] = bound
    :: else
    fi
  }
}

#define CLEAR(state) (state == 0 || state >= bound)

proctype Caller(byte me) {
  byte bound, seen, state, reached;
  bit taken, again;
  d_step { /* what may come in between is the other models' */
    if
    :: me == 0 -> memory[POINTER] = 1
    :: else
    fi;
    memory[SEQUENCE] = memory[SEQUENCE] + 1;
    bound = memory[SEQUENCE];
    cookie[me] = bound
  }
#ifndef PLAIN
  atomic {
    load(me, STATE, state);
    if
    :: CLEAR(state) -> state = 0
    :: else -> state = 0; goto line_up
    fi
  }
  complete();
#ifndef NO_ANNOUNCEMENT
  atomic {
    load(me, IN_LINE, state);
    if
    :: state != 0 -> state = 0
    :: else -> goto served
    fi
  }
#ifndef ANNOUNCED_WITHOUT_TURN
  add(TURN, 2);
#endif
  goto wake_line;
#else
  goto served;
#endif
#endif

line_up:
  atomic {
    load(me, COMPLETED, state);
    if
    :: state >= cookie[me] -> state = 0; goto served
    :: else -> state = 0
    fi
  }
  atomic {
    load(me, TURN, seen);
    if
    :: seen & 1 -> goto sleep_in_line
    :: else
    fi
  }

  /* Take the turn: from an even value to the next odd one, by compare-and-swap. */
#ifdef TAKEN_TWICE
  taken = 1;
  store(me, TURN, seen + 1, RELEASE);
  full_fence(me);
#else
  d_step {
    drain(me);
    taken = (memory[TURN] == seen);
    if
    :: taken -> memory[TURN] = seen + 1
    :: else
    fi
  }
#endif
  atomic {
    if
    :: !taken -> again = 1; seen = 0; goto line_up
    :: else -> taken = 0
    fi
  }
  if
  :: again -> load(me, SEQUENCE, bound) /* for all who came meanwhile */
  :: else
  fi;
#ifdef PLAIN
  heavy_fence(me, reached);
#endif
end_driving:
  CLEAR(memory[STATE]);
  complete();
#ifdef LINE_BEFORE_TURN
  load(me, IN_LINE, state);
  add(TURN, 1);
  atomic {
    if
    :: state != 0 -> state = 0; futex_wake_all()
    :: else
    fi
  }
  goto served;
#else
#ifdef TURN_STORED
  store(me, TURN, seen + 2, RELEASE);
#else
  add(TURN, 1);
#endif
#endif

wake_line:
  atomic {
    load(me, IN_LINE, state);
    if
    :: state != 0 -> state = 0
    :: else -> goto served
    fi
  }
  futex_wake_all();
  goto served;

sleep_in_line:
#ifdef LOOKED_BEFORE_COUNTED
  load(me, COMPLETED, state);
#endif
#ifndef NOT_COUNTED
  add(IN_LINE, 1);
#endif
#ifndef LOOKED_BEFORE_COUNTED
  load(me, COMPLETED, state);
#endif
  atomic {
    if
    :: state >= cookie[me] -> state = 0; goto out_of_line
    :: else -> state = 0
    fi
  }
  d_step {
    drain(me); /* the kernel's barriers */
    if
    :: memory[TURN] == seen -> asleep[me] = 1
    :: else
    fi
  }
end_asleep:
  asleep[me] == 0;
out_of_line:
#ifndef NOT_COUNTED
  add(IN_LINE, 255); /* minus one */
#endif
  atomic {
    again = 1;
    seen = 0;
#ifndef SERVED_BY_ANYBODY
    goto line_up
#endif
  }

served:
  atomic {
    reclaimed[me] = 1;
    bound = 0;
    seen = 0;
    again = 0
  }
}

#if HURRIED
proctype Hurried(byte me) {
  byte bound, state;
  d_step {
    memory[SEQUENCE] = memory[SEQUENCE] + 1;
    bound = memory[SEQUENCE]
  }
  atomic {
    load(me, STATE, state);
    if
    :: CLEAR(state) -> state = 0
    :: else -> goto leave
    fi
  }
  complete();
#ifndef NO_ANNOUNCEMENT
  if
  :: atomic {
       load(me, IN_LINE, state);
       if
       :: state != 0 -> state = 0
       :: else -> goto leave
       fi
     }
  :: true
  fi;
#ifndef ANNOUNCED_WITHOUT_TURN
  add(TURN, 2);
#endif
  atomic {
    load(me, IN_LINE, state);
    if
    :: state != 0
    :: else -> goto leave
    fi
  }
  futex_wake_all();
#endif
leave:
  skip
}
#endif

#define SERVED(caller) (memory[COMPLETED] >= cookie[caller])
proctype Watch() {
  timeout -> /* nobody can go on */
  (stays || (reclaimed[0] && reclaimed[1])) && !(asleep[0] && SERVED(0)) && !(asleep[1] && SERVED(1));
#if CALLERS > 2
  (stays || reclaimed[2]) && !(asleep[2] && SERVED(2))
#endif
}

init {
  atomic {
    memory[SEQUENCE] = 1;
    run Caller(0);
    run Caller(1);
#if CALLERS > 2
    run Caller(2);
#endif
#if HURRIED
    run Hurried(CALLERS);
#endif
    run Reader(READER);
    run Watch()
  }
}
