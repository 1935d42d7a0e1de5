"""Everything is kept: it ends with gomp.OutOfMemory, and takes nobody with it."""

from __future__ import annotations

import logging
import time

import gomp
from workers.stress.blocks import BLOCK, Block

log = logging.getLogger(__name__)

_STEP = 4000

CHAIN = gomp.Global("stress.chain", Block)


@gomp.compiled
def _keep(blocks: int) -> int:
    """Keep so many more."""
    for _ in range(blocks):
        block = gomp.new(Block)
        block.next = CHAIN.get()
        CHAIN.set(block)
    return blocks


def main(seconds: float = 60.0) -> None:
    """Until there is no memory: in ``seconds`` at the latest if it can have as much as it wants. What it kept can be collected then."""
    kept, began = 0, time.monotonic()
    try:
        while time.monotonic() - began < seconds:
            kept += _keep(_STEP)
    finally:
        CHAIN.set(None)
        log.info("%d MiB were kept", kept * BLOCK >> 20)
