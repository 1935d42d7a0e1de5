"""Hash maps on a :class:`~heap_world.World`: the calls that Python makes for each operation, by any of its Ps."""

from __future__ import annotations

import ctypes

from gomp.core.mutator import boundary, mapcalls
from gomp.core.mutator.hashmap import (
    COUNT,
    ENTRY_MASK,
    ENTRY_TYPE,
    GROW,
    INT_KEY,
    KEY,
    MAP_BYTES,
    MAP_MASK,
    META,
    SCAN_BYTES,
    SENTINEL_BYTES,
    SENTINEL_MASK,
    SPLIT,
    TABLE_TYPE,
)
from gomp.core.mutator.mapcalls import ABSENT, COPIED
from gomp.core.mutator.types import find_type, publish_type, reserve_mask, set_mask_word
from gomp.core.sched.status import OK, RETRY
from gomp.core.shm.atomics import load64

VALUE_TYPE = 77


class Refused(Exception):
    """A call that would be made again later: somebody is in the way."""


class Maps:
    """Maps whose keys are ints or bytes and whose values are 16-byte objects that hold a number."""

    def __init__(self, world):
        self.world = world
        for key, elem, ptr_bytes, mask in ((ENTRY_TYPE, 0, SCAN_BYTES, ENTRY_MASK), (TABLE_TYPE, 8, 8, 1)):
            if find_type(key) == 0:
                words = reserve_mask(1)
                set_mask_word(words, 0, mask)
                assert publish_type(key, 0, ptr_bytes, elem, words) > 0

    def _allocate(self, p, kernel, *args):
        world = self.world
        world.be(p)
        slot = world._free_slot(p)
        status = kernel(slot, *args, 0)
        assert status != boundary.OUT_OF_MEMORY
        if abs(status) >= boundary.WAIT_BASE:
            world.collect(int(world.runtime.xgc_request))
            if status < 0:
                assert kernel(slot, *args, 1) == OK
        return p, slot

    def _node(self, p, size, mask):
        return self._allocate(p, boundary.new_struct, size, mask, 0, 0)

    def call(self, p, kernel, *args):
        self.world.be(p)
        result = kernel(*args)
        if result == RETRY:
            raise Refused
        return result

    def new(self, p):
        return self._node(p, MAP_BYTES, MAP_MASK)

    def value(self, p, number):
        root = self.world.new(p, 16)
        ctypes.c_int64.from_address(self.world.address(root)).value = number
        return root

    def entry(self, p, key, number):
        value = self.value(p, number)
        made = self._allocate(p, mapcalls.map_new_entry, INT_KEY, key, value[1], VALUE_TYPE)
        self.world.drop(value)
        return made

    def put(self, p, m, key, number):
        value = self.value(p, number)
        done = self.call(p, mapcalls.map_replace, m[1], INT_KEY, key, value[1], VALUE_TYPE)
        self.world.drop(value)
        if not done:
            self.insert(p, m, self.entry(p, key, number))

    def insert(self, p, m, entry):
        done = self.call(p, mapcalls.map_insert, m[1], entry[1], 0)
        if done & GROW:
            self.grow(p, m)
        elif done & SPLIT:
            sentinel = self._node(p, SENTINEL_BYTES, SENTINEL_MASK)
            self.call(p, mapcalls.map_split, m[1], entry[1], sentinel[1])
            self.world.drop(sentinel)
        self.world.drop(entry)

    def grow(self, p, m):
        n = self.call(p, mapcalls.map_next_length, m[1])
        table = self._allocate(p, boundary.new_array, n, 8 + 8 * n, TABLE_TYPE)
        at = 0
        while at != COPIED:
            at = self.call(p, mapcalls.map_copy, m[1], table[1], at)
        self.call(p, mapcalls.map_set_table, m[1], table[1])
        self.world.drop(table)

    def get(self, p, m, key):
        return self._number(p, mapcalls.map_get, m[1], INT_KEY, key)

    def remove(self, p, m, key):
        return self._number(p, mapcalls.map_remove, m[1], INT_KEY, key)

    def clear(self, p, m):
        self.call(p, mapcalls.map_clear, m[1])

    def _number(self, p, kernel, *args):
        """What the value holds that the kernel gives, or None."""
        self.world.be(p)
        slot = self.world._free_slot(p)
        found = self.call(p, kernel, *args, slot)
        number = None if found == ABSENT else load64(self.world.address((p, slot)))
        self.world.drop((p, slot))
        return number

    def length(self, m):
        return load64(self.world.address(m) + COUNT)

    def walk(self, p, m):
        """Pairs of key and number, in the order of the walk."""
        world = self.world
        cursor = world.hold(p, world.address(m))
        pairs = []
        while True:
            number = self._number(p, mapcalls.map_next, cursor[1])
            if number is None:
                break
            at = world.address(cursor)
            assert load64(at + META) == INT_KEY
            pairs.append((load64(at + KEY), number))
        world.drop(cursor)
        return pairs

    def contents(self, p, m):
        pairs = self.walk(p, m)
        assert len(dict(pairs)) == len(pairs) == self.length(m)
        return dict(pairs)
