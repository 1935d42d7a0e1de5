"""The protocol of entry, claims, stops and parking as four small programs, and every way in which their steps can interleave.

Two Ps enter, work and leave; the first also parks in the middle, as a compiled program. A third P claims each of the two and acts for it. The
stopper stops the world and starts it. All four go on for ever; a state is where each of them stands, what memory holds and, on a machine with
store buffers (x86), which stores have not arrived in memory yet. The checker visits every state that can be reached.
What must hold: nobody works beside its claimer; while the world is stopped nobody works and nobody acts; whoever may scan a parked P finds
its roots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

SAFE, KERNEL, CLAIMED = 0, 1, 2
STOP, ROOTS, STATUS = 0, 1, 2  # words of memory; STATUS + i is P i's
P0, P1, CLAIMER, STOPPER = range(4)
WORK, PARKED, STOPPED = "works", "is parked", "has stopped the world"
Step = tuple[object, ...]
State = tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[tuple[int, int], ...], ...]]

# A step: ("cas", word, old, new) is repeated until it succeeds, and drains the store buffer, as ("fence",) does;
# ("cas_relaxed", word, old, new) leaves its store in the buffer; ("swap", word, new); ("store", word, value); ("at", place) does nothing there;
# ("if", word, value, label) and ("unless", ...) jump; ("goto", label); ("label", name) is no step.


def entry(p: int, park: bool, mutant: str) -> list[Step]:
    """A P: enter, work, and leave; ``park`` in between."""
    again = f"enter {park}"
    enters: dict[str, Step] = {
        "entry by exchange": ("swap", STATUS + p, KERNEL),
        "entry without its fence": ("cas_relaxed", STATUS + p, SAFE, KERNEL),
    }
    enter = enters.get(mutant, ("cas", STATUS + p, SAFE, KERNEL))
    refused: list[Step] = [("store", STATUS + p, SAFE), ("fence",), ("goto", again)]
    forget: list[Step] = [("store", ROOTS, 0)] if park else []
    early, late = (forget, []) if mutant == "roots forgotten first" else ([], forget)
    return [
        ("label", again), *early, enter, ("if", STOP, 0, f"in {park}"), *refused,
        ("label", f"in {park}"), *late, ("at", WORK),
    ]  # fmt: skip


def program(p: int, parks: bool, mutant: str) -> list[Step]:
    leave: list[Step] = [("store", STATUS + p, SAFE), ("fence",)]
    steps = [("label", "start"), *entry(p, False, mutant)]
    if parks:
        publish: list[Step] = [("store", ROOTS, 1)]
        park = leave + publish if mutant == "safe before the roots" else publish + leave
        steps += [*park, ("at", PARKED), *entry(p, True, mutant)]
    return [*steps, *leave, ("goto", "start")]


def claimer(mutant: str) -> list[Step]:
    leave: list[Step] = [("store", STATUS + CLAIMER, SAFE), ("fence",)]
    steps: list[Step] = [("label", "start"), ("cas", STATUS + CLAIMER, SAFE, KERNEL), ("unless", STOP, 0, "leave")]
    park = leave if mutant == "a claimer parks" else []
    for p in (P0, P1):
        steps += [("try", STATUS + p, SAFE, CLAIMED, f"not {p}"), *park, ("at", p)]
        steps += [("store", STATUS + p, SAFE), ("fence",), ("label", f"not {p}")]
    return [*steps, ("label", "leave"), *leave, ("goto", "start")]


def stopper(mutant: str) -> list[Step]:
    fence: list[Step] = [] if mutant == "stop without its fence" else [("fence",)]
    steps: list[Step] = [("label", "start"), ("store", STOP, 1), *fence]
    for p in (P0, P1) if mutant == "a stop that does not wait for the claimer" else (P0, P1, CLAIMER):
        steps += [("label", f"wait {p}"), ("if", STATUS + p, KERNEL, f"wait {p}")]
    return [*steps, ("at", STOPPED), ("store", STOP, 0), ("fence",), ("goto", "start")]


def assemble(steps: list[Step]) -> list[Step]:
    """Labels become step numbers."""
    labels: dict[object, int] = {}
    out: list[Step] = []
    for step in steps:
        if step[0] == "label":
            labels[step[1]] = len(out)
        else:
            out.append(step)
    return [(op, *(labels.get(part, part) for part in parts)) for op, *parts in out]


def successors(state: State, programs: list[list[Step]], buffered: bool) -> Iterator[State]:
    pcs, memory, buffers = state
    for t, steps in enumerate(programs):
        pc, buffer = pcs[t], buffers[t]
        if buffer:  # the oldest store arrives
            word, value = buffer[0]
            yield pcs, _put(memory, word, value), _put(buffers, t, buffer[1:])
        op, *args = steps[pc]
        after, now, pending = pc + 1, memory, buffer
        if op in ("cas", "swap", "fence", "try") and buffer:
            continue
        if op in ("cas", "cas_relaxed", "try") and memory[args[0]] != args[1]:
            if op != "try":
                continue
            after = args[3]
        elif op in ("store", "cas_relaxed") and buffered:
            pending = (*buffer, (args[0], args[-1]))
        elif op in ("cas", "cas_relaxed", "swap", "store"):
            now = _put(memory, args[0], args[-1])
        elif op == "try":
            now = _put(memory, args[0], args[2])
        elif op in ("if", "unless"):
            seen = next((v for w, v in reversed(buffer) if w == args[0]), memory[args[0]])
            if (seen == args[1]) == (op == "if"):
                after = args[2]
        elif op == "goto":
            after = args[0]
        yield _put(pcs, t, after), now, _put(buffers, t, pending)


def _put(values: tuple, i: int, value: object) -> tuple:
    return (*values[:i], value, *values[i + 1 :])


def violation(state: State, places: list[Callable[[int], object]], parked: range) -> str:
    pcs, memory, _ = state
    at = [place(pc) for place, pc in zip(places, pcs, strict=True)]
    acts_for, stopped = at[CLAIMER], at[STOPPER] == STOPPED
    for p in (P0, P1):
        if at[p] == WORK and acts_for == p:
            return f"P{p} works beside its claimer"
        if at[p] == WORK and stopped:
            return f"P{p} works while the world is stopped"
    if stopped and acts_for is not None:
        return "a claimer acts while the world is stopped"
    if pcs[P0] in parked and (stopped or acts_for == P0) and memory[ROOTS] == 0:
        return "a parked P has no roots"
    return ""


def explore(mutant: str = "", buffered: bool = False) -> tuple[int, str]:
    """Every state that can be reached, up to the first that must not be: (how many, what is wrong with it)."""
    sources = [program(P0, True, mutant), program(P1, False, mutant), claimer(mutant), stopper(mutant)]
    programs = [assemble(source) for source in sources]
    places = [lambda pc, s=steps: s[pc][1] if s[pc][0] == "at" else None for steps in programs]
    works = [pc for pc, step in enumerate(programs[P0]) if step == ("at", WORK)]
    first: State = ((0,) * 4, (0, 0, SAFE, SAFE, SAFE), ((),) * 4)
    seen, pending = {first}, [first]
    while pending:
        state = pending.pop()
        if problem := violation(state, places, range(works[0] + 1, works[1])):
            return len(seen), problem
        for after in successors(state, programs, buffered):
            if after not in seen:
                seen.add(after)
                pending.append(after)
    return len(seen), ""
