"""Every record in shared memory: one numpy dtype each, the only description of its layout.

Reading a field: all are int64 unless density pays (then read as ``np.int64(...)``). Words that another process writes while it is read
start with ``x`` and are touched only through :mod:`~gomp.core.shm.atomics`, at ``address + offset``; every other field is constant,
written by the record's owner alone, protected by the named lock, or changed with the world stopped, as its comment says.

Kernels reach a table through its accessor, ``spans()[i].npages``, and a P's record, which has two addresses (see the alias rule in
:mod:`~gomp.core.shm.layout`), through ``p_at(addr)``.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from gomp.core.jit import COMPILED, inline
from gomp.core.shm import layout

Fields = list[tuple[Any, ...]]


def record(fields: Fields, size: int) -> np.dtype[Any]:
    """The aligned dtype of ``fields``, padded to ``size`` bytes."""
    natural = np.dtype(fields, align=True)
    if natural.itemsize > size:
        raise AssertionError(f"record of {natural.itemsize} bytes does not fit in {size}")
    names = list(natural.names or ())
    if taken := [name for name in names if hasattr(np.void, name)]:
        raise AssertionError(f"in Python these fields would take the place of numpy's own attributes: {taken}")
    formats = [natural.fields[n][0] for n in names]  # type: ignore[index]
    offsets = [natural.fields[n][1] for n in names]  # type: ignore[index]
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size}, align=False)


def offset_of(dtype: np.dtype[Any], field: str) -> int:
    """Bytes from the start of the record to ``field``."""
    return int(dtype.fields[field][1])  # type: ignore[index]


# --- the runtime ------------------------------------------------------------------------------------------------------

GC_OFF, GC_MARK = 0, 1
# The coordinator marks, or it rests while it is others' turn, or because others have all the work there is.
RESTS_NOT, RESTS_FOR_TURN, RESTS_FOR_WORK = 0, 1, 2
MAGIC = 0x504D4F47  # "GOMP"

runtime_dtype = record(
    [
        # constant after init
        ("magic", "i8"),
        ("version", "i8"),  # layout_version()
        ("max_pages", "i8"),  # size of this runtime's heap segment, in pages
        ("nprocs", "i8"),  # GOMAXPROCS: Ps 0..nprocs-1 run programs; changed with the world stopped
        ("slots", "i8"),  # P records of those that may run programs: as many as nprocs may grow to
        ("nrecords", "i8"),  # P records in use: those, then a script's and attached ones; COORDINATOR_P besides
        ("start_ns", "i8"),  # nanotime() when the runtime began
        ("coordinator_pid", "i8"),
        ("clobberfree", "i8"),  # GODEBUG
        ("scavenge_lazily", "i8"),  # GODEBUG madvdontneed=0: released pages stay until memory is short
        ("collect_every", "i8"),  # GODEBUG gccollectevery=k: a collection at every k-th slow allocation; 0 is off
        (
            "stop_the_world",
            "i8",
        ),  # GODEBUG gcstoptheworld: 1 marks with the world stopped, 2 sweeps before it starts again
        ("committed_ps", "i8"),  # P records whose memory is there, in use or not
        ("resized_ns", "i8"),  # when nprocs last changed
        ("cpu_before_ns", "i8"),  # until then, CPU time that there was for programs: nprocs times the time, added up
        ("keep_free", "i8"),  # GODEBUG scavengeoff=1: nothing is returned in order to have less
        ("limit_is_auto", "i8"),  # 1: the memory limit follows the cgroup's; for those who show it
        ("procs_are_auto", "i8"),  # 1: nprocs follows the system; the same
        # the stop: set and cleared by the coordinator alone
        ("xstop", "i8"),  # 0: the world runs; n: stop number n is in force. A futex for those who wait for it to end
        ("xragged", "i8"),  # number of the last ragged barrier asked for
        ("_pad1", "i8", (5,)),
        # requests to the coordinator
        ("xgc_request", "i8"),  # 0 or GC_TRIGGER_*: set by whoever wants a cycle, taken by the coordinator
        (
            "xcycle_done",
            "i8",
        ),  # number of finished cycles, forced ones with their sweep: a futex for those who wait for one
        ("xshutdown", "i8"),  # 1: the runtime ends; nobody waits any more
        ("stop_ended_ns", "i8"),  # when the last stop did
        ("xready", "i8"),  # 1: programs may be given to the runtime, and each P has a process
        ("xthrow", "i8"),  # 0, or a THROW_* code and the P that threw it: a kernel found the heap corrupt (sched/throw)
        ("xlost_lock", "i8"),  # 0, or a lock and its owner: somebody has waited too long; cleared by the coordinator
        ("_pad2", "i8"),
        # the cycle: written with the world stopped
        ("xgcphase", "i8"),  # GC_*: while it is not GC_OFF the write barrier is on and objects are born black
        ("sweepgen", "i8"),  # += 2 each cycle; see span_dtype
        ("xcycles", "i8"),  # mark phases begun: a futex for those who met the trigger
        ("xsweep_class", "i8"),  # 2 * span class + set, where the sweep goes on; 272: nothing left
        ("xsweepers", "i8"),  # processes inside a sweep step
        ("xpages_swept", "i8"),
        ("sweep_basis_live", "i8"),  # proportional sweep (mgcsweep.go: heapLive at the last pacing)
        ("sweep_basis_pages", "i8"),
        ("sweep_ratio", "f8"),  # pages to sweep per byte allocated; 0: nothing left
        ("_pad3", "i8", (7,)),
        # the mark phase
        ("xflushed", "i8"),  # number of the last ragged barrier at which some P still had grey objects
        ("xroot_next", "i8"),  # next root job
        ("root_jobs", "i8"),  # how many there are
        ("root_global_shards", "i8"),
        ("root_special_shards", "i8"),
        ("xoverflow", "i8"),  # 1: marked objects were dropped for want of a work buffer
        ("xresting", "i8"),  # why the coordinator does not mark just now: RESTS_*
        ("root_pool_shards", "i8"),
        # work buffers: stacks of buffer numbers, under wbuf_lock
        ("xwbuf_lock", "i8"),
        ("xwbuf_full", "i8"),  # length of the stack of full buffers; read without the lock as a hint
        ("wbuf_empty", "i8"),  # length of the stack of empty ones
        ("wbuf_made", "i8"),  # buffers ever carved
        ("_pad5", "i8", (4,)),
        # tables, under type_lock
        ("xtable_lock", "i8"),
        ("ntypes", "i8"),
        ("mask_words", "i8"),  # words used in type_masks
        ("xnglobals", "i8"),  # globals ever named: the store that publishes the last one's name
        ("tasks_committed", "i8"),  # goroutine records whose memory is there
        ("xnpools", "i8"),  # pools ever named: the store that publishes the last one's head
        ("_pad6", "i8", (3,)),
        # special records, under specials_lock
        ("xspecials_lock", "i8"),
        ("nspecials", "i8"),  # records ever made: numbers 1..nspecials
        ("specials_free", "i8"),  # number of the first free one, 0: none
        ("special_ids", "i8"),  # ids ever given
        # the stop that is on: by who stops the world
        ("stop_is_gc", "i8"),  # 1: a pause of the collector's; said before it begins
        ("stop_began_ns", "i8"),  # when it was asked for; 0: the world runs
        ("stop_stood_ns", "i8"),  # when all Ps stood, 0: not yet
        ("stopping_cpu_ns", "i8"),  # until then: what those that stood first have waited for the last
        ("service_pid", "i8"),  # 0: there is none; constant
    ],
    1024,
)
# Requests, the stronger the greater.
GC_TRIGGER_HEAP, GC_TRIGGER_TIME, GC_TRIGGER_FORCED, GC_TRIGGER_LAST_RESORT = 1, 2, 3, 4
GC_WAIT_CREDIT = 8  # not a request: what a call from Python waits for that could not pay its assist
SWEEP_SETS = 2 * layout.NUM_SPAN_CLASSES

# heap_committed + heap_released == bytes of all pages the heap has grown to; heap_inuse <= heap_committed: the rest is free
mheap_dtype = record(
    [
        ("xlock", "i8"),
        ("_pad0", "i8", (7,)),
        # under the lock
        ("end_page", "i8"),  # pages 0..end_page-1 have been grown
        ("search_page", "i8"),  # no free page below this one
        ("metadata_pages", "i8"),  # pages whose span records and bitmaps are committed
        ("held", "i8"),  # 1 while somebody is inside: whoever finds it set follows one that died there
        ("scav_gen", "i8"),  # see heap/scavindex.py
        ("scav_background", "i8"),  # cursors
        ("scav_forced", "i8"),
        ("scav_freed", "i8"),  # the highest page freed in this generation, + 1
        ("huge_pages", "i8"),  # pages in a huge page of the system's, if it gives shared memory any; constant
        ("_pad1", "i8", (7,)),
        # changed by atomic addition
        ("pages_in_use", "i8"),  # in spans; read with the world stopped, or as a hint
        ("xheap_inuse", "i8"),
        (
            "xheap_committed",
            "i8",
        ),  # a term of its own, so that what the limit counts does not waver while spans come and go
        ("xheap_released", "i8"),
        ("xheap_alloc", "i8"),  # bytes allocated, less bytes freed, ever: by the totals of the Ps
        # committed in the metadata segment: what is indexed by page, work buffers and span queues, records and tables
        ("xmetadata_bytes", "i8"),
        ("xwbuf_bytes", "i8"),
        ("xtable_bytes", "i8"),
        ("xcommit_budget", "i8"),  # bytes that may be committed until the coordinator looks at the cgroup again
        ("xcommit_taken", "i8"),  # bytes that were ever taken from it, or were to be ...
        ("xcommit_done", "i8"),  # ... and of those, what is committed by now, or will not be
    ],
    320,
)

# Go's gcControllerState: what decisions are made from. Written with the world stopped, but for the x-fields.
pacer_dtype = record(
    [
        ("xheap_live", "i8"),
        ("_pad0", "i8", (7,)),
        ("xheap_scan", "i8"),
        ("_pad1", "i8", (7,)),
        ("gc_percent", "i8"),  # -1: off
        ("memory_limit", "i8"),
        ("heap_minimum", "i8"),
        ("heap_marked", "i8"),
        ("last_heap_scan", "i8"),
        ("last_stack_scan", "i8"),
        ("max_stack_scan", "i8"),  # as much may be scanned at most: what the handles and stacks held last
        ("globals_scan", "i8"),
        ("gc_percent_goal", "i8"),
        ("triggered", "i8"),  # heap_live when this cycle began; NO_GOAL while none is on
        ("last_heap_goal", "i8"),
        ("mark_start_ns", "i8"),
        ("runway", "i8"),
        ("sweep_dist_min_trigger", "i8"),
        ("cons_mark", "f8"),
        ("last_cons_mark", "f8", (4,)),
        ("fractional_goal", "f8"),  # share of its time that each P marks
        ("assist_work_per_byte", "f8"),  # revised while marking, by whoever moves xheap_live
        ("assist_bytes_per_work", "f8"),
        ("max_idle", "i8"),  # how many idle Ps may mark
        ("_pad2", "i8", (3,)),
        # the cycle, added to by those who mark
        ("xheap_scan_work", "i8"),
        ("xstack_scan_work", "i8"),
        ("xglobals_scan_work", "i8"),
        ("xbg_scan_credit", "i8"),  # work that assists need not do
        ("xcredit_given", "i8"),  # how often there was new credit: a futex for assists that wait
        ("xassist_waiters", "i8"),  # how many do; a hint
        ("xdedicated_needed", "i8"),
        ("_pad3", "i8"),
        ("xassist_ns", "i8"),
        ("xdedicated_ns", "i8"),
        ("xfractional_ns", "i8"),
        ("xidle_ns", "i8"),
    ],
    1024,
)

# A decision of the pacer, as it was taken: the pacer's record then, and what else went into it. Written by the coordinator while the world is
# stopped, and by it read and forgotten before the next pause.
(
    PACER_EVENT_START,
    PACER_EVENT_STARTED,
    PACER_EVENT_RESTARTED,
    PACER_EVENT_ENDING,
    PACER_EVENT_ENDED,
    PACER_EVENT_SET,
) = range(6)
MAX_PACER_EVENTS = 16
pacer_event_dtype = record(
    [
        ("event", "i8"),
        ("now_ns", "i8"),
        ("procs", "i8"),
        ("kind", "i8"),  # of the cycle: GC_TRIGGER_*
        ("mapped", "i8"),  # what the memory limit counts
        ("heap_free", "i8"),
        ("heap_alloc", "i8"),
        ("goal", "i8"),
        ("trigger", "i8"),
        ("limit_goal", "i8"),
        ("is_sweep_done", "i8"),
        ("is_marking", "i8"),
        ("_pad0", "i8", (4,)),
        ("pacer", "i8", (128,)),  # its whole record
    ],
    1152,
)
pacer_log_dtype = record([("is_on", "i8"), ("n", "i8"), ("_pad0", "i8", (6,))], 64)

# What has been: one writer, the coordinator, while the world is stopped.
gcstats_dtype = record(
    [
        ("num_gc", "i8"),
        ("num_forced", "i8"),
        ("num_automatic", "i8"),
        ("last_gc_unix_ns", "i8"),
        ("pause_total_ns", "i8"),
        ("pause_max_ns", "i8"),
        ("stopping_total_ns", "i8"),
        ("pause_cpu_ns", "i8"),
        ("heap0", "i8"),  # the last cycle: live at start, at the end of marking, marked
        ("heap1", "i8"),
        ("heap2", "i8"),
        ("last_goal", "i8"),
        ("last_start_ns", "i8"),
        ("last_mark_ns", "i8"),  # when marking began, and ended
        ("last_term_ns", "i8"),
        ("last_stopped_ns", "i8"),  # when the world stood still at the end
        ("last_end_ns", "i8"),
        ("last_forced", "i8"),
        ("last_pause_ns", "i8"),  # all pauses of the cycle so far
        ("last_assist_ns", "i8"),
        ("last_dedicated_ns", "i8"),
        ("last_fractional_ns", "i8"),
        ("last_idle_ns", "i8"),
        ("assist_ns", "i8"),  # totals of all cycles
        ("dedicated_ns", "i8"),
        ("fractional_ns", "i8"),
        ("idle_ns", "i8"),
        ("stops", "i8"),  # pauses, at least two a cycle
        # after deaths: how often, how long, and what was put right
        ("repairs", "i8"),
        ("repair_ns", "i8"),
        ("repair_last_ns", "i8"),
        ("repair_max_ns", "i8"),
        ("repaired_locks", "i8"),  # released
        ("repaired_redos", "i8"),  # changes that were finished
        ("repaired_spans", "i8"),  # that were in somebody's hand
        ("repaired_handles", "i8"),  # dropped
        ("repaired_marking", "i8"),  # mark phases started over
        ("pause_ns", "i8", (256,)),  # of whole cycles, as Go counts them
        ("pause_end_ns", "i8", (256,)),
        ("stop_ns", "i8", (512,)),  # the last pauses, each by itself
    ],
    16384,
)

# A cycle that has ended, in a ring: number n is at n % CYCLES_KEPT. Written by the coordinator while the world is stopped, before num_gc counts it;
# who reads looks at num_gc before and afterwards. Times by the monotonic clock.
CYCLES_KEPT = 32
cycle_dtype = record(
    [
        ("number", "i8"),  # from 1
        ("start_ns", "i8"),  # when the first stop was asked for
        ("mark_ns", "i8"),  # when marking began, and ended
        ("term_ns", "i8"),
        ("end_ns", "i8"),
        ("pause_ns", "i8"),  # all its pauses
        ("forced", "i8"),  # 1: somebody asked for it
        ("procs", "i8"),
        ("heap_start", "i8"),
        ("heap_end", "i8"),  # when marking ended
        ("heap_marked", "i8"),
        ("goal", "i8"),  # that it was to end at
        ("assist_ns", "i8"),
        ("dedicated_ns", "i8"),
        ("fractional_ns", "i8"),
        ("idle_ns", "i8"),
    ],
    128,
)
# How long something took, how often (histogram.go): counts of durations, and their exact sum. See sched/timehist.py. One writer.
TIME_BUCKETS = 162
timehist_dtype = record([("counts", "i8", (TIME_BUCKETS,)), ("sum_ns", "i8")], 1344)

# What the CPU time of the Ps was spent on, in ns, up to the end of the last marking: see gc/cpuclasses.py. Written whole, then published by
# the head's word.
(
    CPU_PAUSE,
    CPU_DEDICATED,
    CPU_SCAVENGE_BACKGROUND,
    CPU_SCAVENGE_ASSIST,
    CPU_MARK_IDLE,
    CPU_ASSIST,
    CPU_IDLE,
    CPU_USER,
    CPU_CLASSES,
) = range(9)
cpu_head_dtype = record([("xpublished", "i8")], 64)  # how often: the last is in cpu_dtype number xpublished % 2
cpu_dtype = record([("ns", "i8", (CPU_CLASSES,)), ("total_ns", "i8")], 128)

# Go's gcCPULimiterState: a bucket of CPU time that collection fills and programs drain. Under its lock, but for the x-fields.
limiter_dtype = record(
    [
        ("xlock", "i8"),
        ("_pad0", "i8", (7,)),
        ("nprocs", "i8"),
        ("filled", "i8"),  # CPU time in ns
        ("capacity", "i8"),
        ("overflow", "i8"),  # what did not fit, ever
        ("xassist_pool", "i8"),  # not accounted yet
        ("xidle_pool", "i8"),
        ("xlast_update", "i8"),
        ("gc_enabled", "i8"),
        ("transitioning", "i8"),
        ("xlimiting", "i8"),
        ("last_enabled_cycle", "i8"),
        ("times_enabled", "i8"),
        ("enabled_at", "i8"),  # when it was last
        ("limited_ns", "i8"),  # how long it was, up to the last time that it ended
    ],
    256,
)

# The pace of giving memory back: the coordinator's.
scavpace_dtype = record(
    [
        ("kp", "f8"),
        ("ti", "f8"),
        ("tt", "f8"),
        ("least", "f8"),
        ("most", "f8"),
        ("err_integral", "f8"),
        ("err_overflow", "i8"),
        ("input_overflow", "i8"),
        ("output", "f8"),
        ("sleep_ratio", "f8"),  # time at work by time asleep
        ("cooldown_ns", "i8"),  # the controller is left alone so long
        ("worked_ns", "f8"),  # in the last piece of work
        # goals: written with the world stopped
        ("gc_percent_goal", "i8"),
        ("memory_limit_goal", "i8"),
        ("last_in_use", "i8"),  # heap in use at the end of the last marking
        ("swept_in_use", "i8"),  # and when its sweep was over
        # totals, ever
        ("xbackground_bytes", "i8"),
        ("xeager_bytes", "i8"),  # by those who allocate
        ("xforced_bytes", "i8"),  # because somebody wanted all of it back
        ("xbackground_ns", "i8"),
        ("xeager_ns", "i8"),
    ],
    256,
)

# Spans whose stacks are free, or some of them: see heap/stackalloc.py. Lists of page numbers, -1 at the end.
STACK_LARGE_LISTS = 24
stackpool_dtype = record(
    [
        ("xlock", "i8"),
        ("_pad0", "i8", (7,)),
        ("head", "i8", (layout.STACK_ORDERS,)),  # by order: spans with a free stack
        ("large", "i8", (STACK_LARGE_LISTS,)),  # by log2 of the pages: free stacks that are a span each
        ("xspan_bytes", "i8"),  # of all spans of stacks: changed by atomic addition
        ("xmax_stack", "i8"),  # bytes that one stack may have (SetMaxStack)
        (
            "start_size",
            "i8",
        ),  # bytes of a stack that is taken anew for a record that was used before (startingStackSize)
        # GODEBUG
        ("never_shrink", "i8"),  # gcshrinkstackoff=1
        ("start_small", "i8"),  # adaptivestackstart=0
        ("always_copy", "i8"),  # stackcopyalways=1
    ],
    512,
)

# Go's sched: what all Ps share of the table of goroutines. Under its lock.
sched_dtype = record(
    [
        ("xlock", "i8"),
        ("_pad0", "i8", (7,)),
        ("ngs", "i8"),  # records ever made: numbers 1..ngs
        ("gs_committed", "i8"),  # bytes of the table whose memory is there
        ("free_with_stack", "i8"),  # numbers of the first free records, 0: none
        ("free_without", "i8"),
        ("nfree", "i8"),
        # of the marking: changed with the world stopped
        ("mark_epoch", "i8"),  # how often marking has begun, or begun anew
        ("job_gs", "i8"),  # records that its root jobs are about
        (
            "xscanned_bytes",
            "i8",
        ),  # used bytes of the stacks scanned, and how many stacks: what the next ones begin with
        ("xscanned_stacks", "i8"),
        # goroutines that are ready to run and in no P's queue: numbers of the first and the last, linked
        ("runq_head", "i8"),
        ("runq_tail", "i8"),
        ("xrunq_size", "i8"),  # read without the lock as a hint
        ("xgoids", "i8"),  # ids ever given, in blocks
        ("_pad1", "i8", (2,)),
        # who may run what becomes ready; changed by atomic addition
        ("xparked", "i8"),  # Ps that sleep until there is something to run
        ("xspinning", "i8"),  # Ps that look for something, or were just woken to
        ("xsysmon", "i8"),  # 1: the coordinator looks every few ms whether what is ready gets its turn
        # leaks: see gc/leaks.py. Changed with the world stopped, or by the coordinator while nobody marks
        ("leaks_wanted", "i8"),  # 1: the cycle that is on, or the next, looks for them
        ("leak_mode", "i8"),  # LEAKS_*: of the marking that is on
        ("leak_marked", "i8"),  # objects ever made grey when the last round over the stacks began, -1: none has
        ("first_stack_job", "i8"),  # number of the first root job that is about stacks
        ("leaked", "i8"),  # goroutines that the last look has found, of leak_looks
        ("leak_looks", "i8"),
        ("xleak_scans", "i8"),  # stacks scanned in the round; by atomic addition
        ("xleaked", "i8"),  # found so far by the look that is on; the same
    ],
    320,
)
LEAKS_IGNORED, LEAKS_HIDE, LEAKS_REVEAL = 0, 1, 2

RUNTIME = layout.RUNTIME_BASE
MHEAP = layout.RUNTIME_BASE + 4096
PACER = layout.RUNTIME_BASE + 8192
LIMITER = layout.RUNTIME_BASE + 12288
SCAVPACE = layout.RUNTIME_BASE + 12288 + 1024
STACKPOOL = layout.RUNTIME_BASE + 12288 + 2048
SCHED = STACKPOOL + stackpool_dtype.itemsize
GCSTATS = layout.RUNTIME_BASE + 16384
GCSTATS_NUM_GC = GCSTATS + offset_of(gcstats_dtype, "num_gc")
SCAV_XBACKGROUND, SCAV_XEAGER, SCAV_XFORCED, SCAV_XBACKGROUND_NS, SCAV_XEAGER_NS = (
    SCAVPACE + offset_of(scavpace_dtype, name)
    for name in ("xbackground_bytes", "xeager_bytes", "xforced_bytes", "xbackground_ns", "xeager_ns")
)
PACER_LOG = layout.RUNTIME_BASE + 32768
PACER_EVENTS = PACER_LOG + pacer_log_dtype.itemsize
CYCLES = layout.RUNTIME_BASE + (60 << 10)
# Stops by who wanted them: how long until the world stood, and how long until it ran again.
STOPPING_OTHER, STOPPED_OTHER, STOPPING_GC, STOPPED_GC = (
    layout.RUNTIME_BASE + 53248 + i * timehist_dtype.itemsize for i in range(4)
)
CPU_HEAD = STOPPED_GC + timehist_dtype.itemsize
CPU_STATS = CPU_HEAD + cpu_head_dtype.itemsize
CPU_XPUBLISHED = CPU_HEAD + offset_of(cpu_head_dtype, "xpublished")
CPU_NS, CPU_TOTAL = offset_of(cpu_dtype, "ns"), offset_of(cpu_dtype, "total_ns")
MEMPROFILE = CPU_STATS + 2 * cpu_dtype.itemsize

RT_XSTOP, RT_XGC_REQUEST, RT_XCYCLE_DONE, RT_XSHUTDOWN, RT_XTHROW, RT_XSWEEP_CLASS, RT_XSWEEPERS, RT_XPAGES_SWEPT = (
    RUNTIME + offset_of(runtime_dtype, name)
    for name in (
        "xstop",
        "xgc_request",
        "xcycle_done",
        "xshutdown",
        "xthrow",
        "xsweep_class",
        "xsweepers",
        "xpages_swept",
    )
)
RT_XLOST_LOCK = RUNTIME + offset_of(runtime_dtype, "xlost_lock")
RT_XSPECIALS_LOCK = RUNTIME + offset_of(runtime_dtype, "xspecials_lock")
RT_XNGLOBALS, RT_XNPOOLS = (RUNTIME + offset_of(runtime_dtype, f) for f in ("xnglobals", "xnpools"))
RT_XOVERFLOW = RUNTIME + offset_of(runtime_dtype, "xoverflow")
RT_XRESTING = RUNTIME + offset_of(runtime_dtype, "xresting")
RT_XGCPHASE, RT_XCYCLES, RT_XFLUSHED, RT_XROOT_NEXT, RT_XWBUF_LOCK, RT_XWBUF_FULL, RT_XTABLE_LOCK, RT_XRAGGED = (
    RUNTIME + offset_of(runtime_dtype, name)
    for name in ("xgcphase", "xcycles", "xflushed", "xroot_next", "xwbuf_lock", "xwbuf_full", "xtable_lock", "xragged")
)
MHEAP_XLOCK, MHEAP_XINUSE, MHEAP_XCOMMITTED, MHEAP_XRELEASED, MHEAP_XMETADATA, MHEAP_XWBUF, MHEAP_PAGES_IN_USE = (
    MHEAP + offset_of(mheap_dtype, name)
    for name in (
        "xlock",
        "xheap_inuse",
        "xheap_committed",
        "xheap_released",
        "xmetadata_bytes",
        "xwbuf_bytes",
        "pages_in_use",
    )
)
MHEAP_XBUDGET, MHEAP_XTAKEN, MHEAP_XDONE = (
    MHEAP + offset_of(mheap_dtype, name) for name in ("xcommit_budget", "xcommit_taken", "xcommit_done")
)
MHEAP_XALLOC = MHEAP + offset_of(mheap_dtype, "xheap_alloc")
MHEAP_HELD = MHEAP + offset_of(mheap_dtype, "held")
MHEAP_XTABLES = MHEAP + offset_of(mheap_dtype, "xtable_bytes")
PACER_XLIVE, PACER_XSCAN = (PACER + offset_of(pacer_dtype, name) for name in ("xheap_live", "xheap_scan"))
PACER_XHEAP_WORK, PACER_XSTACK_WORK, PACER_XGLOBALS_WORK, PACER_XCREDIT, PACER_XCREDIT_GIVEN, PACER_XWAITERS = (
    PACER + offset_of(pacer_dtype, name)
    for name in (
        "xheap_scan_work",
        "xstack_scan_work",
        "xglobals_scan_work",
        "xbg_scan_credit",
        "xcredit_given",
        "xassist_waiters",
    )
)
PACER_XDEDICATED_NEEDED, PACER_XASSIST_NS, PACER_XDEDICATED_NS, PACER_XFRACTIONAL_NS, PACER_XIDLE_NS = (
    PACER + offset_of(pacer_dtype, name)
    for name in ("xdedicated_needed", "xassist_ns", "xdedicated_ns", "xfractional_ns", "xidle_ns")
)

STACKPOOL_XLOCK, STACKPOOL_XSPAN_BYTES, STACKPOOL_XMAX_STACK = (
    STACKPOOL + offset_of(stackpool_dtype, n) for n in ("xlock", "xspan_bytes", "xmax_stack")
)

(
    SCHED_XLOCK,
    SCHED_XSCANNED_BYTES,
    SCHED_XSCANNED_STACKS,
    SCHED_XRUNQ_SIZE,
    SCHED_XGOIDS,
    SCHED_XPARKED,
    SCHED_XSPINNING,
    SCHED_XSYSMON,
    SCHED_XLEAK_SCANS,
    SCHED_XLEAKED,
) = (
    SCHED + offset_of(sched_dtype, name)
    for name in (
        "xlock",
        "xscanned_bytes",
        "xscanned_stacks",
        "xrunq_size",
        "xgoids",
        "xparked",
        "xspinning",
        "xsysmon",
        "xleak_scans",
        "xleaked",
    )
)
LIMITER_XLOCK, LIMITER_XASSIST, LIMITER_XIDLE, LIMITER_XLAST_UPDATE, LIMITER_XLIMITING = (
    LIMITER + offset_of(limiter_dtype, name)
    for name in ("xlock", "xassist_pool", "xidle_pool", "xlast_update", "xlimiting")
)

# --- a P --------------------------------------------------------------------------------------------------------------

# Status. SAFE -> KERNEL: the P itself. KERNEL -> SAFE: the P itself. SAFE -> CLAIMED + q, and back: P q, which acts for it.
# All of it is in the low half of the word, which is what a futex compares.
STATUS_SAFE, STATUS_KERNEL, STATUS_CLAIMED = 0, 1, 1 << 16
# Why a P should leave its fast path. Set by others with OR, cleared by the P itself (STOP and SHUTDOWN: by whoever set it).
POLL_STOP, POLL_RAGGED, POLL_INTERRUPT, POLL_SHUTDOWN, POLL_WORK, POLL_CLEAR, POLL_SCHED, POLL_OVERDUE = (
    1 << i for i in range(8)
)
POLL_OTHERS = POLL_SCHED | POLL_OVERDUE  # others are to have their turn; and a slice later they still wait for it

MCACHE_ENTRY = 48
mcache_dtype = record(
    [
        ("free", "i8"),  # bit i: the slot at base + i * elem_size is free, and the fast path may take it
        ("base_addr", "i8"),  # address of the window's first slot
        ("page", "i8"),  # the span's first page, or -1: no span
        (
            "window",
            "i8",
        ),  # number of the window of 64 slots in the span, or -1: none is open, free, held and base_addr say nothing
        ("held", "i8"),  # free slots above all those in free: they come when these are used up. See heap/sampling.py
        ("until_sample", "i8"),  # bytes that may be taken from held before an object is sampled, -1: not drawn yet
    ],
    MCACHE_ENTRY,
)
MCACHE_FREE, MCACHE_WINDOW, MCACHE_PAGE, MCACHE_HELD = (
    offset_of(mcache_dtype, name) for name in ("free", "window", "page", "held")
)

p_dtype = record(
    [
        # written by others; each on its own line
        ("xstatus", "i8"),
        ("_pad0", "i8", (7,)),
        ("xpoll", "i8"),
        ("stood_ns", "i8"),  # in a stop: since when it has stood, as far as who stops the world has seen; 0: it ran yet
        ("_pad1", "i8", (6,)),
        # written by this P's process
        ("idx", "i8"),
        ("xpid", "i8"),
        ("heap_fd", "i8"),  # this process's descriptors
        ("meta_fd", "i8"),
        ("wake_fd", "i8"),  # eventfd of the coordinator
        ("coordinator_fd", "i8"),  # its socket, which hangs up when it dies; -1 for the coordinator itself
        ("urgent_fd", "i8"),  # the coordinator's: readable when there is something that no stop may delay; else -1
        ("pidfd", "i8"),  # the coordinator's: readable once this P's process has died; 0: none
        ("native_base", "i8"),  # the native stack above this holds no heap addresses
        ("stack_guard", "i8"),  # a compiled function whose stack pointer is below this takes the slow path
        ("stack_low", "i8"),  # ... and below this overflows
        ("stack_thread", "i8"),  # the thread whose stack that is, as Python numbers it
        ("xnative_n", "i8"),  # words in the native-roots buffer; while the P runs, those of xnative_kept
        (
            "xnative_kept",
            "i8",
        ),  # the first of them, of programs that are in the middle of a call of Python (mutator/pythoncalls)
        ("native_deepest", "i8"),  # bytes that the stack of such a program may take in the buffer beside what is kept
        ("handles", "i8"),  # handle slots ever used: slots 0..handles-1 may hold references
        ("handles_committed", "i8"),
        ("native_committed", "i8"),  # bytes of the native-roots buffer
        ("no_park", "i8"),  # above 0 it holds a lock or a span in hand, and must not park
        ("waiting_for", "i8"),  # address of the lock or word it waits for, for diagnosis
        ("throw_a", "i8"),  # what this P's throw is about
        ("throw_b", "i8"),
        ("slow_allocs", "i8"),
        ("taking_page", "i8"),  # pages between their allocation and the publication of their span
        ("taking_npages", "i8"),
        ("taking_zero", "i8"),  # how many of them have been nobody's since the system gave them
        ("xragged", "i8"),  # the last ragged barrier that this P has passed
        ("ragged_runs", "i8"),  # how often a barrier's function has run for this P; by the P in KERNEL or its claimer
        ("xpending", "i8"),  # address of a large object that is being made: a root of its own
        (
            "gc_wait",
            "i8",
        ),  # GC_TRIGGER_* or GC_WAIT_CREDIT: what a call from Python waits for once its handle is filled
        # the page cache: 64 pages from cache_page
        ("cache_page", "i8"),
        ("cache_free", "i8"),
        ("cache_scav", "i8"),
        ("cache_zero", "i8"),  # of the free ones that are committed, those that have been nobody's since
        # the tiny allocator
        ("tiny", "i8"),
        ("tiny_offset", "i8"),
        ("tiny_allocs", "i8"),
        ("scan_alloc", "i8"),
        # the redo record: while redo_n > 0 the first redo_n stores below are to be done again by repair
        ("xredo_n", "i8"),
        ("redo_addr", "i8", (8,)),
        ("redo_value", "i8", (8,)),
        # marking
        ("wbuf1", "i8"),  # addresses of the two work buffers, which every P has
        ("wbuf2", "i8"),
        ("spanq_head", "i8"),  # the span queue: entries taken ever, and put
        ("spanq_tail", "i8"),
        ("spanq_capacity", "i8"),  # a power of two, or 0: entry i is at i % capacity
        ("pending_n", "i8"),  # pointers ever put into the ring of those whose marks are being fetched
        ("mark_word", "i8"),  # address of 64 mark bits
        ("mark_bits", "i8"),  # those of them that are to be set
        ("wb_n", "i8"),  # words in the write barrier's buffer
        ("scanned_cycle", "i8"),  # the last cycle for which handles and native stack were scanned
        ("scans", "i8"),  # how often they were
        (
            "xmarking",
            "i8",
        ),  # 1 while this P is a worker or assists, 2 if a dedicated one: a hint that marking is not over
        ("xawaits_credit", "i8"),  # threads of this P that wait for credit
        ("assist_bytes", "i8"),  # bytes that may be allocated before the next assist
        ("fractional_ns", "i8"),  # time as a fractional worker in this cycle
        ("bytes_marked", "i8"),
        ("heap_scan_work", "i8"),  # not yet added to the pacer's
        ("objects_marked", "i8"),
        ("mark_ns", "i8"),  # CPU time spent marking, ever
        ("stand_in_ns", "i8"),  # CPU time that the coordinator marked for this P, ever
        ("assist_ns", "i8"),
        ("cycle_assist_ns", "i8"),  # of that, in this cycle or the last
        (
            "needzero",
            "i8",
            ((layout.NUM_SPAN_CLASSES + 63) // 64,),
        ),  # bit c: so has the span of class c that its mcache has; without one it says nothing
        ("xevent", "i8"),  # what the limiter counts this P's time as: since when << 2 | EVENT_*; 0: as the program's
        ("xdead", "i8"),  # 1 from its process's death to the repair of what it left; by the coordinator
        ("deaths", "i8"),  # of its processes, ever; by the coordinator
        ("crashes", "i8"),  # of those, deaths that nobody has asked for
        ("xidle", "i8"),  # 1 while it waits for something to run, or for the end of a collection
        ("xslice", "i8"),  # since when its program has had the processor to itself, in ns
        ("cycle_asked_for", "i8"),  # number of the last cycle that its program has waited for the beginning of
        ("sweep_ns", "i8"),
        ("stopped_ns", "i8"),
        ("stops", "i8"),
        ("resume_ns", "i8"),  # from the end of the last stop to running again
        ("resume_max_ns", "i8"),
        ("safepoints", "i8"),  # stops that it has met in a program or a long call ...
        ("safepoint_ns", "i8"),  # ... and from the request of each until it met it
        ("safepoint_max_ns", "i8"),
        ("xidle_ns", "i8"),  # time idle, up to the event that is on (xevent); by whoever counts that
        (
            "idle_ns",
            "i8",
        ),  # that, and what its programs had of its time, when they were last accounted for (gc/cpuclasses.py)
        ("mutator_ns", "i8"),
        ("available_ns", "i8"),  # time for which it was to run programs, up to the last change of how many Ps do
        ("lock_wait_ns", "i8"),  # time that it has waited for locks, and goroutines did that it has woken
        ("steals", "i8"),  # goroutines that it has taken from other Ps, and the others that came along
        ("barrier_flushes", "i8"),  # of its write barrier's buffer, with something in it
        # totals, ever; only grow
        ("tiny_alloc_count", "i8"),
        ("large_alloc", "i8"),
        ("large_alloc_count", "i8"),
        ("large_free", "i8"),
        ("large_free_count", "i8"),
        ("stack_free", "i8", (layout.STACK_ORDERS,)),  # free stacks by order, each linked through its first word
        ("stack_bytes", "i8", (layout.STACK_ORDERS,)),  # how much that is
        ("g_free", "i8"),  # number of the first of its free goroutine records, 0: none
        ("g_nfree", "i8"),
        ("g_ncases", "i8"),  # records that it has made cases, less those it has freed
        # goroutines that are ready to run here, by number: a ring (P_RUNQ) and what runs before it. See sched/runq.py
        ("xrunq_head", "i8"),
        ("xrunq_tail", "i8"),
        ("xrunnext", "i8"),
        ("sched_tick", "i8"),  # how many it has chosen to run
        ("scheduling", "i8"),  # above 0 it chooses and runs goroutines already
        ("scheduler", "i8"),  # in its process's own memory: address of mutator/schedule.run_slice; 0: none runs here
        ("waiter", "i8"),  # and of what waits for a goroutine in Python: see runtime/programwaits.py
        ("goid_next", "i8"),  # ids of goroutines that it may give: up to goid_end
        ("goid_end", "i8"),
        ("xwake", "i8"),  # how often it was woken: a futex for its process's main thread
        ("xmail", "i8"),  # 1: a message has come since that thread last looked
        ("xover", "i8"),  # 1: so has the end of a wait of its process's
        ("main_thread", "i8"),  # that thread, as Python numbers it
        ("python_turn_ns", "i8"),  # when it is to go back to Python, from which it runs goroutines; 0: it does not
        ("xparked", "i8"),  # 1: that thread sleeps, or is about to
        ("xspinning", "i8"),  # 1: it looks for something to run, or was woken to
        ("scanning", "i8"),  # address of the goroutine whose stack it has in hand as a marker, 0: none
        ("woken", "i8"),  # number of the goroutine that what it has done at a channel wakes, 0: none
        ("selecting", "i8"),  # number of the goroutine whose cases it tries, 0: none
        ("received", "i8"),  # the number that Python has received from a channel
        (
            "xended_waits",
            "i8",
        ),  # number of the first of the list of goroutines that listen here and wait no more, 0: none
        ("ended_waits", "i8"),  # of those, taken by its process
        (
            "python_gs",
            "i8",
        ),  # goroutines that are Python's (runtime/coroutines.py) and have no record, as they wait for nothing of the heap
        ("failed", "i8"),  # number of the last goroutine that has ended with an exception here, 0: none; linked
        ("strange", "i8"),  # the same of those with a frame that this process does not know
        # the goroutine that runs here, and what its step says to do next: see mutator/goroutine.py
        ("curg", "i8"),  # address of its record, 0: none
        (
            "steps",
            "i8",
        ),  # in its process's own memory: by a type's place in the table the address of its step; 0: not known here
        ("out_for", "i8"),  # of the action that was made last: the callee's type, ACTION_RETURN ...
        ("out_bytes", "i8"),  # ... how much of P_OUT are its slots ...
        (
            "out_into",
            "i8",
        ),  # ... and where its caller wants the result: offset in the frame | bytes << INTO_BITS, 0: nowhere
        ("raised_code", "i8"),  # what a step has raised, as Numba's calling convention has it
        ("raised_info", "i8"),
        ("out_ok", "i8"),  # where its frame wants to be told whether it has received, as out_into
        ("out_ncases", "i8"),  # of a select: how many cases are in P_OUT ...
        ("out_blocks", "i8"),  # ... and whether it waits until one is done
        ("selected", "i8"),  # how the case was done: CHAN_DONE, CHAN_CLOSED
        ("out_room", "i8"),  # bytes that the stack is to have beyond the frame that is called
        (
            "call_site",
            "i8",
        ),  # number of the place in a program at which what it does now has begun, of those that start goroutines
        (
            "call_labels",
            "i8",
        ),  # ... and of the labels that a goroutine gets which is started there, 0: those of who starts it
        ("python_g", "i8"),  # id of the goroutine of Python's that the main thread runs, 0: none
        ("python_labels", "i8"),  # number of its labels
        ("cheaprand", "i8"),  # state of this P's random numbers, 0: not seeded
        (
            "codes",
            "i8",
        ),  # in its process's own memory: what is known of Python's code. See mutator/pythonstack.py; 0: nothing is kept
        (
            "makes_at",
            "i8",
        ),  # in its process's own memory: where the call stands that may make something and does not say so, 0: unknown. See mutator/samples.py
        ("program_site", "i8"),  # number of the place where the program begins that runs here, 0: none, or unknown
        ("small_alloc", "i8", (68,)),  # objects by size class
        ("small_free", "i8", (68,)),
        ("refills", "i8"),
        ("stack_copies", "i8"),  # moves of stacks
        ("stack_copied", "i8"),  # bytes that they copied
        ("programs", "i8"),  # goroutines run to completion
        ("transits", "i8"),  # references ever sent to other processes: numbers that none of its processes uses again
        # Specials, reached through p_addr only. The queues hold record numbers, under specials_lock.
        ("epoch", "i8"),  # processes that have been this P
        ("finalizers", "i8"),  # queued, the newest first
        ("finalizer_batch", "i8"),  # those that its thread has begun with
        ("cleanups", "i8"),  # queued, the oldest first ...
        ("cleanups_tail", "i8"),  # ... and the newest; means nothing while there are none
        ("xfinalizers_ready", "i8"),  # 1: something was queued since the thread last looked. Futexes
        ("xcleanups_ready", "i8"),
        ("special_queued", "i8", (2,)),  # totals: finalizers and cleanups; by the P that queued them
        ("special_run", "i8", (2,)),  # by the P that ran them
        ("special_failed", "i8", (2,)),  # of those, which raised
        ("special_lost", "i8", (2,)),  # by whoever found that the process which had registered them is gone
        # a trace: see shm/tracing.py. By the coordinator
        ("xtracing", "i8"),  # 1: this P keeps what happens; only while its ring is there
        (
            "trace_running",
            "i8",
        ),  # id of the goroutine that ran when the trace began, and has not stopped since, 0: none
        (
            "trace_skips",
            "i8",
            (2,),
        ),  # of DETAIL_RUNS and DETAIL_READIES: so many more are left out before the clock is looked at
        ("trace_committed", "i8"),  # bytes of its ring
    ],
    4096,
)
P_MCACHE = 4096  # the mcache entries follow in the P's 16 KiB
P_OUT = 11 << 10  # the slots of a frame that is to be, or a result: OUT_BYTES
OUT_BYTES = 512
P_CONTEXT = 12 << 10  # where save_registers puts a ucontext_t
P_PENDING = P_OUT + 512  # pointers whose marks are being fetched: PENDING_ENTRIES pairs (pointer, holder), a ring
PENDING_ENTRIES = 16
P_STACK = 14 << 10  # of the object that is sampled: as in bucket_dtype
P_WBBUF = 16 << 10  # the write barrier's buffer: WB_ENTRIES words
WB_ENTRIES = 512
P_RUNQ = 20 << 10  # RUNQ_SIZE words
RUNQ_SIZE = 256
P_LATENCIES = 22 << 10  # a timehist_dtype: how long goroutines that it runs were ready before
P_MAKES_AT = offset_of(p_dtype, "makes_at")
P_NEEDZERO = offset_of(p_dtype, "needzero")
P_XSTATUS = offset_of(p_dtype, "xstatus")
P_XPOLL = offset_of(p_dtype, "xpoll")
P_XNATIVE_N = offset_of(p_dtype, "xnative_n")
P_XNATIVE_KEPT = offset_of(p_dtype, "xnative_kept")
P_XRAGGED = offset_of(p_dtype, "xragged")
P_XPENDING = offset_of(p_dtype, "xpending")
P_XMARKING = offset_of(p_dtype, "xmarking")
P_XIDLE = offset_of(p_dtype, "xidle")
P_XSLICE = offset_of(p_dtype, "xslice")
P_XDEAD = offset_of(p_dtype, "xdead")
P_XEVENT = offset_of(p_dtype, "xevent")
P_XIDLE_NS = offset_of(p_dtype, "xidle_ns")
P_XAWAITS_CREDIT = offset_of(p_dtype, "xawaits_credit")
P_XREDO_N = offset_of(p_dtype, "xredo_n")
P_REDO_ADDR = offset_of(p_dtype, "redo_addr")
P_REDO_VALUE = offset_of(p_dtype, "redo_value")
P_XFINALIZERS_READY, P_XCLEANUPS_READY, P_SPECIAL_QUEUED, P_SPECIAL_RUN, P_SPECIAL_FAILED, P_SPECIAL_LOST = (
    offset_of(p_dtype, f)
    for f in ("xfinalizers_ready", "xcleanups_ready", "special_queued", "special_run", "special_failed", "special_lost")
)
P_XRUNQ_HEAD, P_XRUNQ_TAIL, P_XRUNNEXT, P_XWAKE, P_XMAIL, P_XOVER, P_XPARKED, P_XSPINNING = (
    offset_of(p_dtype, f)
    for f in ("xrunq_head", "xrunq_tail", "xrunnext", "xwake", "xmail", "xover", "xparked", "xspinning")
)
P_XENDED_WAITS = offset_of(p_dtype, "xended_waits")
P_XTRACING, P_TRACE_SKIPS = (offset_of(p_dtype, name) for name in ("xtracing", "trace_skips"))
P_RAISED_CODE, P_RAISED_INFO = offset_of(p_dtype, "raised_code"), offset_of(p_dtype, "raised_info")
P_SMALL_ALLOC = offset_of(p_dtype, "small_alloc")
P_SMALL_FREE = offset_of(p_dtype, "small_free")
P_LARGE_ALLOC, P_LARGE_ALLOC_COUNT, P_LARGE_FREE, P_LARGE_FREE_COUNT, P_TINY_ALLOC_COUNT, P_TINY_ALLOCS = (
    offset_of(p_dtype, f)
    for f in ("large_alloc", "large_alloc_count", "large_free", "large_free_count", "tiny_alloc_count", "tiny_allocs")
)

# --- pages and spans --------------------------------------------------------------------------------------------------

SPAN_DEAD, SPAN_IN_USE, SPAN_MANUAL = 0, 1, 2
# Which list of its mcentral a span is in; a swept set of one cycle is the unswept one of the next.
SET_NONE, SET_PARTIAL, SET_FULL = -1, 0, 2  # + (sweepgen / 2) % 2
# xstate: sweepgen in bits 0..31 | parity in bit 32 | step in bits 33..34 | owner P + 1 in bits 40..55.
# sweepgen, with h the heap's: h-2 needs sweeping · h-1 is being swept · h swept · h+1 cached before the sweep began · h+3 swept, then cached
STATE_PARITY_SHIFT, STATE_STEP_SHIFT, STATE_OWNER_SHIFT = 32, 33, 40
STEP_SWEPT, STEP_SWEEPING, STEP_CLEARING = 0, 1, 2

# The record of the span that starts at page i is spans()[i]. Which bits say what depends on the class:
#   elem_size 16..512   allocated: bits[8*parity ...] (8 words); marks: in the span's last 128 bytes
#   8-byte scan class   allocated: bits[0..15] or the span's last 128 bytes, marks: the other; parity 0 means bits[] is "allocated"
#   others (<= 16 slots, large)  allocated: bits[8*parity]; marks: bits[8*(1-parity)]
# A slot is allocated if its index is below freeindex or its "allocated" bit is set.
# alloc_count == number of allocated slots, when the span is in nobody's mcache.
span_dtype = record(
    [
        # constant while in use
        ("npages", "i8"),
        ("elem_size", "i8"),
        ("nelems", "i8"),
        ("span_class", "i8"),
        ("div_magic", "i8"),  # object index = offset * div_magic >> 32
        ("state", "i8"),  # SPAN_*
        ("limit", "i8"),  # end of the last slot; large: of the requested bytes
        ("large_type", "i8"),  # address of the type record of a large object with pointers, once it is zeroed
        # written by the P that has it cached or sweeps it
        ("needzero", "i8"),  # 0: free slots are zero, as nobody has had them since the system gave their memory
        ("freeindex", "i8"),
        ("alloc_count", "i8"),
        ("alloc_before_cache", "i8"),
        # under the mcentral's lock
        ("next", "i8"),  # next in its list, -1 at the end
        ("set", "i8"),  # which list, SET_NONE if none
        ("xstate", "i8"),
        (
            "specials",
            "i8",
        ),  # number of its first special record, 0: none; under specials_lock, read without it as a hint
        ("bits", "i8", (16,)),
    ],
    256,
)
SPAN_STATE = offset_of(span_dtype, "state")
SPAN_XSTATE = offset_of(span_dtype, "xstate")
SPAN_SPECIALS = offset_of(span_dtype, "specials")
SPAN_BITS = offset_of(span_dtype, "bits")
SPAN_STACK_PREV, SPAN_STACK_FREE, SPAN_STACK_USED = SPAN_BITS, SPAN_BITS + 8, SPAN_BITS + 16  # of a span of stacks
SPAN_ALLOC_BEFORE_CACHE = offset_of(span_dtype, "alloc_before_cache")
INLINE_MARKS = 128  # bytes at the end of a span with elem_size 16..512: 64 of mark bits, 64 of scan bits
INLINE_SCANS = 64  # from a word of the one to that of the other
# In the last word of the mark bits, above those of slots (there are at most 504): the span is in a span queue, for one object or for more.
OWNED_WORD, OWNED_ONE, OWNED_MANY = 56, 1 << 57, 1 << 58
HEAP_BITMAP = 128  # bytes of pointer bits before them, in scan spans

# Lists of spans, FIFO: index 0, 1 partial, 2, 3 full; heads and tails are page numbers, -1 when empty.
mcentral_dtype = record([("xlock", "i8"), ("head", "i8", (4,)), ("tail", "i8", (4,)), ("count", "i8", (4,))], 128)

# 512 pages: bit set = allocated; bit set = returned to the system (never committed, or punched out).
chunk_dtype = record([("alloc", "i8", (8,)), ("scav", "i8", (8,))], 128)

# Of a chunk: see heap/scavindex.py.
density_dtype = record(
    [
        ("in_use", "i8"),  # pages
        ("last_in_use", "i8"),
        ("gen", "i8"),  # in which in_use last changed
        ("has_free", "i4"),  # 0: no page is free and committed; 1: one may be
        ("lazy_since", "i4"),  # see heap/lazyscav.py
    ],
    32,
)

# xzeroed_page: pages of the arena below this one have been handed out before and may hold old data.
arena_dtype = record([("xzeroed_page", "i8")], 64)

# --- types, roots, work -----------------------------------------------------------------------------------------------

# A struct: elem_size 0, mask over size / 8 words. An array: an 8-byte length, then elements of elem_size bytes with that mask each.
# A frame: as a struct; or elem_size LEADS_INTO_STACK, and a mask for all its words is followed by one of those that may lead into its stack.
LEADS_INTO_STACK = -1
type_dtype = record(
    [
        ("key", "i8"),  # hash of name and layout; 0: free. Found by open addressing from key % MAX_TYPES
        ("struct_bytes", "i8"),
        ("ptr_bytes", "i8"),  # bytes up to the end of the last reference field, of the struct or of one element
        ("elem_size", "i8"),
        ("mask", "i8"),  # address of ceil(ptr_bytes / 512) words: bit i = word i is a reference
        (
            "text",
            "i8",
        ),  # address of what it is called and declared as, for people; 0 of a type that nobody has described
        ("text_bytes", "i8"),
    ],
    64,
)
TYPE_TEXT, TYPE_BYTES = offset_of(type_dtype, "text"), type_dtype.itemsize

global_dtype = record([("xref", "i8"), ("type_key", "i8"), ("name", "S48")], layout.GLOBAL_RECORD)

# What an object has beside its bytes: see gc/specials.py. Written under specials_lock; ``xstate`` last, or under the redo record.
SPECIAL_FREE, SPECIAL_ARMED, SPECIAL_DYING, SPECIAL_QUEUED, SPECIAL_RUNNING, SPECIAL_CANCELLED = range(6)
SPECIAL_FINALIZER, SPECIAL_WEAK, SPECIAL_CLEANUP, SPECIAL_PROFILE = (
    2,
    3,
    7,
    4,
)  # Go's numbers: a span's list has them in this order
special_dtype = record(
    [
        ("xstate", "i8"),
        ("kind", "i8"),
        ("addr", "i8"),  # of the object, or of a place in it
        ("owner", "i8"),  # whose function it is: P | its epoch << 16
        (
            "value",
            "i8",
        ),  # weak: address of the handle; finalizer, cleanup: number of the function in its process; profile: of the bucket
        ("id", "i8"),  # grows from record to record; a queued one has a new one
        ("next", "i8"),  # number of the next in its list, 0 at the end
        ("type_key", "i8"),  # of a finalizer's object, if its class has one; else 0
    ],
    64,
)
SPECIAL_XSTATE = offset_of(special_dtype, "xstate")
SPECIAL_NEXT = offset_of(special_dtype, "next")
SPECIAL_ADDR, SPECIAL_VALUE = (offset_of(special_dtype, name) for name in ("addr", "value"))
# The memory profile: see gc/memprofile.py.
memprofile_dtype = record(
    [
        ("rate", "i8"),  # an object is sampled for each so many bytes on average; 0: none, 1: all. Constant
        ("cycle", "i8"),  # of the profile: grows at each mark termination. Changed with the world stopped
        ("xnbuckets", "i8"),  # buckets there are: numbers 1..nbuckets. Under specials_lock, read without it
        ("xflushes", "i8"),  # odd while counts move from cycles to what is published: by the coordinator alone
        ("xlost", "i8"),  # samples for which there was no memory; by atomic addition
    ],
    64,
)
MEMPROFILE_XNBUCKETS, MEMPROFILE_XFLUSHES, MEMPROFILE_XLOST = (
    MEMPROFILE + offset_of(memprofile_dtype, name) for name in ("xnbuckets", "xflushes", "xlost")
)
# Objects of one size that were made with one stack. sum of allocs - sum of frees == armed SPECIAL_PROFILE records that name it
PROFILE_FRAMES = 56  # the innermost ones
bucket_dtype = record(
    [
        # constant once its chain leads to it
        ("next", "i8"),  # number of the next in its chain, 0 at the end
        ("hash", "i8"),
        ("object_bytes", "i8"),  # of an object's slot
        ("nframes", "i8"),  # 0: nobody knows where, or there was no room for its stack
        # changed by the coordinator alone
        ("published_allocs", "i8"),
        ("published_frees", "i8"),
        # by cycle % 3: under specials_lock and the redo record; those of a cycle that is over, by the coordinator
        ("allocs", "i8", (3,)),
        ("frees", "i8", (3,)),
        # constant. Two words a frame: key of a place (mutator/sites.py), and the line in it; FRAME_IS_PLACE: its own
        ("frames", "i8", (2 * PROFILE_FRAMES,)),
    ],
    layout.BUCKET_RECORD,
)
FRAME_IS_PLACE = -1
BUCKET_ALLOCS, BUCKET_FREES, BUCKET_FRAMES = (offset_of(bucket_dtype, name) for name in ("allocs", "frees", "frames"))

# A pool: what all processes agree on. Constant once runtime.xnpools counts it.
pool_head_dtype = record([("type_key", "i8"), ("max_bytes", "i8"), ("name", "S32")], layout.POOL_HEAD_BYTES)
POOL_TYPE, POOL_NAME = offset_of(pool_head_dtype, "type_key"), offset_of(pool_head_dtype, "name")

# What a P has of a pool. The ring is an array of references in the heap; its words between tail and head may hold something.
pool_dtype = record(
    [
        # written by the P alone, or with the world stopped
        ("xprivate", "i8"),
        ("xring", "i8"),
        ("xhead", "i8"),  # where the P puts next
        ("xtail", "i8"),  # where others look first; moved by whoever takes something
        ("xvictim_private", "i8"),  # the same of the last cycle
        ("xvictim_ring", "i8"),
        ("xvictim_head", "i8"),
        ("xvictim_tail", "i8"),
        # counted by the P
        ("hits", "i8"),
        ("misses", "i8"),
        ("steals", "i8"),  # of the hits: from another P's ring
        ("victim_hits", "i8"),  # of the hits: what would have gone at the next collection
        ("drops", "i8"),  # too large, or too many
        ("evictions", "i8"),  # what collections took; with the world stopped
    ],
    layout.POOL_RECORD,
)
(
    POOL_PRIVATE, POOL_RING, POOL_HEAD, POOL_TAIL, POOL_VICTIM_PRIVATE, POOL_VICTIM_RING, POOL_VICTIM_HEAD, POOL_VICTIM_TAIL,
    POOL_HITS, POOL_MISSES, POOL_STEALS, POOL_VICTIM_HITS, POOL_DROPS, POOL_EVICTIONS,
) = (offset_of(pool_dtype, name) for name in pool_dtype.names or ())  # fmt: skip

TASK_RUNNABLE, TASK_RUNNING, TASK_DEAD = 1, 2, 6
task_dtype = record(
    [
        ("status", "i8"),
        ("id", "i8"),
        ("p", "i8"),
        ("parent", "i8"),
        ("created_ns", "i8"),
        ("started_ns", "i8"),
        ("ended_ns", "i8"),
        ("xticket", "i8"),  # who may start it: see sched/tickets.py
    ],
    128,
)
TASK_BYTES, TASK_XTICKET = task_dtype.itemsize, offset_of(task_dtype, "xticket")

G_IDLE, G_RUNNABLE, G_RUNNING, G_WAITING, G_CASE, G_DEAD = 0, 1, 2, 4, 5, 6  # G_CASE: one of those a select waits for
# Beside a status: a marker has the stack, and above that the number of its P.
G_STATUS_MASK, G_SCAN, G_SCANNER_SHIFT = 0xFFF, 0x1000, 16
NOT_WAITING, WAITS_FOR_TAKER, WAITS_FOR_STEP = range(3)
# From here on others end the wait: see mutator/waits.py.
WAITS_TO_RECEIVE, WAITS_TO_SEND, WAITS_FOR_GROUP, WAITS_FOR_LOCK, WAITS_IN_SELECT = range(3, 8)
g_dtype = record(
    [
        ("xstatus", "i8"),
        ("id", "i8"),  # no other goroutine ever has it
        # its stack, which grows down: lowest address | log2 of the size, 0 for none. One word, so that a move is one store
        ("xstack", "i8"),
        ("link", "i8"),  # number of the next in its list, 0 at the end
        ("under", "i8"),  # of one that runs: address of the one whose step runs it, 0: none
        ("depth", "i8"),  # bytes in use, from the top; the innermost frame is the lowest of them
        ("scanned_epoch", "i8"),  # of the marking in which its stack was scanned
        ("scans", "i8"),
        ("copies", "i8"),  # how often the stack was moved
        ("p", "i8"),  # the P that runs it, or ran it last
        ("parent", "i8"),  # id of the goroutine that started it, 0: a program did
        ("entry", "i8"),  # address of the type of its first frame
        ("queued", "i4"),  # in how many queues verify has found it
        ("labels", "i4"),  # number of its labels in the table of places (mutator/sites.py), 0: none
        ("home", "i8"),  # number of the P that alone may run it, + 1: somebody there waits for it; 0: any may
        ("wait", "i4"),  # what it waits for: WAITS_*
        ("listens", "i4"),  # 1: its process learns by a list that its wait is over: see mutator/listening.py
        # of one that waits at a channel, a group or a lock, and of a case: see heap/waitq.py
        ("chan", "i8"),  # its address, 0: None, at which it waits for ever
        ("elem", "i8"),  # what it sends, or was sent; or as mutator/sync.py says
        ("elem_is_link", "i4"),
        ("wants_shrink", "i4"),  # 1: it ran when its stack was scanned, and may have too large a one
        ("next", "i8"),  # number of the one that waits behind it
        (
            "done",
            "i8",
        ),  # 0, or what has become of it: CHAN_DONE, CHAN_CLOSED; in a select, the number of the case that is done, or AGAIN
        # where its frame wants what it receives, as out_into, and whether it was sent; of one without frames, the first is the number of the place
        # where it waits, NO_SITE: that which has started it
        ("into", "i8"),
        ("ok_into", "i8"),
        ("site", "i4"),  # number of the place in a program that has started it, 0: unknown (mutator/sites.py)
        ("leaked", "i4"),  # 1: a collection has found that nothing can end its wait; means nothing once that has ended
        ("runs", "i8"),  # how often it was given a P: its frames are the same while this is
        (
            "since_ns",
            "i8",
        ),  # when a collection has first seen it wait as it does, 0: none has (Go's waitsince); or as its low bits say, SINCE_*
        ("ending", "i8"),  # how it ended: see mutator/goroutine.py
        ("raised_code", "i8"),  # what a step has raised, in the process of its P
        ("raised_info", "i8"),
        # of one in a select, and of a case: see mutator/select.py
        ("xclaim", "i8"),  # who may say which case is done
        ("cases", "i8"),  # number of the first of its cases, which their links lead through; 0: none
        ("of", "i8"),  # of a case: number of the goroutine that waits for it
        ("linked", "i8"),  # of a case: 1: it is in a queue
    ],
    layout.G_RECORD,
)
G_XSTACK, G_CHAN, G_ELEM, G_NEXT, G_DONE, G_ID, G_RUNS, G_DEPTH, G_XCLAIM, G_LINKED = (
    offset_of(g_dtype, name)
    for name in ("xstack", "chan", "elem", "next", "done", "id", "runs", "depth", "xclaim", "linked")
)
SINCE_READY, SINCE_LOCKED, SINCE_MASK = 1, 2, 3  # it is ready, or waits for a lock, since then
CHAN_WOULD_BLOCK, CHAN_DONE, CHAN_CLOSED = 0, 1, 2
AGAIN = -1

# A place in a program: text is the function's name, the file and the line. Constant once the key is there.
site_dtype = record([("key", "i8"), ("text", "i8"), ("text_bytes", "i8")], layout.SITE_RECORD)

# What every frame begins with; slots follow.
# FRAME_INTO, four bytes: where the caller wants the result, as out_into. FRAME_LINE, four: line of the action that its step has returned last.
FRAME_CALLER, FRAME_TYPE, FRAME_INTO, FRAME_LINE, FRAME_HEADER = 0, 8, 16, 20, 24
INTO_BITS = 24  # of a slot's place: its offset in the frame; above that its bytes

# What a trace tells (shm/tracing.py): one of these, above it a detail, and two numbers. An end has the numbers of what it ends.
# By a P:
TRACE_PROCESS = 1  # it has a process: its number
TRACE_TEXT = 2  # 16 more bytes of the name that the next event wants
TRACE_PROGRAM, TRACE_PROGRAM_END = 3, 4  # id; if the coordinator tells it, also the P where it is
# A goroutine runs: its id; place of its type in the table of types | the place in a program that started it << TRACE_SITE_SHIFT. Then why it
# stops, as execute says, and in the detail its action.
TRACE_RUN, TRACE_RUN_END = 5, 6
TRACE_CREATE, TRACE_READY = 7, 8  # a goroutine by this P: id; of the first also that of its parent
TRACE_PARK, TRACE_PARK_END = 9, 10
TRACE_WAIT, TRACE_WAIT_END = 11, 12  # detail: TRACE_FOR_*, from TRACE_FOR_PROGRAM on WAITS_*
TRACE_MARK, TRACE_MARK_END = 13, 14  # detail: TRACE_DEDICATED ...; the P in whose place, bytes scanned
TRACE_ASSIST, TRACE_ASSIST_END = (
    15,
    16,
)  # debt in bytes, work that credit has done; its own work, bytes that may be allocated now
TRACE_SWEPT = 17  # over already: since when, spans
TRACE_SCAVENGED = 18  # the same, bytes
TRACE_LEFT_OUT = 19  # detail: DETAIL_*; how many, and their time in ns where it is known
# By the coordinator:
TRACE_STOP, TRACE_STOPPED, TRACE_STOP_WHY, TRACE_STOP_END = 32, 33, 34, 35  # detail of the third: TRACE_TO_*
TRACE_CYCLE, TRACE_CYCLE_MARKED, TRACE_CYCLE_SWEPT = (
    36,
    37,
    38,
)  # its number; of the first GC_TRIGGER_*, of the second bytes marked
TRACE_HEAP = 39  # live, goal
TRACE_DEATH = 40  # number of the P
TRACE_REPAIR, TRACE_REPAIR_END = 41, 42
TRACE_DETAIL_SHIFT, TRACE_SITE_SHIFT = 8, 16
TRACE_FOR_STOP, TRACE_FOR_CYCLE, TRACE_FOR_COLLECTION, TRACE_FOR_END, TRACE_FOR_CREDIT, TRACE_FOR_PROGRAM = range(6)
TRACE_DEDICATED, TRACE_FRACTIONAL, TRACE_IDLE, TRACE_STAND_IN = range(4)
TRACE_TO_MARK, TRACE_TO_END, TRACE_TO_COLLECT, TRACE_TO_REPAIR, TRACE_TO_RESIZE = range(5)

# What may come more often than a trace can show: so many in a window of time are shown, the others counted. By the P alone.
DETAIL_RUNS, DETAIL_READIES, DETAIL_SWEEPS = range(3)
DETAIL_KINDS = 3
trace_detail_dtype = record(
    [
        ("until_ns", "i8"),  # end of the window
        ("left", "i8"),  # how many more are shown until then
        ("count", "i8"),  # left out since, and not told yet
        ("ns", "i8"),  # the time that those took, where it is known
    ],
    64,
)
trace_ring_dtype = record(
    [
        ("xwritten", "i8"),  # events ever
        ("_pad0", "i8", (7,)),
        ("details", trace_detail_dtype, (DETAIL_KINDS,)),
    ],
    layout.TRACE_HEADER,
)
TRACE_DETAILS = offset_of(trace_ring_dtype, "details")
trace_event_dtype = record([("at_ns", "i8"), ("what", "i8"), ("a", "i8"), ("b", "i8")], layout.TRACE_EVENT)

WBUF_OBJECTS = 253
wbuf_dtype = record([("nobj", "i8"), ("_link", "i8", (2,)), ("obj", "i8", (WBUF_OBJECTS,))], layout.WBUF_SIZE)

RECORDS = (
    runtime_dtype, mheap_dtype, pacer_dtype, limiter_dtype, scavpace_dtype,
    gcstats_dtype, p_dtype, mcache_dtype, span_dtype, mcentral_dtype, chunk_dtype, density_dtype,
    arena_dtype, type_dtype, global_dtype, special_dtype, pool_head_dtype, pool_dtype, task_dtype, g_dtype, site_dtype, stackpool_dtype, sched_dtype,
    memprofile_dtype, bucket_dtype, wbuf_dtype, pacer_event_dtype, pacer_log_dtype, cycle_dtype, timehist_dtype, cpu_head_dtype, cpu_dtype,
    trace_event_dtype, trace_detail_dtype, trace_ring_dtype,
)  # fmt: skip


@functools.cache
def layout_version() -> int:
    """A 62-bit hash of every record and region: a process with another layout is refused."""
    text = repr([r.descr if hasattr(r, "descr") else r for r in RECORDS]) + repr(layout.REGION)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 2


# --- accessors --------------------------------------------------------------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def _to_pointer(context: Any, addr: Any) -> Any:
    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), codegen


@functools.cache
def with_attributes(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The same, but its records have their fields as attributes. So have numpy's own, which take five times as long to find one; and the coordinator
    looks at some thirty in each turn."""
    if dtype.names is None:
        return dtype
    fields = {name: property(operator.itemgetter(name), functools.partial(_set_field, name)) for name in dtype.names}
    return np.dtype((type("Record", (np.void,), fields), dtype))


def _set_field(name: str, of: np.void, value: Any) -> None:
    of[name] = value


def new_view(dtype: np.dtype[Any], base: int, n: int = 1) -> Any:
    """``n`` records at ``base`` as a numpy array, without a copy: for Python code that reads shared memory."""
    buffer = (ctypes.c_char * (dtype.itemsize * n)).from_address(int(base))
    return np.frombuffer(buffer, dtype=with_attributes(dtype))


@functools.lru_cache(1024)
def view(dtype: np.dtype[Any], base: int, n: int = 1) -> Any:
    """The same, made once: that takes longer than most of what is done with it. What is mapped there may change meanwhile."""
    return new_view(dtype, base, n)


def table(dtype: np.dtype[Any], base: int, n: int) -> Callable[[], Any]:
    """The accessor of a table of ``n`` records at a fixed address."""
    if COMPILED:

        @inline
        def accessor() -> Any:
            return carray(_to_pointer(base), (n,), dtype)

        return accessor  # type: ignore[no-any-return]
    return functools.cache(lambda: view(dtype, base, n))


def pointer_to(dtype: np.dtype[Any]) -> Callable[[int], Any]:
    """The accessor of a record whose address is only known when it runs."""
    if COMPILED:

        @inline
        def accessor(addr: int) -> Any:
            return carray(_to_pointer(addr), (1,), dtype)[0]

        return accessor  # type: ignore[no-any-return]
    return lambda addr: view(dtype, int(addr))[0]


_runtimes = table(runtime_dtype, RUNTIME, 1)
_mheaps = table(mheap_dtype, MHEAP, 1)
_pacers = table(pacer_dtype, PACER, 1)
_scavpaces = table(scavpace_dtype, SCAVPACE, 1)
_limiters = table(limiter_dtype, LIMITER, 1)
_gcstats = table(gcstats_dtype, GCSTATS, 1)
_pacer_logs = table(pacer_log_dtype, PACER_LOG, 1)
_memprofiles = table(memprofile_dtype, MEMPROFILE, 1)
_stackpools = table(stackpool_dtype, STACKPOOL, 1)
_scheds = table(sched_dtype, SCHED, 1)
_selves = table(p_dtype, layout.SELF_BASE, 1)


@inline
def runtime() -> Any:
    return _runtimes()[0]


@inline
def mheap() -> Any:
    return _mheaps()[0]


@inline
def pacer() -> Any:
    return _pacers()[0]


@inline
def scavpace() -> Any:
    return _scavpaces()[0]


@inline
def limiter() -> Any:
    return _limiters()[0]


@inline
def gcstats() -> Any:
    return _gcstats()[0]


@inline
def pacer_log() -> Any:
    return _pacer_logs()[0]


@inline
def memprofile() -> Any:
    return _memprofiles()[0]


@inline
def stackpool() -> Any:
    return _stackpools()[0]


@inline
def sched() -> Any:
    return _scheds()[0]


@inline
def self_p() -> Any:
    """This process's own P, through its alias."""
    return _selves()[0]


@inline
def nrecords() -> int:
    """How many P records are in use, from the first on. In a damaged heap that may be any number: nobody walks past the records that there are."""
    return min(max(runtime().nrecords, 0), layout.COORDINATOR_P)


@inline
def p_records() -> int:
    """How many P records are in use, the coordinator's among them."""
    return nrecords() + 1


@inline
def nth_p(i: int) -> int:
    """Address of the i-th P record in use; the last is the coordinator's."""
    return layout.p_addr(i if i < nrecords() else layout.COORDINATOR_P)


p_at = pointer_to(p_dtype)
g_at = pointer_to(g_dtype)
wbuf_at = pointer_to(wbuf_dtype)
type_at = pointer_to(type_dtype)
special_at = pointer_to(special_dtype)
bucket_at = pointer_to(bucket_dtype)
site_at = pointer_to(site_dtype)
pool_head_at = pointer_to(pool_head_dtype)
mcache_at = pointer_to(mcache_dtype)
trace_event_at = pointer_to(trace_event_dtype)
trace_detail_at = pointer_to(trace_detail_dtype)
spans = table(span_dtype, layout.SPANS_BASE, layout.HEAP_PAGES)
mcentrals = table(mcentral_dtype, layout.MCENTRALS_BASE, layout.NUM_SPAN_CLASSES)
chunks = table(chunk_dtype, layout.CHUNKS_BASE, layout.MAX_CHUNKS)
densities = table(density_dtype, layout.DENSITIES_BASE, layout.MAX_CHUNKS)
root_globals = table(global_dtype, layout.GLOBALS_BASE, layout.MAX_GLOBALS)
page_heads = table(np.dtype("i4"), layout.PAGE_HEADS_BASE, layout.HEAP_PAGES)
summaries = table(np.dtype("i8"), layout.SUMMARY_BASES[0], layout.SUMMARY_WORDS)
pacer_events = table(pacer_event_dtype, PACER_EVENTS, MAX_PACER_EVENTS)
cycles = table(cycle_dtype, CYCLES, CYCLES_KEPT)
wbuf_stacks = table(np.dtype("i8"), layout.WBUF_STACKS_BASE, 2 * layout.MAX_WBUFS)
