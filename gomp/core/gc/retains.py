"""``gomp.who_retains``: what is said of the objects along a path that a trace has found. World: stopped."""

from __future__ import annotations

from gomp.core.gc.verify.trace import is_typed, type_record_of
from gomp.core.heap import mspan
from gomp.core.jit import kernel
from gomp.core.shm.atomics import store64
from gomp.core.shm.records import spans, type_at

# Words of a description: addresses of the object and of the end of its slot, its slot's size, whether it has references, which of its words are, for
# slots of up to 512 bytes; the key of its type if it carries it, else 0.
D_OBJECT, D_END, D_SIZE, D_SCANNED, D_MASK, D_TYPE = range(0, 48, 8)
DESCRIPTION_BYTES = 48


@kernel("int64(int64)")
def slot_at(word: int) -> int:
    """Address of the slot that ``word``, a reference to an object or into one, leads to."""
    page = mspan.span_of(word)
    return mspan.obj_addr(page, mspan.obj_idx_of(page, word))


@kernel("void(int64, int64)")
def describe(addr: int, out: int) -> None:
    """What is known of the object in the slot at ``addr``."""
    page = mspan.span_of(addr)
    sp = spans()[page]
    scanned = not mspan.is_noscan(sp.span_class)
    obj, mask, type_key = addr, 0, 0
    if scanned and sp.elem_size <= mspan.MAX_INLINE:
        mask = 1 if sp.span_class == mspan.SCAN8 else mspan.read_pointer_mask(addr, sp.elem_size >> 3)
    elif scanned:
        obj = addr + 8 if is_typed(page) else addr
        type_addr = type_record_of(page, addr)
        type_key = 0 if type_addr == 0 else type_at(type_addr).key
    store64(out + D_OBJECT, obj)
    store64(out + D_END, addr + sp.elem_size)
    store64(out + D_SIZE, sp.elem_size)
    store64(out + D_SCANNED, 1 if scanned else 0)
    store64(out + D_MASK, mask)
    store64(out + D_TYPE, type_key)
