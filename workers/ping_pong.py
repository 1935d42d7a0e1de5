"""Two goroutines that send a number to and fro on channels without room: what a switch from one to the other costs."""

from __future__ import annotations

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


def main(rounds: int = 1_000_000) -> None:
    """Prints the nanoseconds of a switch, of which a round has two."""
    play(1)  # from here on all is compiled
    print(f"{rounds:,} rounds: {1e9 * play(rounds) / rounds / 2:.0f} ns a switch")
