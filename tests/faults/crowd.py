"""Goroutines that wait for each other on all Ps while these are killed: each job is answered once, or not, if its worker ran on a P that died.

Workers receive, lock, grow their stacks, start others, and answer. Only who runs dies with a P: whoever waits goes on. The script, which feeds them,
starts a worker for each that is missing, and unlocks what a dead one has locked.
"""

from __future__ import annotations

import contextlib
import time

import gomp
from tests.chan_load import Deep, goroutines

WORKERS = 4
ROOM = 4  # jobs that are on their way beside those that are worked on
LOST_S = 3.0  # what takes longer counts as lost, until it comes all the same
LOOK_S = 1.0  # of the time between two looks of the script no more counts: the world may have been stopped, and nobody could work
END_S = 60.0
MOST_DEPTH = 63  # frames: beyond 8 KiB


@gomp.frame
class Helper:
    """Doubles a number, aside."""

    n: int
    reply: gomp.Chan[int]
    sent: bool

    def step(f) -> gomp.Action:
        if f.sent:
            return f.ret()
        f.sent = True
        return f.send(f.reply, 2 * f.n)


@gomp.frame
class Worker:
    jobs: gomp.Chan[int]
    answers: gomp.Chan[int]
    stop: gomp.Chan[bool]
    mutex: gomp.Mutex
    mine: gomp.Chan[int]
    job: int
    depth: int
    doubled: int
    place: int
    at: int

    def step(f) -> gomp.Action:
        if f.at in (1, 4, 5) and f.place == 1:
            return f.ret()
        if f.at == 0:
            f.at = 1
            return f.select(f.jobs.receiving(into="job"), f.stop.receiving(), into="place")
        if f.at == 1:
            f.at = 2
            return f.lock(f.mutex)
        if f.at == 2:
            f.mutex.unlock()
            f.at = 3
            return f.call(Deep, depth=f.job & MOST_DEPTH, into="depth")
        if f.at == 3:
            f.at = 4
            f.mine = gomp.Chan[int](1)
            gomp.go(Helper, n=f.job, reply=f.mine)
            return f.select(f.mine.receiving(into="doubled"), f.stop.receiving(), into="place")
        if f.at == 4:
            f.at = 5
            return f.select(f.answers.sending(f.doubled + f.depth), f.stop.receiving(), into="place")
        f.at = 0
        return f.yield_()


def answer_of(job: int) -> int:
    return 2 * job + (job & MOST_DEPTH)


class Crowd:
    """The workers, as the script sees them."""

    def __init__(self) -> None:
        self.jobs, self.answers = gomp.Chan[int](ROOM), gomp.Chan[int](ROOM)
        self.stop, self.mutex = gomp.Chan[bool](), gomp.Mutex()
        self.next_job = 0
        self.now_s, self.looked_s = 0.0, time.monotonic()
        self.given: dict[int, tuple[int, float]] = {}  # by what it must be answered: the job, and when it was given
        self.given_up: set[int] = set()  # what lost jobs would be answered
        self.answered = self.hired_ahead = 0
        for _ in range(WORKERS):
            self._hire()

    @property
    def lost(self) -> int:
        return len(self.given_up)

    def _hire(self) -> None:
        gomp.go(Worker, jobs=self.jobs, answers=self.answers, stop=self.stop, mutex=self.mutex)

    def step(self) -> None:
        """Give and take what can be given and taken at once."""
        self._look_at_the_clock()
        while gomp.select(self.jobs.sending(self.next_job), default=True)[0] == 0:
            self.given[answer_of(self.next_job)] = self.next_job, self.now_s
            self.next_job += 1
        while (received := gomp.select(self.answers.receiving(), default=True))[0] == 0:
            self._take(received[1])
        self._replace_the_lost()

    def _look_at_the_clock(self) -> None:
        before, self.looked_s = self.looked_s, time.monotonic()
        self.now_s += min(self.looked_s - before, LOOK_S)

    def _take(self, answer: int) -> None:
        if answer in self.given_up:  # the machine is slow, and there is a worker too many
            self.given_up.remove(answer)
            self.hired_ahead += 1
        elif self.given.pop(answer, None) is None:
            raise AssertionError(f"an answer {answer} that nobody waits for: a job was done twice, or wrongly")
        self.answered += 1

    def _replace_the_lost(self) -> None:
        """Jobs are taken in the order in which they are given: one that is far behind is lost, and so is its worker."""
        long_ago = self.now_s - LOST_S
        late = [answer for answer, (_, given_s) in self.given.items() if given_s < long_ago]
        if len(late) == len(self.given) > 0:  # nobody has come on since
            if self.mutex.locked():
                self._unlock()
            elif self.hired_ahead < WORKERS:  # all may have died, with their jobs
                self.hired_ahead += 1
                self._hire()
            return
        for answer in late:
            if self.given[answer][0] < self.next_job - 2 * ROOM - WORKERS:
                del self.given[answer]
                self.given_up.add(answer)
                if self.hired_ahead:
                    self.hired_ahead -= 1
                else:
                    self._hire()

    def _unlock(self) -> None:
        """For one that has died; if it lives, it may just have done so itself."""
        with contextlib.suppress(RuntimeError):
            self.mutex.unlock()

    def end(self) -> None:
        """Nobody waits any more."""
        self.stop.close()
        deadline = time.monotonic() + END_S
        while goroutines():
            if time.monotonic() > deadline:
                raise AssertionError(f"{goroutines()} goroutines are left")
            before = goroutines()
            time.sleep(0.1)
            if goroutines() == before and self.mutex.locked():
                self._unlock()


def talk(n: int) -> None:
    """What a P's program does with channels, a group and a lock of its own, and goroutines that run on any P, and may be lost with it."""
    back, group, mutex = gomp.Chan[int](1), gomp.WaitGroup(), gomp.Mutex()
    gomp.go(Helper, n=n, reply=back)
    group.go(Deep, depth=n & MOST_DEPTH)
    with contextlib.suppress(TimeoutError), mutex:
        doubled = back.recv(LOST_S) if n & 1 else gomp.select(back.receiving(), timeout=LOST_S)[1]
        if doubled != 2 * n:
            raise AssertionError(f"twice {n} is {doubled}")
        group.wait(LOST_S)
    pipe = gomp.Chan[int](1)
    pipe.send(n)
    pipe.close()
    if (received := (pipe.get(), pipe.get(default=-1))) != (n, -1):
        raise AssertionError(f"{n} and the end are sent, and {received} received")
