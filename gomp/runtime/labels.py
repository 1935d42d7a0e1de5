"""Labels of goroutines, keys and values, as Go's pprof has them: a goroutine has those of whoever starts it, but for those that it is started with.

They stand in the table of places (``sitetable``), all of a goroutine together, and stay there: labels are for what there are few kinds of. Where the
table has no room left, a goroutine has none.
"""

from __future__ import annotations

import functools
import json
import logging

from gomp.core.mutator.sites import NO_SITE
from gomp.runtime import handles, sites, sitetable
from gomp.runtime.here import here
from gomp.runtime.sitetable import Labels

_numbers: dict[Labels, int] = {}
handles.on_open(_numbers.clear)
handles.on_close(_numbers.clear)


log = logging.getLogger("gomp.goroutines")
_MOST = 512  # sets of labels that a process makes: places need room in the table, too


def number_of(labels: dict[str, str] | None) -> int:
    """The number in the table of these labels, with those of the goroutine of Python's that runs here; NO_SITE of none. TypeError if they are not
    texts by texts."""
    if not labels:
        return NO_SITE
    if not isinstance(labels, dict) or not all(isinstance(text, str) for pair in labels.items() for text in pair):
        raise TypeError(f'labels= is a dict of texts, as {{"request": "index"}}, not {labels!r}')
    made = tuple(sorted((dict(sitetable.labels_of(here.goroutine.labels)) | labels).items()))
    if made not in _numbers:
        if len(_numbers) >= _MOST:
            _warn_once()
            return NO_SITE
        text = json.dumps(made).encode()
        _numbers[made] = sites.publish(sitetable.key_of(text), text)
    return _numbers[made]


@functools.cache
def _warn_once() -> None:
    log.warning("there were %d different sets of labels: goroutines that are started with others have none", _MOST)
