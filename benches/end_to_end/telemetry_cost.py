#!/usr/bin/env python3
"""What telemetry costs a request: the same proxy without, with an access log, and with traces at 1 % and at 100 %.

    cargo build --release && python3 benches/end_to_end/telemetry_cost.py

Needs nginx and wrk. Takes about two minutes. Requests are always counted: what metrics cost, `cargo bench --bench
telemetry` says (`metrics/all_of_a_request`).
"""

import argparse
import os
import random
import statistics
import urllib.request
from pathlib import Path

from compare import load
from proxies import ROOT, Bench, free_port, need, wait_for

CONFIG = """
workers: 1
admin: {{ address: "127.0.0.1:{admin}" }}
drain: {{ delay: 0s, timeout: 1s }}
telemetry:
  access_log: {{ path: {log}, only: all }}
  {traces}
listeners:
  inbound: {{ address: "127.0.0.1:{port}", upstream: app }}
upstreams:
  app: [{endpoints}]
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
# Name, access log, sampling.
KINDS = (("nothing", "none", None), ("access log", "/dev/null", None), ("+ 1 % of traces", "/dev/null", 0.01), ("+ all traces", "/dev/null", 1))


def main():
    options = arguments()
    with Bench(core=options.core) as bench:
        collector = f"127.0.0.1:{free_port()}"
        config = bench.write("collector.conf", COLLECTOR.format(folder=bench.folder, address=collector))
        bench.spawn([need("nginx"), "-p", bench.folder, "-c", config, "-e", "/dev/null"], core=options.other_core)
        proxies = [Proxy(bench, collector, options, *kind) for kind in KINDS]
        for proxy in proxies:
            load(bench, proxy.url, 1, options.connections)
        for _ in range(options.rounds):
            # In another order each time, so that what the machine does besides hits all alike.
            for proxy in random.sample(proxies, len(proxies)):
                proxy.measure(bench, options)
        report(proxies, options)


class Proxy:
    def __init__(self, bench, collector, options, name, log, sample):
        self.name, self.admin, port = name, free_port(), free_port()
        traces = "" if sample is None else f'traces: {{ otlp: "http://{collector}", protocol: http, sample: {sample} }}'
        endpoints = ", ".join(f'"{endpoint}"' for endpoint in bench.endpoints)
        text = CONFIG.format(admin=self.admin, port=port, log=log, traces=traces, endpoints=endpoints)
        program = options.outrigger or ROOT / "target/release/outrigger"
        # So large that the collector's pace decides over nothing here.
        environment = {**os.environ, "OTEL_BSP_MAX_QUEUE_SIZE": "1048576", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8192"}
        self.process = bench.spawn([program, "run", bench.write(f"outrigger-{port}.yaml", text)], env=environment)
        self.url = f"http://127.0.0.1:{port}/"
        wait_for(self.url, self.process)
        self.workers, self.others = [], []
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            is_worker = (task / "comm").read_text().startswith("worker-")
            (self.workers if is_worker else self.others).append(task)
            if not is_worker:
                # Exports are made beside the requests, as on a machine with a second core.
                os.sched_setaffinity(int(task.name), {options.other_core})
        self.worker_micros, self.other_micros = [], []

    def measure(self, bench, options):
        before = seconds(self.workers), seconds(self.others)
        requests, _ = load(bench, self.url, options.seconds, options.connections)
        after = seconds(self.workers), seconds(self.others)
        self.worker_micros.append((after[0] - before[0]) / requests * 1e6)
        self.other_micros.append((after[1] - before[1]) / requests * 1e6)

    def lost(self):
        """The share of the spans that no collector got."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=5) as answer:
            lines = [line.split() for line in answer.read().decode().splitlines() if not line.startswith("#")]
        total = lambda name: sum(float(value) for series, value in lines if series.startswith(name))
        exported, dropped = total("outrigger_trace_spans_exported"), total("outrigger_trace_spans_dropped")
        return dropped / (exported + dropped) if exported + dropped else 0.0


def seconds(tasks):
    used = 0
    for task in tasks:
        try:
            used += int((task / "schedstat").read_text().split()[0])
        except FileNotFoundError:
            pass  # A thread for blocking work that has ended meanwhile.
    return used / 1e9


def report(proxies, options):
    print(f"\n1 KiB answers, {options.connections} connections, {options.rounds} rounds of {options.seconds} s\n")
    print("| telemetry | worker CPU µs per request | more than the row above | more than nothing | other threads µs | spans lost |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    first, before = proxies[0], proxies[0]
    for proxy in proxies:
        # Of each round, so that what the machine did meanwhile is in both.
        over = lambda other: statistics.median(a - b for a, b in zip(proxy.worker_micros, other.worker_micros))
        print(
            f"| {proxy.name} | {statistics.median(proxy.worker_micros):.2f} | {over(before):+.2f} | {over(first):+.2f} | "
            f"{statistics.median(proxy.other_micros):.2f} | {proxy.lost():.1%} |"
        )
        before = proxy


def arguments():
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outrigger", help="the program; default target/release/outrigger")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=4, help="of one measurement")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--core", type=int, default=cores[-1], help="of load, workers and endpoints")
    parser.add_argument("--other-core", type=int, default=cores[0], help="of everything else")
    return parser.parse_args()


if __name__ == "__main__":
    main()
