"""Where records are, for Python: the kernels' own helpers, as the Python that they are.

Called as they stand, those are compiled first. That takes 40 ms, and in a forked process 10 MiB: the pages of the compiler, which it shares with the
coordinator until then.
"""

from __future__ import annotations

from collections.abc import Callable

from gomp.core.gc import memprofile
from gomp.core.mutator import sites
from gomp.core.shm import layout


def _uncompiled(helper: Callable[[int], int]) -> Callable[[int], int]:
    body: Callable[[int], int] = getattr(helper, "py_func", helper)
    return body


g_addr, g_number = _uncompiled(layout.g_addr), _uncompiled(layout.g_number)
trace_addr = _uncompiled(layout.trace_addr)
site_addr = _uncompiled(sites.site_addr)
bucket_addr = _uncompiled(memprofile.bucket_addr)
