"""A service that leaks a goroutine with each request: what shows it, which line it names, and what one of them keeps.

Each request has a slice of memory and two goroutines. One sends its answer to a channel that the request reads; the other, for a second opinion, to
one that nobody reads: it waits for ever, and its frame keeps the slice. Beside them a few goroutines wait for jobs, which is no leak.
"""

from __future__ import annotations

import time
from collections import Counter

import gomp
from gomp.core.heap.gs import num_goroutines
from gomp.runtime import memstats

Slice = gomp.Array[int]
_PATIENCE_S, _NAP_S = 20.0, 0.005


@gomp.frame
class Answer(gomp.Frame[None]):
    body: Slice
    reply: gomp.Chan[int]
    has_sent: bool

    def step(f) -> gomp.Action:
        if f.has_sent:
            return f.ret()
        f.has_sent = True
        return f.send(f.reply, len(f.body))


@gomp.frame
class Idle(gomp.Frame[None]):
    jobs: gomp.Chan[int]
    has_waited: bool

    def step(f) -> gomp.Action:
        if f.has_waited:
            return f.ret()
        f.has_waited = True
        return f.recv(f.jobs)


@gomp.compiled
def body_of(n: int) -> Slice:
    return gomp.array(int, n)


@gomp.compiled
def answer(body: Slice, reply: gomp.Chan[int], second: gomp.Chan[int]) -> int:
    gomp.go(Answer, body=body, reply=reply)
    gomp.go(Answer, body=body, reply=second)
    return reply.recv()


def request(nbytes: int) -> None:
    """Serve one request of so many bytes."""
    answer(body_of(nbytes // 8), gomp.Chan[int](), gomp.Chan[int]())


def main(requests: int = 1000, nbytes: int = 8192, rounds: int = 5, idle: int = 10) -> None:
    """Prints a line for each of ``rounds`` in which so many ``requests`` come, and what was found."""
    jobs: gomp.Chan[int] = gomp.Chan[int]()
    for _ in range(idle):
        gomp.go(Idle, jobs=jobs)
    request(nbytes)  # from here on all is compiled
    gomp.gc()
    before = memstats.read()
    for i in range(rounds):
        for _ in range(requests):
            request(nbytes)
        _wait_for(1 + idle + (i + 1) * requests)
        stats = memstats.read()
        print(
            f"{(i + 1) * requests:,} requests: {stats.goroutines.count:,} goroutines, {stats.stack_inuse:,} bytes of stacks"
        )
    gomp.gc()
    after = memstats.read()
    leaked = gomp.debug.leaked_goroutines()
    places = Counter((g.created_at, g.frames[0], g.state) for g in leaked)
    for (created_at, stands_at, state), n in places.most_common():
        print(f"{n:,} leaked at {stands_at} [{state}], started at {created_at}; {num_goroutines() - n} others have not")
    n = requests * rounds
    heap, rest = (
        after.heap_alloc - before.heap_alloc,
        after.sys - after.heap_released - before.sys + before.heap_released,
    )
    print(f"each keeps {heap / n:,.0f} bytes of objects, and {rest / n:,.0f} bytes in all")
    jobs.close()


def _wait_for(n: int) -> None:
    """Until there are ``n`` goroutines: those that have sent their answer end soon."""
    deadline = time.monotonic() + _PATIENCE_S
    while num_goroutines() > n and time.monotonic() < deadline:
        time.sleep(_NAP_S)
