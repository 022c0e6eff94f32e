#!/usr/bin/env python3
"""What a feature costs a request: telemetry or resilience switched on step by step, nothing failing, paired.

    cargo build --release && python3 benches/end_to_end/cost.py telemetry       # or: resilience
    python3 benches/end_to_end/cost.py telemetry --instructions

Times are of the worker's thread, taken in turns of a tenth of a second, for what a machine does besides changes more slowly
than that; each round's differences are kept, and their median is shown with its 95 % interval. Instructions are those of user mode as valgrind counts them: exact where time is noise, and blind
to caches and to the kernel. Needs nginx, wrk and, for instructions, valgrind. Four to eight minutes, or one with instructions.
Requests are always counted: what metrics cost, `cargo bench --bench telemetry` says (`metrics/all_of_a_request`).
"""

import argparse
import os
import random
import re
import signal
import statistics
import subprocess
import time
import urllib.request

from compare import load
from proxies import ROOT, Bench, end, free_port, need, set_apart, wait_for

CONFIG = """
workers: 1
admin: {{ address: "127.0.0.1:{admin}" }}
drain: {{ delay: 0s, timeout: 1s }}
telemetry:
  access_log: {{ path: {log}, only: all }}
{traces}
listeners:
  inbound: {{ address: "127.0.0.1:{port}", upstream: app{overload} }}
upstreams:
  app:
    static: [{endpoints}]
{resilience}
"""
# A collector that takes everything at once.
COLLECTOR = """
worker_processes 1;
daemon off;
pid {folder}/collector.pid;
error_log /dev/null crit;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_max_body_size 64m;
  client_body_temp_path {folder}/c1; proxy_temp_path {folder}/c2; fastcgi_temp_path {folder}/c3;
  uwsgi_temp_path {folder}/c4; scgi_temp_path {folder}/c5;
  server {{ listen {address}; location / {{ return 200; }} }}
}}
"""
# What is on by default is switched off, to begin with nothing.
NO_RESILIENCE = """
    retries: { max: 0 }
    ejection: none
"""
RESILIENCE = """
    retries: { max: 2, when: [connect_failure, refused_stream, upstream_reset, gateway_error, 5xx] }
    limits: { connections: 1024, requests: 1024, waiting: 1024, retries: 64 }
    circuit_breaker: { failure_ratio: 0.5, min_requests: 20, window: 10s, open_for: 5s, slow: 2s, slow_ratio: 0.8 }
    ejection: { consecutive: 5, failure_ratio: 0.85, for: 30s, max_ratio: 0.5 }
    health: { http: /, every: 5s, timeout: 1s }
    timeouts: { per_try: 5s, response: 10s }
"""
OVERLOAD = ", rate_limit: { per_second: 1000000, burst: 1000000, key: client }, concurrency: adaptive"
# Of each feature: name, what differs in the configuration.
KINDS = {
    "telemetry": (
        ("nothing", {}),
        ("access log", {"log": "/dev/null"}),
        ("+ 1 % of traces", {"log": "/dev/null", "sample": 0.01}),
        ("+ all traces", {"log": "/dev/null", "sample": 1}),
    ),
    "resilience": (
        ("nothing", {"resilience": NO_RESILIENCE}),
        ("retries, limits, breaker, ejection, health checks, per-try timeout", {"resilience": RESILIENCE}),
        ("+ rate limit by client, adaptive concurrency", {"resilience": RESILIENCE, "overload": OVERLOAD}),
    ),
}


def main():
    options = arguments()
    with Bench(core=options.core) as bench:
        collector = f"127.0.0.1:{free_port()}"
        config = bench.write("collector.conf", COLLECTOR.format(folder=bench.folder, address=collector))
        bench.spawn([need("nginx"), "-p", bench.folder, "-c", config, "-e", "/dev/null"], core=options.other_core)
        proxies = [Proxy(bench, collector, options, *kind) for kind in KINDS[options.feature]]
        if options.instructions:
            report_instructions([(proxy, proxy.instructions(bench, options)) for proxy in proxies], options)
            return
        # New processes every so often: where one's memory happens to lie costs or saves it as much as a feature does.
        for _ in range(options.starts):
            for proxy in proxies:
                proxy.start(bench, options)
                load(bench, proxy.url, 2, options.connections)
                proxy.attach_load(bench, options)
            for _ in range(options.rounds // options.starts):
                # In another order each time, so that what the machine does besides hits all alike.
                for proxy in random.sample(proxies, len(proxies)):
                    proxy.measure(options)
            for proxy in proxies:
                proxy.stop()
        report(proxies, options)


class Proxy:
    def __init__(self, bench, collector, options, name, differs):
        self.name, self.admin, port = name, free_port(), free_port()
        sample = differs.get("sample")
        traces = "" if sample is None else f'  traces: {{ otlp: "http://{collector}", protocol: http, sample: {sample} }}'
        text = CONFIG.format(
            admin=self.admin,
            port=port,
            log=differs.get("log", "none"),
            traces=traces,
            overload=differs.get("overload", ""),
            resilience=differs.get("resilience", ""),
            endpoints=", ".join(f'"{endpoint}"' for endpoint in bench.endpoints),
        )
        program = options.outrigger or ROOT / "target/release/outrigger"
        self.words = [program, "run", bench.write(f"outrigger-{port}.yaml", text)]
        self.url = f"http://127.0.0.1:{port}/"
        self.worker_micros, self.other_micros = [], []
        self.spans, self.dropped = 0, 0

    def start(self, bench, options, wrapper=()):
        # So large that the collector's pace decides over nothing here.
        environment = {**os.environ, "OTEL_BSP_MAX_QUEUE_SIZE": "1048576", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8192"}
        self.process = bench.spawn([*wrapper, *self.words], env=environment)
        wait_for(self.url, self.process)
        # Exports are made beside the requests, as on a machine with a second core.
        self.workers, self.others = set_apart(self.process.pid, options.other_core)

    def attach_load(self, bench, options):
        """A load without end that stands still but for this proxy's turns."""
        words = [need("wrk"), "-t1", f"-c{options.connections}", "-d3600s", "--timeout", "10s", self.url]
        self.load = bench.spawn(words)
        # Its connections are made and its first requests answered.
        time.sleep(0.2)
        self.load.send_signal(signal.SIGSTOP)

    def stop(self):
        exported, dropped = self.total("outrigger_trace_spans_exported"), self.total("outrigger_trace_spans_dropped")
        self.spans, self.dropped = self.spans + exported + dropped, self.dropped + dropped
        self.load.kill()
        self.load.wait()
        end(self.process)

    def measure(self, options):
        # What is asked of the admin side costs the worker something too, and stands outside of the times.
        asked = self.requests()
        before = seconds(self.workers), seconds(self.others)
        self.load.send_signal(signal.SIGCONT)
        time.sleep(options.turn)
        self.load.send_signal(signal.SIGSTOP)
        # One request a connection may still be under way.
        time.sleep(0.005)
        after = seconds(self.workers), seconds(self.others)
        requests = self.requests() - asked
        if requests:
            self.worker_micros.append((after[0] - before[0]) / requests * 1e6)
            self.other_micros.append((after[1] - before[1]) / requests * 1e6)
        else:
            exit(f"{self.name}: no request in a turn of {options.turn} s")

    def instructions(self, bench, options):
        """Of a request: on the worker, and on all other threads together."""
        out = bench.folder / f"callgrind-{self.admin}"
        tool = [need("valgrind"), "--tool=callgrind", "--separate-threads=yes", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        self.start(bench, options, wrapper=tool)
        # Valgrind numbers threads as they were started, and so does the kernel.
        tasks = sorted(self.workers + self.others, key=lambda task: int(task.name))
        worker = str(1 + tasks.index(self.workers[0]))
        # Pools are filled and tables grown before anything is counted.
        load(bench, self.url, 2, 8)
        self.count("on")
        requests, _ = load(bench, self.url, options.seconds, 8)
        self.count("off")
        end(self.process)
        counts = {"worker": 0.0, "others": 0.0}
        for path in bench.folder.glob(f"{out.name}-*"):
            text = path.read_text()
            thread, total = re.search(r"^thread: (\d+)", text, re.M), re.search(r"^totals: (\d+)", text, re.M)
            if thread and total:
                counts["worker" if thread[1] == worker else "others"] += int(total[1]) / requests
        return counts["worker"], counts["others"]

    def count(self, switch):
        subprocess.run([need("callgrind_control"), "-i", switch, str(self.process.pid)], check=True, capture_output=True)
        # It is obeyed at the next turn of the scheduler in there, and a request makes sure of one.
        wait_for(self.url, self.process)
        time.sleep(0.2)

    def total(self, name):
        """The sum of a counter's series."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=5) as answer:
            lines = [line.split() for line in answer.read().decode().splitlines() if not line.startswith("#")]
        return sum(float(value) for series, value in lines if series.startswith(name))

    def requests(self):
        return self.total("outrigger_requests_total")

    def lost(self):
        """The share of the spans that no collector got."""
        return self.dropped / self.spans if self.spans else 0.0


def seconds(tasks):
    used = 0
    for task in tasks:
        try:
            used += int((task / "schedstat").read_text().split()[0])
        except FileNotFoundError:
            pass  # A thread for blocking work that has ended meanwhile.
    return used / 1e9


def over(proxy, other):
    """The median of what one takes more than another in the same round, and half its 95 % interval."""
    differences = [a - b for a, b in zip(proxy.worker_micros, other.worker_micros)]
    low, middle, high = statistics.quantiles(differences, n=4)
    # The notch of a box plot: McGill, Tukey, Larsen, Variations of Box Plots, 1978.
    return middle, 1.57 * (high - low) / len(differences) ** 0.5


def report(proxies, options):
    print(f"\n1 KiB answers, {options.connections} connections, {options.rounds} rounds of {options.turn} s, {options.starts} starts, CPU µs per request\n")
    print("| configured | worker | more than the row above | more than nothing | other threads | spans lost |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    first, before = proxies[0], None
    for proxy in proxies:
        more = ["", ""] if before is None else ["{:+.2f} ± {:.2f}".format(*over(proxy, other)) for other in (before, first)]
        print(
            f"| {proxy.name} | {statistics.median(proxy.worker_micros):.2f} | {more[0]} | {more[1]} | "
            f"{statistics.median(proxy.other_micros):.2f} | {proxy.lost():.1%} |"
        )
        before = proxy


def report_instructions(counted, options):
    print(f"\n1 KiB answers, 8 connections, {options.seconds} s under valgrind, instructions per request in user mode\n")
    print("| configured | worker | more than the row above | more than nothing | other threads |")
    print("| --- | ---: | ---: | ---: | ---: |")
    first, before = counted[0][1][0], None
    for proxy, (count, others) in counted:
        more = ["", ""] if before is None else [f"{count - before:+,.0f}", f"{count - first:+,.0f}"]
        print(f"| {proxy.name} | {count:,.0f} | {more[0]} | {more[1]} | {others:,.0f} |")
        before = count


def arguments():
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("feature", choices=KINDS)
    parser.add_argument("--instructions", action="store_true", help="counted by valgrind, instead of CPU time")
    parser.add_argument("--outrigger", help="the program; default target/release/outrigger")
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--starts", type=int, default=10, help="of all processes, in as many parts of the rounds")
    parser.add_argument("--turn", type=float, default=0.1, help="seconds of load, of each proxy in each round")
    parser.add_argument("--seconds", type=int, default=8, help="of load, where instructions are counted")
    parser.add_argument("--connections", type=int, default=32, help="fewer than adaptive concurrency begins with")
    parser.add_argument("--core", type=int, default=cores[-1], help="of load, workers and endpoints")
    parser.add_argument("--other-core", type=int, default=cores[0], help="of everything else")
    return parser.parse_args()


if __name__ == "__main__":
    main()
