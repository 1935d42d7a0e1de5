"""References on their way from one process to another: a handle of the sender's own that the receiver takes over.

Nouns
-----
transit   a pair of slots in the handle table of the P that sends. The *slot* holds the object's address, as any handle does; the *ticket* says
          for whom that is. Both are named, with the ticket's number, by the bytes that travel.
ticket    a word that is no heap address, so that whoever scans the table passes over it: 0; ``-n``, ready for whoever has number n; or
          CLAIMED, by whom. A P's numbers only grow, through all its processes: no two transits have the same. The slot's is their lower half, so
          that a ticket tells which slot it is for.

::

    0 ──send──▶ -n ──receive──▶ CLAIMED(q) ──▶ slot = 0 ──the sender, later──▶ 0
                 └───revoke───▶ CLAIMED(p) ──▶ slot = 0 ──at once──▶ 0

1. *Send*, in KERNEL: a new number; the object's address into the slot; then the ticket (release).
2. *Receive*, by another P or the same one, in one stay in KERNEL: claim the ticket by compare-and-swap (acquire); copy the address into an empty
   handle of its own through the write barrier; clear the sender's slot (release). From there on the pair is the sender's again.
3. *Revoke*, by the sender: claim the ticket, clear the slot.

Once. Numbers are unique, so only a transit's own bytes name it, and the compare-and-swap lets one of all who unpickle them pass: twice the same
bytes, two processes with them, or the sender that takes back what somebody is receiving. The sender uses the pair again only when the slot is
0, which is the last that the other does to either word.

No interleaving loses the object
--------------------------------
Marking begins and ends at stops, and nobody stops inside KERNEL. So a receive lies wholly before, within or after a mark phase.

*Not within*: the slot held the object up to the end, and the receiver's handle holds it from before the slot was cleared. Each stop finds it in one.

*Within*. Call the sender's table S, the receiver's R; each is scanned once, by its P in KERNEL or by a claimer while the P is SAFE. The receiver
shades the object *before* it clears the slot: so whatever becomes of either table, the object is marked, or is in the receiver's barrier
buffer, which is flushed before marking ends. Hence it does not matter that
  - R was scanned before and is black: that is what the shade is for (S may be white still, and hold the only reference);
  - S is scanned by a claimer at the same time: it reads the address and marks it, or 0, and it is shaded;
  - the sender's P is SAFE, in KERNEL, or allocates: it uses neither word before the slot is 0.
Sending needs no shade. Both slots are in S, and S is not scanned while its P is in KERNEL: it is scanned before, and then the object, held by a black
handle, is marked or protected by the barrier like whatever that handle's P loads, or after, and then the scan finds it in its new place.

On aarch64 the claim (acquire) is ordered after the ticket's store (release), hence the address is there and the object it names complete.
That the slot lies in memory that is committed the receiver knows from the sender's count of slots, which it can see because it has the
bytes: whatever brought them ordered it. Numbers that are out of range, from bytes that were spoilt, are refused.

A kill
------
  of the sender      the whole table is cleared by repair, world stopped, with everything that nobody had received. Numbers go on in its record,
                     so bytes of the dead process name nothing that a later one sends.
  of the receiver    before the claim: nothing has happened, and the bytes are still good. After it: the object died with its receiver, and the
                     ticket says who that was. The sender sees that this process is gone (``deaths``), and takes the pair back.
  of a third process on the way: the bytes are lost, and the object stays rooted until the sender revokes it or dies.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.mutator.barrier import write_pointer
from gomp.core.mutator.boundary import load_handle, slot_addr
from gomp.core.sched.status import OK, RETRY, enter, leave
from gomp.core.shm import layout
from gomp.core.shm.atomics import cas_acq_rel, load_relaxed, store_relaxed, store_release
from gomp.core.shm.records import nrecords, p_at, self_p

GONE = 1  # the transit that was named has been received or revoked, or its sender has died
SLOT_BITS = (layout.HANDLES_PER_P - 1).bit_length()  # leaves 2**40 numbers above CLAIMED
CLAIMED = -(1 << 62)  # less the claimer: its process's number among those of its P << 8 | its P


@kernel("int64(int64, int64, int64)")
def send_reference(source: int, slot: int, ticket_slot: int) -> int:
    """Make the empty pair (``slot``, ``ticket_slot``) a transit of what the handle ``source`` holds: its number, or RETRY."""
    if enter() != OK:
        return RETRY
    me = self_p()
    me.transits += 1  # before it is used: a kill in between loses a number
    number = (me.transits << SLOT_BITS) | slot
    store_relaxed(slot_addr(slot), load_handle(source))
    store_release(slot_addr(ticket_slot), -number)  # pairs with _claim
    leave()
    return number


@kernel("int64(int64, int64, int64, int64, int64)")
def receive_reference(p: int, slot: int, ticket_slot: int, number: int, into: int) -> int:
    """Take over what P ``p`` sent under ``number``, into the empty handle ``into``: OK, GONE or RETRY."""
    if enter() != OK:
        return RETRY
    status = GONE
    if _has_slot(p, slot) and _has_slot(p, ticket_slot):
        sent = layout.handles_addr(p) + 8 * slot
        if _claim(layout.handles_addr(p) + 8 * ticket_slot, number):
            write_pointer(slot_addr(into), load_relaxed(sent))  # shades it while marking is on
            store_release(sent, 0)  # the sender's again: pairs with its look at the slot
            status = OK
    leave()
    return status


@kernel("int64(int64, int64, int64)")
def revoke_reference(slot: int, ticket_slot: int, number: int) -> int:
    """Take back what this P has sent: OK, or GONE if somebody has received it, or is about to. Clears a handle only, so it need not enter."""
    if not _claim(slot_addr(ticket_slot), number):
        return GONE
    store_release(slot_addr(slot), 0)
    return OK


@inline
def _claim(ticket: int, number: int) -> bool:
    me = self_p()
    return number > 0 and cas_acq_rel(ticket, -number, CLAIMED - ((me.deaths << 8) | me.idx))


@inline
def _has_slot(p: int, slot: int) -> bool:
    """Whether P ``p`` has ever used that slot: then it may be touched."""
    return 0 <= p < nrecords() and 0 <= slot < p_at(layout.p_addr(p)).handles
