"""Looking at a runtime from a process that has no part in it: the coordinator hands over the segments, and the metadata are mapped to be read.

Whoever looks has no P and writes nothing. Nobody waits for it, and it goes on while the world is stopped, and after the runtime has ended, with what
was there then.
"""

from __future__ import annotations

import os

from gomp.core.shm import segments
from gomp.core.shm.records import layout_version
from gomp.errors import ConfigError, RuntimeLost, SegmentError
from gomp.runtime import discovery
from gomp.runtime.channel import Channel, check_answer

_ANSWER_S = 10.0  # the coordinator hands them over at once, whatever holds up a stop


def map_runtime(channel: Channel, name: str) -> tuple[int, int]:
    """Map the metadata of the runtime ``name``, which ``channel`` leads to and takes descriptors; those of heap and metadata, the caller's to close.

    Raises ConfigError if it is of another version, RuntimeLost, SegmentError.
    """
    channel.send("look")
    answer = channel.next(_ANSWER_S)
    if answer is None:
        raise RuntimeLost(f"the runtime {name} did not answer within {_ANSWER_S:.0f} s: is its coordinator stopped?")
    if check_answer(answer)["version"] != layout_version():
        raise ConfigError(f"the runtime {name} is of another version of gomp: use the gomp that it was started with")
    try:
        segments.map_metadata(channel.descriptors[1])
    except OSError as error:
        raise SegmentError(error.errno, error.strerror) from None
    return channel.descriptors.pop(0), channel.descriptors.pop(0)


class Look:
    """The runtime ``info``, whose metadata are mapped here now; ``heap_fd`` and ``meta_fd`` are its segments. Raises as :func:`map_runtime`."""

    def __init__(self, info: discovery.RuntimeInfo) -> None:
        self._channel = discovery.open_channel(info.name, takes_descriptors=True)
        self._channel.explain = lambda why: f"the runtime {info.name} has ended"
        try:
            self.heap_fd, self.meta_fd = map_runtime(self._channel, info.name)
        except BaseException:
            self._channel.close()
            raise

    def check(self) -> None:
        """Raises RuntimeLost if the runtime has ended."""
        message = self._channel.next(0)
        if message is not None:
            check_answer(message)

    def close(self) -> None:
        """The records stay mapped."""
        self._channel.close()
        os.close(self.heap_fd)
        os.close(self.meta_fd)
