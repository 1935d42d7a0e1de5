"""The model of the protocol, checked in every state; and each mutant of it found."""

from __future__ import annotations

import pytest

from tests.protocols.model import explore


@pytest.mark.parametrize("buffered", [False, True], ids=["sequential", "store buffers"])
def test_no_interleaving_breaks_the_protocol(buffered):
    states, problem = explore(buffered=buffered)
    assert problem == ""
    assert states > 5000


@pytest.mark.parametrize(
    ("mutant", "problem"),
    [
        ("entry by exchange", "works"),
        ("safe before the roots", "a parked P has no roots"),
        ("roots forgotten first", "a parked P has no roots"),
        ("a claimer parks", "a claimer acts while the world is stopped"),
        ("a stop that does not wait for the claimer", "a claimer acts while the world is stopped"),
    ],
)
def test_a_mutant_is_found(mutant, problem):
    assert problem in explore(mutant)[1]


@pytest.mark.parametrize("mutant", ["entry without its fence", "stop without its fence"])
def test_a_missing_fence_is_found_on_a_machine_with_store_buffers_only(mutant):
    assert explore(mutant)[1] == ""
    assert explore(mutant, buffered=True)[1] != ""
