"""``python -m benchmarks.trace_picture``: docs/pictures/perfetto.png, a cycle of ``churn`` in Perfetto, taken in a real Chromium."""

from __future__ import annotations

import io
import tempfile
import threading
import time
from pathlib import Path

from PIL import Image

import gomp
from gomp.runtime.discovery import choose
from gomp.runtime.traces import Recording
from tests.browser import chromium, show_as
from tests.perfetto_ui import opened, query

PICTURE = Path(__file__).parent.parent / "docs" / "pictures" / "perfetto.png"
WIDTH, HEIGHT, COLOURS = 1400, 720, 128
TRACED_S, DRAWN_S = 2.0, 2.0
# A cycle in the middle whose marking took its time, so that there is something to see in it.
CYCLE = """
    select slice.ts - trace_start(), slice.dur from slice join thread_track on slice.track_id = thread_track.id join thread using (utid)
    where slice.name = 'mark phase' and thread.name = 'collector' and slice.ts - trace_start() > 5e8 order by slice.dur desc limit 1
"""
_SHOW = """
const [after, nanoseconds] = arguments, start = window.app.trace.traceInfo.start + BigInt(after);
window.app.commands.runCommand("dev.perfetto.ExpandAllGroups");
window.app.trace.scrollTo({time: {start: start, end: start + BigInt(nanoseconds), behavior: {viewPercentage: 0.4}}});
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, chromium() as driver:
        file = Path(directory, "trace.json")
        with gomp.Runtime(procs=2, memory_limit="200MiB") as rt:
            running = threading.Thread(target=rt.run, args=("churn",), kwargs={"goroutines": 3})
            running.start()
            with file.open("w", encoding="ascii") as out:
                out.writelines(Recording(choose(rt.name), TRACED_S, maps=False).pieces())
            running.join()
        with opened(driver, file):
            show_as(driver, WIDTH, HEIGHT)
            ((after, nanoseconds),) = query(driver, CYCLE)
            driver.execute_script(_SHOW, after, nanoseconds)
            time.sleep(DRAWN_S)
            picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
