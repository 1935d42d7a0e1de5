"""How often goroutines are counted by site."""

from __future__ import annotations

import time

import numpy as np
import pytest

from gomp.runtime import sitecounts
from gomp.runtime.sitecounts import SiteCounts


@pytest.fixture
def counted(monkeypatch):
    """Gives a function: for how long nothing is counted anew, if counting and naming take so much of the processor."""

    def of(counting_s: float, naming_s: float) -> float:
        def work(seconds, found):
            end = time.thread_time() + seconds
            while time.thread_time() < end:
                pass
            return found

        monkeypatch.setattr(sitecounts, "count", lambda: work(counting_s, np.zeros(1, int)))
        monkeypatch.setattr(sitecounts, "named", lambda by_site: work(naming_s, []))
        counts = SiteCounts()
        counts.read()
        return counts.again_at - time.monotonic()

    return of


def test_a_count_that_takes_long_is_seldom_made(counted):
    assert 0.3 < counted(0.03, 0) < 2


def test_names_that_take_long_to_find_make_no_count_late(counted):
    assert counted(0, 0.03) <= 0


def test_without_goroutines_there_are_no_sites(mapped):
    assert SiteCounts().read() == []
