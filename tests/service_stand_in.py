"""A coordinator reduced to what the service needs: segments, a control socket, and figures that move on request.

Run as a script, told which metrics to serve and the service's limits that are to be others: prints one line of JSON with the URL and the
process ids, then obeys lines from stdin until it ends: ``ready``, ``shutdown``, ``cycle`` (one more collection), ``p N PID`` (P number N is process
PID), ``coordinator PID``, ``stop`` and ``start`` the world.
"""

import json
import os
import socket
import subprocess
import sys
import time

import httpx
from prometheus_client.parser import text_string_to_metric_families

from gomp.config import ServiceSettings, load
from gomp.core.shm import layout, records, segments
from gomp.service import connections, process


def main():
    for limit, value in json.loads(sys.argv[2]).items():
        setattr(connections if hasattr(connections, limit) else process, limit, value)
    settings = load(ServiceSettings, name="stand-in", metrics_port=0, metrics=sys.argv[1], procs=2, memory_limit="off")
    segments.map_segments(segments.create(layout.ARENA_SIZE), inherit=True)
    runtime = records.view(records.runtime_dtype, records.RUNTIME)[0]
    runtime.nprocs = runtime.slots = runtime.nrecords = settings.procs
    runtime.start_ns, runtime.coordinator_pid, runtime.max_pages = time.monotonic_ns(), os.getpid(), layout.ARENA_PAGES
    pacer = records.view(records.pacer_dtype, records.PACER)[0]
    pacer.gc_percent_goal, pacer.gc_percent, pacer.memory_limit = 4 << 20, settings.gogc, settings.memory_limit

    listener = process.bind(settings)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    service_pid = os.fork()
    if service_pid == 0:
        ours.close()
        process.run(settings, "stand-in", listener, None, theirs)
    theirs.close()
    runtime.service_pid = service_pid
    print(json.dumps({"url": process.url(listener), "pid": os.getpid(), "service": service_pid}), flush=True)
    for line in sys.stdin:
        obey(line.split())
        print("done", flush=True)
    ours.close()
    os.waitpid(service_pid, 0)


def obey(command):
    runtime = records.view(records.runtime_dtype, records.RUNTIME)[0]
    gc = records.view(records.gcstats_dtype, records.GCSTATS)[0]
    pacer = records.view(records.pacer_dtype, records.PACER)[0]
    match command:
        case ["ready"]:
            runtime.xready = 1
        case ["shutdown"]:
            runtime.xshutdown = 1
        case ["cycle"]:
            gc.pause_ns[gc.num_gc % 256] = 1_000_000
            gc.num_gc += 1
            gc.num_automatic += 1
            gc.pause_total_ns += 1_000_000
            gc.last_gc_unix_ns = time.time_ns()
            pacer.gc_percent_goal += 1 << 20
            pacer.xheap_live = 3 << 20
        case ["coordinator", pid]:
            runtime.coordinator_pid = int(pid)
        case ["stop"]:
            runtime.xstop = 1
        case ["start"]:
            runtime.xstop = 0
        case ["p", idx, pid]:
            records.view(records.p_dtype, layout.PS_BASE + int(idx) * layout.P_STRIDE)[0].xpid = int(pid)
        case _:
            raise ValueError(command)


class StandIn:
    """For tests: this script in a process of its own, and a client of its service."""

    def __init__(self, metrics="default", **limits):
        self.process = subprocess.Popen(
            [sys.executable, __file__, metrics, json.dumps(limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.info = json.loads(self.process.stdout.readline())
        self.client = httpx.Client(base_url=self.info["url"], timeout=10)

    def tell(self, command):
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def get(self, path, **headers):
        return self.client.get(path, headers=headers)

    def samples(self):
        families = text_string_to_metric_families(self.get("/metrics").text)
        return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}

    def close(self):
        self.client.close()
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


if __name__ == "__main__":
    main()
