"""A memory cgroup of a test's own, on a machine that lets one be made (cgroup v1 or v2); others skip."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gomp.errors import ConfigError
from gomp.stress.cgroup import OwnCgroup, own_cgroup


@contextmanager
def make_cgroup(limit: int) -> Iterator[OwnCgroup]:
    """Skips where there is none to be had."""
    maker = own_cgroup(limit)
    try:
        cgroup = maker.__enter__()
    except ConfigError as error:
        pytest.skip(str(error))
    try:
        yield cgroup
    finally:
        maker.__exit__(None, None, None)
