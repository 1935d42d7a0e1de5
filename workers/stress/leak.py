"""Everything is kept, at a steady pace: it ends with gomp.OutOfMemory, and takes nobody with it."""

from __future__ import annotations

import logging
import time

import gomp
from workers.stress.blocks import BLOCK, Block, memory

log = logging.getLogger(__name__)

_STEP = 500
_LOOK_S = 0.01

CHAIN = gomp.Global("stress.chain", Block)


@gomp.compiled
def _keep(blocks: int) -> int:
    """Keep so many more."""
    for _ in range(blocks):
        block = gomp.new(Block)
        block.next = CHAIN.get()
        CHAIN.set(block)
    return blocks


def main(seconds: float = 60.0, full: float = 0.5) -> None:
    """Until there is no memory: in ``seconds`` at the latest if it can have as much as it wants. What it kept can be collected then.

    As much as the memory limit is kept after this share of the time, ``full``.
    """
    kept, began = _keep(0), time.monotonic()
    try:
        while (elapsed := time.monotonic() - began) < seconds:
            due = int(memory() * elapsed / (full * seconds)) // BLOCK
            if kept < due:
                kept += _keep(min(due - kept, _STEP))
            else:
                time.sleep(_LOOK_S)
    finally:
        CHAIN.set(None)
        log.info("%d MiB were kept", kept * BLOCK >> 20)
