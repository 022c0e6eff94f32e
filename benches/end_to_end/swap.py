#!/usr/bin/env python3
"""Whether requests notice that the configuration is swapped: the 99th percentile of a steady load, with and without.

    cargo build --release && python3 benches/end_to_end/swap.py                   # about two minutes

The load is 2,000 requests a second whatever becomes of them (h2load), so that a pause shows as what clients would feel.
Rounds without swaps, with one every 20 ms, with 10,000 routes, and with these swapped one after the other are
interleaved; what is put is made before. Load, endpoints and workers share one core, and what makes swaps is on another:
what requests notice then is the swap, and not that a machine has too few cores. With --cores all, everything is everywhere.
Needs nginx and h2load from Debian (nginx-light, nghttp2-client).
"""

import argparse
import os
import random
import re
import socket
import statistics
import subprocess
import threading
import time

from proxies import ROOT, Bench, free_port, memory_kib, need, set_apart, wait_for

CONFIG = """
workers: {workers}
admin: {{ address: "127.0.0.1:{admin}" }}
drain: {{ delay: 0s, timeout: 1s }}
telemetry: {{ access_log: {{ path: none }}, log: {{ level: error }} }}
listeners:
  inbound:
    address: "127.0.0.1:{port}"
    routes:
{routes}
      - {{ name: main, upstream: app }}
upstreams:
  app: [{endpoints}]
{upstreams}
"""


def text(bench, port, admin, routes, turn, workers):
    """A configuration of so many routes. `turn` moves what no request of the load sees."""
    lines = [f"      - {{ match: {{ host: service-{n} }}, upstream: other-{n % 1000} }}" for n in range(routes)]
    lines.append(f"      - {{ match: {{ path: /turn-{turn} }}, respond: {{ status: 204 }} }}")
    upstreams = [f'  other-{n}: "127.0.0.1:{1 + (turn + n) % 1000}"' for n in range(min(routes, 1000))]
    return CONFIG.format(
        port=port,
        admin=admin,
        workers=workers,
        routes="\n".join(lines),
        endpoints=", ".join(f'"{endpoint}"' for endpoint in bench.endpoints),
        upstreams="\n".join(upstreams),
    )


class Admin:
    """A kept connection to the admin, which costs the machine little besides what the proxy does."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def put(self, request):
        """Returns when the configuration is in force."""
        self.socket.sendall(request)
        answer = b""
        while (end := answer.find(b"\r\n\r\n")) < 0:
            answer += self.receive()
        if not answer.startswith(b"HTTP/1.1 200 "):
            exit(f"a swap was refused: {answer.decode()}")
        left = int(re.search(rb"(?i)content-length: *(\d+)", answer)[1]) - (len(answer) - end - 4)
        while left > 0:
            left -= len(self.receive())

    def receive(self):
        return self.socket.recv(1 << 20) or exit("the admin has closed the connection")


def request(configuration):
    body = configuration.encode()
    return b"PUT /config HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class Swapper(threading.Thread):
    """Puts two configurations in force in turn, every so often or as fast as they are taken."""

    def __init__(self, admin, requests, every):
        super().__init__(daemon=True)
        self.admin, self.requests, self.every = admin, requests, every
        self.took, self.done = [], threading.Event()

    def run(self):
        turn, due = 0, time.monotonic()
        while not self.done.is_set():
            began = time.monotonic()
            self.admin.put(self.requests[turn % 2])
            self.took.append((time.monotonic() - began) * 1e3)
            turn += 1
            due = max(due + self.every, time.monotonic())
            self.done.wait(due - time.monotonic())

    def finish(self):
        self.done.set()
        self.join()
        return self.took


def load(bench, url, seconds, rate, connections):
    """A steady load; gives the time of each request in milliseconds."""
    log = bench.folder / f"h2load-{random.getrandbits(40)}"
    # fmt: off
    words = [need("h2load"), "--h1", "-c", connections, "-t", 1, "-D", seconds, "--rps", rate // connections,
             f"--log-file={log}", url]
    # fmt: on
    if bench.spawn(words).wait(seconds + 30):
        exit("h2load has failed")
    times = []
    for line in log.read_text().splitlines():
        _, status, micros = line.split()
        if status != "200":
            exit(f"a request was answered {status}")
        times.append(int(micros) / 1e3)
    log.unlink()
    return times


def p99(times):
    return statistics.quantiles(times, n=100)[98]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rate", type=int, default=2_000, help="requests a second; default %(default)s")
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--every", type=float, default=20, help="milliseconds from swap to swap; default %(default)s")
    parser.add_argument("--routes", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--cores", choices=("two", "all"), default="two", help="one for requests and one for swaps, or any")
    parser.add_argument("--outrigger", default=ROOT / "target/release/outrigger")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    apart = options.cores == "two" and len(cores) > 1
    jobs = ("few routes", "few routes, swaps", "many routes", "many routes, swaps")
    found, swaps = {job: [] for job in jobs}, {job: [] for job in jobs}
    with Bench(core=cores[-1] if apart else None) as bench:
        port, admin = free_port(), free_port()
        few, many = (
            [text(bench, port, admin, routes, turn, options.workers) for turn in (1, 2)] for routes in (10, options.routes)
        )
        process = bench.spawn([options.outrigger, "run", bench.write("swap.yaml", few[0])])
        few, many = ([request(configuration) for configuration in texts] for texts in (few, many))
        url = f"http://127.0.0.1:{port}/"
        wait_for(url, process)
        if apart:
            os.sched_setaffinity(0, {cores[0]})
            set_apart(process.pid, cores[0])
        measure = lambda: load(bench, url, options.seconds, options.rate, options.connections)  # noqa: E731
        measure()
        door = Admin(admin)
        for _ in range(options.rounds):
            for job in random.sample(jobs, len(jobs)):
                requests = many if job.startswith("many") else few
                door.put(requests[0])
                swapper = Swapper(door, requests, options.every / 1e3) if job.endswith("swaps") else None
                if swapper:
                    swapper.start()
                found[job].append(p99(measure()))
                if swapper:
                    swaps[job] += swapper.finish()
        print(f"{options.rate} requests a second on {options.connections} connections, {options.workers} workers, "
              f"medians of {options.rounds} rounds of {options.seconds} s; {options.routes} routes are many; "
              f"{'swaps on a core of their own' if apart else 'everything on any core'}\n")
        print("| work | p99 ms | spread | swaps | a swap takes ms (median, p99) |\n| --- | ---: | ---: | ---: | ---: |")
        for job in jobs:
            middle = statistics.median(found[job])
            spread = (max(found[job]) - min(found[job])) / middle / 2
            took = f"{statistics.median(swaps[job]):.1f}, {p99(swaps[job]):.1f}" if len(swaps[job]) > 1 else ""
            print(f"| {job} | {middle:.2f} | ±{spread:.0%} | {len(swaps[job]) or ''} | {took} |")
        middle = {job: statistics.median(found[job]) for job in jobs}
        print(f"\np99 with swaps to without: {middle[jobs[1]] / middle[jobs[0]]:.2f}; with many routes "
              f"{middle[jobs[3]] / middle[jobs[2]]:.2f}; many routes to few, no swaps: {middle[jobs[2]] / middle[jobs[0]]:.2f}")
        print(f"RSS at the end: {memory_kib(process.pid)} KiB")


if __name__ == "__main__":
    main()
