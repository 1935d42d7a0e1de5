"""``python -m benchmarks.live_page``: the pictures of the live page in docs/pictures, taken in a real Chromium from a service under load.

It lives for two minutes, until the charts are full; then its memory limit is lowered to less than its live heap, and in the end it is gone.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser import chromium, show_as

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
DESK, PHONE = 1200, 400
FULL_S = 125  # until the charts are
COLOURS = 256
TOKEN = "shown-in-a-picture"
CONFIG = """
name = "orders"
procs = 2
metrics_port = 0
max_heap = "1GiB"
memory_limit = "400MiB"
control = "tcp"
control_port = 0
control_token_file = "{token}"

[[programs]]
program = "mixed"
everywhere = true
parameters = {{ rate = 250, live = "96MiB" }}
"""


def take(driver: webdriver.Chrome, name: str, whole: bool = True) -> None:
    """The whole page, or what is on the screen, as page-NAME.png with few colours."""
    if whole:
        show_as(
            driver,
            _width(driver),
            driver.execute_script("return document.documentElement.scrollHeight"),
            _scheme(driver),
        )
        time.sleep(1.2)  # drawn anew, with a reading
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    file = PICTURES / f"page-{name}.png"
    picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file.name}: {picture.width} x {picture.height}, {file.stat().st_size >> 10} KiB")


def _width(driver: webdriver.Chrome) -> int:
    return int(driver.execute_script("return innerWidth"))


def _scheme(driver: webdriver.Chrome) -> str:
    return "dark" if driver.execute_script("return matchMedia('(prefers-color-scheme: dark)').matches") else "light"


def wait_for(driver: webdriver.Chrome, selector: str, text: str, seconds: float = 60) -> None:
    WebDriverWait(driver, seconds).until(lambda d: text in d.find_element(By.CSS_SELECTOR, selector).text)


def take_all(service: subprocess.Popen[str], url: str) -> None:
    with urllib.request.urlopen(url) as answer:
        control_url = re.search(r'data-control-url="([^"]+)"', answer.read().decode())[1]
    with chromium() as driver:
        show_as(driver, DESK)
        driver.get(url)
        time.sleep(FULL_S)
        take(driver, "top", whole=False)
        for scheme in ("light", "dark"):
            show_as(driver, DESK, scheme=scheme)
            take(driver, f"desk-{scheme}")
        for scheme in ("light", "dark"):
            show_as(driver, PHONE, scheme=scheme)
            take(driver, f"phone-{scheme}")

        show_as(driver, 800, 420)
        driver.get(control_url)
        take(driver, "token", whole=False)
        driver.find_element(By.ID, "token-word").send_keys(TOKEN, Keys.ENTER)
        wait_for(driver, "#heap-live", "iB")
        driver.find_element(By.ID, "set-limit").send_keys("120MiB", Keys.ENTER)
        wait_for(driver, "#control-answer", "memory limit is 120 MiB")
        time.sleep(3)
        driver.execute_script("document.querySelector('#control-answer').scrollIntoView({block: 'end'})")
        take(driver, "controls", whole=False)
        time.sleep(30)
        show_as(driver, DESK, 740)
        driver.execute_script("scrollTo(0, 0)")
        take(driver, "limited", whole=False)
        service.terminate()
        wait_for(driver, "#state", "connection lost")
        show_as(driver, 800, 420)
        time.sleep(0.5)
        take(driver, "lost", whole=False)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        token, config = Path(scratch) / "token", Path(scratch) / "service.toml"
        token.write_text(TOKEN)
        token.chmod(0o600)
        config.write_text(CONFIG.format(token=token))
        service = subprocess.Popen(
            [sys.executable, "-m", "gomp", "serve", "--config", config],
            stdout=subprocess.PIPE, text=True, env=os.environ | {"XDG_RUNTIME_DIR": scratch},
        )  # fmt: skip
        try:
            assert service.stdout
            take_all(service, service.stdout.readline().rpartition(" ")[2].strip())
        finally:
            service.terminate()
            service.wait(30)


if __name__ == "__main__":
    main()
