"""A trace opens in Perfetto, on its own page in a real browser, and its trace processor finds in it what the metrics say."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from browser import CHROMIUM, DRIVER, chromium
from perfetto_ui import opened, query

import gomp
from gomp.core import COMPILED
from gomp.runtime.discovery import choose
from gomp.runtime.traces import Recording

if not COMPILED:
    pytest.skip("runs processes of its own", allow_module_level=True)
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium here: apt-get install chromium chromium-driver"
)
PROCS = 2
ERRORS = "select name, value from stats where severity = 'error' and value > 0"
ASSISTS = """
    select process.name as p, sum(slice.dur) / 1e9 as seconds
    from slice join thread_track on slice.track_id = thread_track.id join thread using (utid) join process using (upid)
    where slice.name = 'assist' group by process.name
"""
PROCESSES = "select name from process where name is not null order by name"
COUNTERS = "select distinct name from counter_track order by name"


@pytest.mark.parametrize("seconds", [2.0, pytest.param(10.0, marks=pytest.mark.slow)])
def test_it_loads_without_an_error_and_has_the_time_of_assists_of_each_p(seconds: float, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    with gomp.Runtime(procs=PROCS, gogc=20, memory_limit="1GiB") as rt:
        recording = Recording(choose(rt.name), 60 + seconds, maps=False)
        before = rt.stats()

        def load() -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                rt.run("binary_trees", depth=14, goroutines=PROCS)
            recording.stop()

        loading = threading.Thread(target=load)
        loading.start()
        with file.open("w", encoding="ascii") as out:
            out.writelines(recording.pieces())
        loading.join()
        after = rt.stats()
    assert seconds <= recording.seconds < 60
    with chromium() as perfetto, opened(perfetto, file):
        assert query(perfetto, ERRORS) == []
        assert {"P0", "P1", "coordinator"} <= {name for (name,) in query(perfetto, PROCESSES)}
        found = dict(query(perfetto, ASSISTS))
        assert [name for (name,) in query(perfetto, COUNTERS)] == [
            "heap goal",
            "heap live",
            "memory limit",
            "memory mapped",
        ]
    for p in range(PROCS):
        metric = after.ps[p].assist_cpu_s - before.ps[p].assist_cpu_s
        assert metric > 0.001 * seconds
        assert found[f"P{p}"] == pytest.approx(metric, rel=1e-6)
    print(f"{file.stat().st_size >> 20} MiB: {found}")
