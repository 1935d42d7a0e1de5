"""``gomp.Mutex`` and ``gomp.WaitGroup``, from Python: Go's, in the shared heap. What they are is in :mod:`gomp.core.mutator.sync`.

Frames lock and wait by their actions, ``f.lock(m)`` and ``f.wait(group)``; compiled code and Python by methods, all at the same lock or group. Who
waits in Python has released the interpreter's lock; the main thread of a P runs other goroutines meanwhile.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from gomp.core.heap.waitq import HOLDER, PENDING
from gomp.core.mutator import sync, synccalls
from gomp.core.mutator.boundary import NO_SLOT
from gomp.core.shm.records import CHAN_WOULD_BLOCK
from gomp.runtime import listening, type_table
from gomp.runtime.handles import kernels, table
from gomp.runtime.kinds import INT
from gomp.runtime.references import OpaqueLayout, Reference, ReferenceMeta, slot_of, word_at
from gomp.runtime.slots import allocated
from gomp.runtime.waits import wait

if TYPE_CHECKING:
    from gomp.runtime.frames import Frame

__all__ = ["Mutex", "WaitGroup"]


class SyncMeta(ReferenceMeta):
    """The class of the classes of locks and groups, whose instances are made by calling them."""

    def __call__(cls) -> Any:  # type: ignore[override]
        type_table.register(cls)
        of: Any = cls
        return allocated(of, kernels.new_object, sync.SYNC_BYTES, 0)


class Mutex(Reference, metaclass=SyncMeta):
    """A lock, of whoever calls :meth:`lock` first. ``with mutex:`` locks it, too.

    Not bound to who has locked it, as Go's: another may unlock it. If who holds it is killed it stays locked.
    """

    __slots__ = ()
    made_by: ClassVar[str] = "gomp.Mutex()"
    layout: ClassVar[Any] = OpaqueLayout("mutex")

    def lock(self, timeout: float | None = None) -> None:
        """Wait until nobody else holds it. TimeoutError after ``timeout`` seconds."""
        slot = slot_of(self)
        if table.call(synccalls.mutex_lock, slot) == CHAN_WOULD_BLOCK:
            wait("the lock was not free", timeout, NO_SLOT, synccalls.mutex_wait_to_lock, slot, undo=self._give_back)

    async def locking(self) -> None:
        """As :meth:`lock`, where it is awaited. Who is cancelled does not hold it."""
        slot = slot_of(self)
        if table.call(synccalls.mutex_lock, slot) == CHAN_WOULD_BLOCK:
            await listening.wait(NO_SLOT, synccalls.mutex_wait_to_lock, slot, undo=self._give_back)

    def _give_back(self) -> None:
        """It has come to who does not wait for it any more."""
        table.call(synccalls.mutex_unlock, slot_of(self))

    def try_lock(self) -> bool:
        """Whether nobody held it: then the caller does."""
        return table.call(synccalls.mutex_lock, slot_of(self)) != CHAN_WOULD_BLOCK

    def unlock(self) -> None:
        """Let the next one have it. RuntimeError if nobody holds it."""
        if table.call(synccalls.mutex_unlock, slot_of(self)) == sync.NOT_LOCKED:
            raise RuntimeError(UNLOCKED)

    def locked(self) -> bool:
        """Whether somebody holds it."""
        return word_at(slot_of(self), HOLDER) != 0

    def __enter__(self) -> Mutex:
        self.lock()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.unlock()

    async def __aenter__(self) -> Mutex:
        await self.locking()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.unlock()


class WaitGroup(Reference, metaclass=SyncMeta):
    """How many are not done, and a way to wait until none is."""

    __slots__ = ()
    made_by: ClassVar[str] = "gomp.WaitGroup()"
    layout: ClassVar[Any] = OpaqueLayout("group")

    def add(self, n: int = 1, /) -> None:
        """So many more are to be waited for. ValueError if that makes them fewer than none."""
        slot = slot_of(self)
        left = table.call(synccalls.group_add, slot, int(INT.checked(n, lambda: "n of WaitGroup.add")))
        if left == sync.NEGATIVE:
            raise ValueError(NEGATIVE)
        while left == sync.ALL_DONE and table.call(synccalls.group_tell, slot):
            pass

    def done(self) -> None:
        """One of them is done."""
        self.add(-1)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all are done. TimeoutError after ``timeout`` seconds."""
        slot = slot_of(self)
        if table.call(synccalls.group_wait, slot) == CHAN_WOULD_BLOCK:
            wait("not all of the group were done", timeout, NO_SLOT, synccalls.group_wait_to_be_done, slot)

    async def waiting(self) -> None:
        """As :meth:`wait`, where it is awaited."""
        slot = slot_of(self)
        if table.call(synccalls.group_wait, slot) == CHAN_WOULD_BLOCK:
            await listening.wait(NO_SLOT, synccalls.group_wait_to_be_done, slot)

    def go(self, cls: type[Frame[Any]], /, *, labels: dict[str, str] | None = None, **slots: Any) -> int:
        """As ``gomp.go``, a goroutine that is one of them until its frame of ``cls`` has returned, which must not raise: its id."""
        from gomp.runtime import groups  # above this

        return groups.go(self, cls, slots, labels)

    @property
    def pending(self) -> int:
        """How many are not done."""
        return word_at(slot_of(self), PENDING)


# As in sync/mutex.go and sync/waitgroup.go.
UNLOCKED = "unlock of unlocked mutex"
NEGATIVE = "negative WaitGroup counter"
