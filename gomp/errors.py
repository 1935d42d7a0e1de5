"""What can go wrong, as a tree that users catch::

    GompError
    ├── ConfigError      (ValueError)       an option, an environment variable, a program name or parameter
    ├── SegmentError     (OSError)          shared memory could not be made, mapped or committed
    ├── OutOfMemory      (MemoryError)      the heap is full, even after a last collection
    ├── StackOverflow    (RecursionError)   compiled code recursed too deep, or programs wait too deep above each other
    ├── CompileError     (TypeError)        a compiled function uses what compiled code cannot do
    │   └── StackEscapeError                an address in a goroutine's stack would be stored outside of it
    ├── NilDereference   (AttributeError)   compiled code asked None for a field or an element
    ├── ClosedChannel    (ValueError)       a channel that is closed was sent to or closed; or received from, and it is empty
    ├── Deadlock         (RuntimeError)     all goroutines are asleep: nobody runs who could end this wait
    ├── FinalizerError   (ValueError)       what Go's SetFinalizer throws
    ├── CleanupError     (ValueError)       what Go's AddCleanup panics with
    ├── ProgramError                        a program raised
    ├── MessageTooLarge  (ValueError)       arguments or a result have more bytes than a message may
    ├── NoFreeP          (TimeoutError)     each P that the runtime lends to attached processes is lent
    ├── Interrupted                         a wait inside the runtime was cut short by a signal
    ├── WorkerDied       (RuntimeError)     the process that ran it was killed; the runtime goes on
    ├── StaleReference   (ReferenceError)   a pickled reference that was received before, or whose sender has ended
    ├── RuntimeLost                         the runtime is not there (any more)
    └── HeapCorrupt                         the heap breaks its own rules: our bug

Each class also is the built-in that a user would already catch. Everything a user can cause is reported in one line.
"""

from __future__ import annotations

__all__ = [
    "CleanupError",
    "ClosedChannel",
    "CompileError",
    "ConfigError",
    "Deadlock",
    "FinalizerError",
    "GompError",
    "HeapCorrupt",
    "Interrupted",
    "MessageTooLarge",
    "NilDereference",
    "NoFreeP",
    "OutOfMemory",
    "ProgramError",
    "RuntimeLost",
    "SegmentError",
    "StackEscapeError",
    "StackOverflow",
    "StaleReference",
    "WorkerDied",
]


class GompError(Exception):
    """The root of everything that gomp raises."""


class ConfigError(GompError, ValueError):
    """An option, an environment variable, a name or a parameter cannot be used; the message names the fix."""


class SegmentError(GompError, OSError):
    """A shared-memory segment could not be created, mapped or committed."""


class OutOfMemory(GompError, MemoryError):
    """The heap has no room for an allocation, even after a last-resort collection."""


class StackOverflow(GompError, RecursionError):
    """A compiled function recursed deeper than its native stack can be scanned, or a goroutine with frames than it may; or too many programs wait on
    one P, each above the one before."""


class CompileError(GompError, TypeError):
    """A compiled function could not be compiled; the message names the line and what is wrong with it."""


class StackEscapeError(CompileError):
    """Compiled code would store an address in a goroutine's stack where it outlives its frame."""


class NilDereference(GompError, AttributeError):
    """Compiled code asked None for a field or an element; ordinary Python raises AttributeError or TypeError there."""


class ClosedChannel(GompError, ValueError):
    """Go would panic: a channel that is closed was closed again or sent to. Or it is closed and empty, and a value was to be received."""


class Deadlock(GompError, RuntimeError):
    """Go would end the program: all goroutines are asleep. This wait has no timeout, and nobody runs who could end it; the message says who waits."""


class FinalizerError(GompError, ValueError):
    """Go's runtime.SetFinalizer would end the program with this message."""


class CleanupError(GompError, ValueError):
    """Go's runtime.AddCleanup would panic with this message."""


class ProgramError(GompError):
    """A program raised; ``remote_traceback`` is the text of its traceback on the P where it ran."""

    def __init__(self, message: str, remote_traceback: str = "") -> None:
        super().__init__(message)
        self.remote_traceback = remote_traceback

    def __reduce__(self) -> tuple[type[ProgramError], tuple[str, str]]:
        return type(self), (str(self), self.remote_traceback)


class MessageTooLarge(GompError, ValueError):
    """The arguments or the result of a call, pickled, have more bytes than a message may; large data belong in the heap."""


class NoFreeP(GompError, TimeoutError):
    """Each P that the runtime lends to attached processes is lent: wait longer, or start it with a larger ``max_attached``."""


class Interrupted(GompError):
    """A wait inside the runtime ended because of a signal, before what it waited for."""


class WorkerDied(GompError, RuntimeError):
    """The P that ran a goroutine was killed, and the goroutine with it. The runtime, its heap and the other goroutines go on."""


class StaleReference(GompError, ReferenceError):
    """A pickled reference leads nowhere any more: it is received once, and its object dies with a sender that ends before."""


class RuntimeLost(GompError):
    """The runtime ended or could not be found; its references are no longer usable."""


class HeapCorrupt(GompError):
    """The heap breaks one of its own rules: a bug in gomp, never in a program."""
