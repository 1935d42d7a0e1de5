"""Random numbers for choices that nobody should be able to rely on: quick, and not for secrets (rand.go, cheaprand).

The state is in the record of the P that asks. Two threads of one P at once may draw the same number, which does nobody any harm.
"""

from __future__ import annotations

from gomp.core.jit import inline
from gomp.core.shm.atomics import lsl, lsr, mul64
from gomp.core.shm.libc import nanotime
from gomp.core.shm.records import self_p

_MULTIPLIER = 0x2545F4914F6CDD1D


@inline
def cheaprand(bits: int) -> int:
    """As many random bits, 1 to 63: xorshift64* (Vigna, 2016), which is seeded when it is first used."""
    me = self_p()
    x = me.cheaprand
    if x == 0:
        x = nanotime() ^ lsl(me.idx + 1, 48)
    x ^= lsr(x, 12)
    x ^= lsl(x, 25)
    x ^= lsr(x, 27)
    me.cheaprand = x
    return lsr(mul64(x, _MULTIPLIER), 64 - bits)
