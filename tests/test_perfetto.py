"""A trace of ten seconds in Perfetto's own trace processor, where PyPI's ``perfetto`` and a ``trace_processor_shell`` are installed."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

import gomp
from gomp.core import COMPILED
from gomp.runtime.discovery import choose
from gomp.runtime.traces import Recording

if not COMPILED:
    pytest.skip("runs processes of its own", allow_module_level=True)
perfetto = pytest.importorskip("perfetto.trace_processor", reason="needs PyPI's perfetto")
PROCESSOR = shutil.which("trace_processor_shell")
if PROCESSOR is None:
    pytest.skip("needs Perfetto's trace_processor_shell", allow_module_level=True)
SECONDS, PROCS = 10.0, 2
BY_P = """
    select process.name as p, sum(slice.dur) / 1e9 as seconds
    from slice join thread_track on slice.track_id = thread_track.id join thread using (utid) join process using (upid)
    where slice.name = 'assist' group by process.name
"""


@pytest.mark.slow
def test_it_loads_and_has_the_time_of_assists_of_each_p(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    with gomp.Runtime(procs=PROCS, gogc=50) as rt:
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                rt.run("binary_trees", depth=14, goroutines=PROCS)

        loading = threading.Thread(target=load)
        loading.start()
        recording = Recording(choose(rt.name), SECONDS, maps=False)
        before = rt.stats()
        with file.open("w", encoding="ascii") as out:
            out.writelines(recording.pieces())
        after = rt.stats()
        stop.set()
        loading.join()
    assert recording.seconds >= SECONDS
    config = perfetto.TraceProcessorConfig(bin_path=PROCESSOR)
    with perfetto.TraceProcessor(trace=str(file), config=config) as processor:
        errors = list(processor.query("select name, value from stats where severity = 'error' and value > 0"))
        assert [(row.name, row.value) for row in errors] == []
        found = {row.p: row.seconds for row in processor.query(BY_P)}
    for p in range(PROCS):
        metric = after.ps[p].assist_cpu_s - before.ps[p].assist_cpu_s
        assert metric > 0.01
        assert found[f"P{p}"] == pytest.approx(metric, rel=0.05)
    print(f"{file.stat().st_size >> 20} MiB: {found}")
