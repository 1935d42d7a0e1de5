"""``python -m benchmarks.pathologies [NAME...]``: the live page of each ``gomp demo``, as a real Chromium shows it, into docs/pictures."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from selenium import webdriver

from benchmarks.live_page import DESK, take
from gomp.demo import scenarios
from tests.browser import chromium, show_as
from tests.served import environment_in

HEIGHT = 1000
SHOWN_S = 75  # of the two minutes that the charts have
PORT_LINE = "gomp is ready: "


def picture_of(name: str, driver: webdriver.Chrome) -> None:
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "gomp", "demo", name, "--metrics-port", "0"]
        service = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment_in(Path(directory))
        )
        try:
            assert service.stdout
            url = next(line for line in service.stdout if line.startswith(PORT_LINE)).removeprefix(PORT_LINE).strip()
            show_as(driver, DESK, HEIGHT)
            driver.get(url)
            time.sleep(SHOWN_S)
            take(driver, f"of-{name.replace('_', '-')}", whole=False)
        finally:
            service.terminate()
            service.wait()


def main() -> None:
    with chromium() as driver:
        for name in sys.argv[1:] or scenarios():
            picture_of(name, driver)


if __name__ == "__main__":
    main()
