#!/usr/bin/env python3
"""Collectors that fail while requests pass: nobody there, one that takes its time, one that refuses.

    cargo build --release && python3 benches/end_to_end/collector.py

Every request is traced. Beside each proxy with such a collector runs one without, under the same load in turn, and what
is compared is theirs: failed requests, the 99th percentile, and memory at the end. Needs nginx and wrk. With the default
of 60 s for each, it takes more than eight minutes.
"""

import argparse
import http.server
import os
import socket
import statistics
import threading
import time

from compare import load
from proxies import ROOT, Bench, free_port, memory_kib, wait_for

CONFIG = """
workers: 1
admin: {{ address: none }}
drain: {{ delay: 0s, timeout: 1s }}
telemetry:
  access_log: {{ path: none }}
  {traces}
listeners:
  inbound: {{ address: "127.0.0.1:{port}", upstream: app }}
upstreams:
  app: [{endpoints}]
"""
# Longer than an export may take (10 s).
SLOW = 15


class Refusing(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wait = 0

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        time.sleep(self.wait)
        self.send_response(503)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Slow(Refusing):
    wait = SLOW


def main():
    options = arguments()
    with Bench(core=options.core) as bench:
        plain = Proxy(bench, None, options)
        collectors = {"nobody there": free_port(), "slow": serve(Slow), "silent": silent(), "refusing": serve(Refusing)}
        print(f"\nEvery request traced, {options.connections} connections, {options.seconds} s each\n")
        print("| collector | requests | failed | p99 ms | without ms | ratio | RSS MiB, growth |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        for name, port in collectors.items():
            print(row(bench, name, Proxy(bench, port, options), plain, options), flush=True)


def row(bench, name, proxy, plain, options):
    for one in (proxy, plain):
        load(bench, one.url, 1, options.connections)
    before, done = memory_kib(proxy.process.pid), 0
    tails, plain_tails = [], []
    part = min(5, options.seconds)
    for _ in range(max(1, options.seconds // part)):
        # A failed request ends the bench with its message.
        requests, tail = load(bench, proxy.url, part, options.connections)
        done += requests
        tails.append(tail)
        plain_tails.append(load(bench, plain.url, part, options.connections)[1])
    after = memory_kib(proxy.process.pid)
    tail, plain_tail = statistics.median(tails), statistics.median(plain_tails)
    proxy.process.terminate()
    proxy.process.wait(10)
    return (
        f"| {name} | {done} | 0 | {tail:.2f} | {plain_tail:.2f} | {tail / plain_tail:.2f} | "
        f"{after / 1024:.1f}, {(after - before) / 1024:+.1f} |"
    )


class Proxy:
    def __init__(self, bench, collector, options):
        port = free_port()
        traces = "" if collector is None else f'traces: {{ otlp: "http://127.0.0.1:{collector}", protocol: http, sample: 1 }}'
        endpoints = ", ".join(f'"{endpoint}"' for endpoint in bench.endpoints)
        text = CONFIG.format(port=port, traces=traces, endpoints=endpoints)
        program = options.outrigger or ROOT / "target/release/outrigger"
        self.process = bench.spawn([program, "run", bench.write(f"outrigger-{port}.yaml", text)])
        self.url = f"http://127.0.0.1:{port}/"
        wait_for(self.url, self.process)


def serve(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def silent():
    """Takes connections, and never says a word."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    held.append(listener)
    return listener.getsockname()[1]


held = []


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outrigger", help="the program; default target/release/outrigger")
    parser.add_argument("--seconds", type=int, default=60, help="of each collector")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="where everything runs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
