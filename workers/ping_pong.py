"""Two goroutines that send a number to and fro on channels without room: what a switch from one to the other costs."""

from __future__ import annotations

import statistics
import time

import gomp


@gomp.frame
class Ping(gomp.Frame[None]):
    to: gomp.Chan[int]
    back: gomp.Chan[int]
    done: gomp.Chan[int]
    rounds: int
    got: int
    has_sent: bool

    def step(f) -> gomp.Action:
        if f.has_sent:
            f.has_sent = False
            return f.recv(f.back, into="got")
        if f.rounds > 0:
            f.rounds -= 1
            f.has_sent = True
            return f.send(f.to, f.got + 1)
        f.to.close()
        f.done.send(f.got)  # there is room
        return f.ret()


@gomp.frame
class Pong(gomp.Frame[None]):
    source: gomp.Chan[int]
    back: gomp.Chan[int]
    got: int
    ok: bool
    has_received: bool

    def step(f) -> gomp.Action:
        if not f.has_received:
            f.has_received = True
            return f.recv(f.source, into="got", ok="ok")
        if not f.ok:
            return f.ret()
        f.has_received = False
        return f.send(f.back, f.got + 1)


def play(rounds: int) -> float:
    """Seconds that so many rounds took."""
    to, back, done = gomp.Chan[int](), gomp.Chan[int](), gomp.Chan[int](1)
    gomp.go(Pong, source=to, back=back)
    began = time.perf_counter()
    gomp.go(Ping, to=to, back=back, done=done, rounds=rounds)
    got = done.recv()
    took = time.perf_counter() - began
    if got != 2 * rounds:
        raise AssertionError(f"after {rounds} rounds the number is {got}")
    return took


# --- two programs, each on a P of its own -----------------------------------------------------------------------------


@gomp.compiled
def answer(source: gomp.Chan[int], back: gomp.Chan[int]) -> int:
    """One more than what has come, until that is negative; how often."""
    n = 0
    got = source.recv()
    while got >= 0:
        back.send(got + 1)
        n += 1
        got = source.recv()
    return n


@gomp.compiled
def ask(to: gomp.Chan[int], back: gomp.Chan[int], rounds: int) -> int:
    got = 0
    for _ in range(rounds):
        to.send(got)
        got = back.recv()
    return got


def ask_from_afar(to: gomp.Chan[int], back: gomp.Chan[int], rounds: int, pauses: int) -> tuple[float, float]:
    """Seconds that a switch takes: of many in a row, and the median of those after a pause in which the other P has gone to sleep."""
    ask(to, back, 1)
    began = time.perf_counter()
    ask(to, back, rounds)
    busy = (time.perf_counter() - began) / rounds / 2
    later = []
    for _ in range(pauses):
        time.sleep(0.002)
        began = time.perf_counter()
        ask(to, back, 1)
        later.append((time.perf_counter() - began) / 2)
    to.send(-1)
    return busy, statistics.median(later)


def across(rounds: int, pauses: int = 200) -> tuple[float, float]:
    """As :func:`ask_from_afar`, beside a program that answers: on a runtime with two Ps."""
    to, back = gomp.Chan[int](), gomp.Chan[int]()
    other = gomp.go(answer, to, back)
    mine = gomp.go(ask_from_afar, to, back, rounds, pauses)
    found: tuple[float, float] = mine.wait()
    other.wait()
    return found


def main(rounds: int = 1_000_000) -> None:
    """Prints the nanoseconds of a switch, of which a round has two."""
    play(1)  # from here on all is compiled
    print(f"{rounds:,} rounds: {1e9 * play(rounds) / rounds / 2:.0f} ns a switch")
    if gomp.num_procs() > 1:
        busy, parked = across(rounds // 10)
        print(f"between two Ps: {1e6 * busy:.1f} us; after a pause {1e6 * parked:.1f} us")
