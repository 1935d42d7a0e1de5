"""The image of the Dockerfile, built once for all tests that want it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from real_podman import IMAGE, build_image, needs_podman, podman


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    needs_podman()
    build_image()
    yield IMAGE
    podman("rmi", "--force", IMAGE, check=False)
