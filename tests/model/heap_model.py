"""Random programs on a heap, and what they should see: a dict of objects with the bytes that each should hold.

A program is a configuration and a list of actions, each a tuple of a name and small numbers that are taken modulo what there is to
choose from, so every list of actions means something and shrinks well. ``Program(...)`` prints as what ``run`` replays.

After each action every reachable object is compared byte for byte, references included (objects never move), and the heap is verified at
level 3, whose own trace must reach as many objects.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field

from heap_world import World, heap_world

from gomp.core.gc.rebuild import rebuild_derived_stw
from gomp.core.heap.mcache import release_all_stw
from gomp.core.mutator import boundary
from gomp.core.shm import layout
from gomp.core.shm.records import GC_TRIGGER_FORCED, GC_TRIGGER_HEAP

# What can be allocated: ("bytes", size), ("struct", size, words that are references), ("refs", n), ("numbers", n).
KINDS = (
    ("struct", 16, (0, 1)), ("bytes", 16), ("struct", 8, (0,)), ("bytes", 1), ("bytes", 5), ("bytes", 8), ("bytes", 15),
    ("struct", 24, (2,)), ("struct", 64, (0, 3, 7)), ("struct", 200, (24,)), ("struct", 512, (0, 63)), ("struct", 520, (0, 64)),
    ("struct", 2000, (7, 249)), ("struct", 8192, (0, 1023)), ("struct", 32760, (4094,)), ("struct", 40_000, (0, 4999)),
    ("bytes", 100), ("bytes", 512), ("bytes", 513), ("bytes", 9000), ("bytes", 32_760), ("bytes", 32_761), ("bytes", 70_000),
    ("refs", 1), ("refs", 63), ("refs", 64), ("refs", 300), ("refs", 5000), ("refs", 40_000), ("numbers", 1), ("numbers", 2000),
)  # fmt: skip
NGLOBALS = 3


@dataclass
class Obj:
    """An object as the model knows it: where it is, what its bytes are, and what its reference fields (by offset) refer to."""

    addr: int
    data: bytearray
    refs: dict[int, Obj | None]

    @property
    def slot(self) -> int:
        """What identifies its slot: objects below 16 bytes without references share one."""
        return self.addr & -16 if len(self.data) < 16 and not self.refs else self.addr

    def set(self, offset: int, target: Obj | None) -> None:
        self.refs[offset] = target
        self.data[offset : offset + 8] = (target.addr if target else 0).to_bytes(8, "little")


@dataclass(frozen=True)
class Config:
    nprocs: int = 1
    chunks: int = 2  # the heap's maximum in chunks of 4 MiB
    gc_percent: int = -1
    collect_every: int = 0
    clobberfree: int = 0


@dataclass(frozen=True)
class Program:
    config: Config = field(default_factory=Config)
    actions: tuple[tuple, ...] = ()


def run(program: Program) -> None:
    config = program.config
    with heap_world(config.nprocs, config.chunks * layout.CHUNK_PAGES, config.gc_percent) as world:
        world.runtime.collect_every = config.collect_every
        world.runtime.clobberfree = config.clobberfree
        model = Model(world)
        for action in program.actions:
            getattr(model, action[0])(*action[1:])
            model.check(action)


class Model:
    def __init__(self, world: World) -> None:
        self.world = world
        self.handles: list[tuple[tuple[int, int], Obj]] = []
        self.globals: list[Obj | None] = [None] * NGLOBALS
        for i in range(NGLOBALS):
            assert boundary.add_global(i + 1, 0, 0, 0, 0, 0) == i
        self.fill = 0

    # --- what there is --------------------------------------------------------------------------------------------------

    def reachable(self) -> list[Obj]:
        """Every object that the roots lead to, in an order that only the program decides."""
        found: dict[int, Obj] = {}
        todo = [obj for _, obj in self.handles] + [obj for obj in self.globals if obj]
        todo.reverse()
        while todo:
            obj = todo.pop()
            if obj.addr not in found:
                found[obj.addr] = obj
                todo.extend(target for target in obj.refs.values() if target)
        return list(found.values())

    def check(self, action: tuple) -> None:
        reachable = self.reachable()
        for obj in reachable:
            assert ctypes.string_at(obj.addr, len(obj.data)) == obj.data, (
                f"{action}: the object at {obj.addr:#x} changed"
            )
        report = self.world.verify(3)
        slots = {obj.slot for obj in reachable}
        assert report.reached == len(slots), action
        if action[0] == "collect" and action[1]:
            assert report.objects == len(slots), f"{action}: garbage survived"

    # --- allocation -----------------------------------------------------------------------------------------------------

    def _allocate(self, p: int, kind: tuple) -> tuple[tuple[int, int], Obj] | None:
        """An object that is zero when it comes and then full of a pattern; None if there is no memory."""
        world = self.world
        what, n = kind[0], kind[1]
        if what == "bytes":
            root, size, offsets = world.new(p, n), n, ()
        elif what == "struct":
            root, size, offsets = world.new(p, n, world.struct_type(n, kind[2])), n, tuple(8 * w for w in kind[2])
        else:
            references = what == "refs"
            root, size = world.new_array(p, n, world.references if references else 0), 8 + 8 * n
            offsets = tuple(range(8, size, 8)) if references else ()
        if root is None:
            return None
        obj = Obj(world.address(root), bytearray(size), dict.fromkeys(offsets))
        header = n.to_bytes(8, "little") if what in ("refs", "numbers") else b""
        obj.data[: len(header)] = header
        assert ctypes.string_at(obj.addr, size) == obj.data, f"a new {kind} is not zero"
        self._scribble(obj, len(header))
        return root, obj

    def _scribble(self, obj: Obj, start: int) -> None:
        """Fill what is no reference, so that overlaps and memory that is not zeroed again show."""
        self.fill = self.fill % 255 + 1
        size = len(obj.data)
        if len(obj.refs) * 8 + start < size:
            full = bytearray([self.fill]) * size
            full[:start] = obj.data[:start]
            for offset in obj.refs:
                full[offset : offset + 8] = bytes(8)
            obj.data[:] = full
            ctypes.memmove(obj.addr, bytes(full), size)

    def _p(self, p: int) -> int:
        return p % self.world.nprocs

    def _store(self, p: int, holder: Obj, offset: int, target: Obj | None) -> None:
        """As a program on P ``p`` does: through handles."""
        world = self.world
        a = world.hold(p, holder.addr)
        b = world.hold(p, target.addr) if target else (p, boundary.NO_SLOT)
        assert boundary.write_reference(a[1], offset, b[1]) == 0
        holder.set(offset, target)
        world.drop(a)
        if target:
            world.drop(b)

    # --- actions --------------------------------------------------------------------------------------------------------

    def new(self, p: int, kind: int) -> None:
        made = self._allocate(self._p(p), KINDS[kind % len(KINDS)])
        if made:
            self.handles.append(made)

    def garbage(self, p: int, kind: int, n: int) -> None:
        for _ in range(n):
            made = self._allocate(self._p(p), KINDS[kind % len(KINDS)])
            if made:
                self.world.drop(made[0])

    def chain(self, p: int, n: int) -> None:
        """A list of ``n`` nodes, each made before it is linked to the one before."""
        p = self._p(p)
        last = None
        for _ in range(n):
            made = self._allocate(p, KINDS[0])
            if made is None:
                break
            if last:
                self._store(p, made[1], 0, last[1])
                self.world.drop(last[0])
            last = made
        if last:
            self.handles.append(last)

    def fan(self, p: int, n: int) -> None:
        """A table of ``n`` nodes: more than a work buffer holds."""
        p = self._p(p)
        table = self._allocate(p, ("refs", n))
        if table is None:
            return
        self.handles.append(table)
        for i in range(n):
            made = self._allocate(p, KINDS[0])
            if made:
                self._store(p, table[1], 8 + 8 * i, made[1])
                self.world.drop(made[0])

    def link(self, p: int, i: int, nth: int, j: int) -> None:
        reachable = self.reachable()
        holders = [obj for obj in reachable if obj.refs]
        if holders:
            holder = holders[i % len(holders)]
            self._store(self._p(p), holder, list(holder.refs)[nth % len(holder.refs)], reachable[j % len(reachable)])

    def cut(self, p: int, i: int, nth: int) -> None:
        holders = [obj for obj in self.reachable() if obj.refs]
        if holders:
            holder = holders[i % len(holders)]
            self._store(self._p(p), holder, list(holder.refs)[nth % len(holder.refs)], None)

    def hold(self, p: int, i: int) -> None:
        reachable = self.reachable()
        if reachable:
            obj = reachable[i % len(reachable)]
            self.handles.append((self.world.hold(self._p(p), obj.addr), obj))

    def drop(self, i: int) -> None:
        if self.handles:
            self.world.drop(self.handles.pop(i % len(self.handles))[0])

    def set_global(self, p: int, g: int, i: int) -> None:
        """The i-th reachable object becomes the global's; none for 0."""
        p, g = self._p(p), g % NGLOBALS
        reachable: list[Obj | None] = [None, *self.reachable()]
        obj = reachable[i % len(reachable)]
        root = self.world.hold(p, obj.addr) if obj else (p, boundary.NO_SLOT)
        self.world.be(p)
        assert boundary.write_global(g, root[1], 1) == 0
        self.globals[g] = obj
        if obj:
            self.world.drop(root)

    def collect(self, swept: bool) -> None:
        self.world.collect(GC_TRIGGER_FORCED if swept else GC_TRIGGER_HEAP)

    def flush(self, p: int) -> None:
        release_all_stw(layout.p_addr(self._p(p)))

    def rebuild(self) -> None:
        if not self.world.is_marking:
            rebuild_derived_stw()

    def begin(self) -> None:
        self.world.begin_marking()

    def scan(self, p: int) -> None:
        self.world.scan_p(self._p(p))

    def mark(self, budget: int) -> None:
        self.world.mark(budget)

    def finish(self) -> None:
        assert self.world.finish_marking() == ()
