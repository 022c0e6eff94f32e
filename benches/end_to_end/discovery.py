#!/usr/bin/env python3
"""What it costs to follow a service of 10,000 instances in Consul when 10 of them change, and whether requests notice.

    cargo build --release && python3 benches/end_to_end/discovery.py              # about two minutes

A small server stands in for Consul, so that Consul's own work is not measured; its answers are made before the rounds, so
that what happens in a round with updates is that they are sent and applied. All instances are one nginx, at 10,000
addresses of 127.0.0.0/8. Rounds with and without updates are interleaved. Needs nginx and wrk from Debian.
"""

import argparse
import itertools
import json
import random
import re
import resource
import statistics
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from compare import load
from proxies import BACKEND, BODY, ROOT, Bench, free_port, memory_kib, need, wait_for

# Tens of instances that get another weight, one after the other, and then their old one.
GROUPS = 4

CONFIG = """
workers: 1
admin: {{ address: "127.0.0.1:{admin}" }}
drain: {{ delay: 0s, timeout: 1s }}
telemetry: {{ access_log: {{ path: none }} }}
consul: {{ address: "http://127.0.0.1:{consul}" }}
listeners:
  inbound: {{ address: "127.0.0.1:{port}", upstream: app }}
upstreams:
  app: {{ consul: web, limits: {{ connections: 15000 }} }}
"""


class Registry:
    """Answers blocking queries as Consul does, with whatever it was told last."""

    def __init__(self):
        self.changed, self.index, self.body = threading.Condition(), 0, b"[]"

    def says(self, body):
        with self.changed:
            self.index, self.body = self.index + 1, body
            self.changed.notify_all()

    def serve(self):
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                known = re.search(r"index=(\d+)", self.path)
                with registry.changed:
                    if known:
                        registry.changed.wait_for(lambda: registry.index > int(known[1]), 60)
                    index, body = registry.index, registry.body
                self.send_response(200)
                self.send_header("X-Consul-Index", str(index))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_address[1]


def instance(number, port, weight):
    """As much as Consul says of an instance with one check, about 1 KiB."""
    address = f"127.{64 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"
    check = {"Node": f"node-{number}", "CheckID": "service:web", "Name": "Service 'web' check", "Status": "passing",
             "Notes": "", "Output": "HTTP GET http://127.0.0.1/healthz: 200 OK Output: ok", "ServiceID": f"web-{number}",
             "ServiceName": "web", "ServiceTags": ["v1"], "Type": "http", "Definition": {}, "CreateIndex": 1, "ModifyIndex": 1}
    return {
        "Node": {"ID": f"{number:032x}", "Node": f"node-{number}", "Address": address, "Datacenter": "dc1",
                 "TaggedAddresses": {"lan": address, "wan": address}, "Meta": {"consul-network-segment": ""}},
        "Service": {"ID": f"web-{number}", "Service": "web", "Tags": ["v1"], "Address": address, "Port": port, "Meta": {},
                    "Weights": {"Passing": weight, "Warning": 1}, "EnableTagOverride": False, "Proxy": {}, "Connect": {}},
        "Checks": [check, {**check, "CheckID": "serfHealth", "Name": "Serf Health Status", "ServiceID": ""}],
    }


def answers(count, port):
    """Answers of which each changes the weights of ten instances; after the last, the first follows again."""
    weights, bodies = [1] * count, []
    for turn in range(2 * GROUPS):
        for number in range(10):
            weights[(turn % GROUPS * 997 + number * 1009) % count] = 2 if turn < GROUPS else 1
        instances = [instance(number, port, weight) for number, weight in enumerate(weights)]
        bodies.append(json.dumps(instances).encode())
    return bodies


def control_seconds(pid):
    """CPU time of the thread that follows registries; workers have threads of their own."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().strip() == "control":
            return int((task / "schedstat").read_text().split()[0]) / 1e9
    return 0.0


def updates(admin):
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/upstreams") as answer:
        return json.load(answer)["upstreams"][0]["discovery"]["updates"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=5, help="of one round; default %(default)s")
    parser.add_argument("--outrigger", default=ROOT / "target/release/outrigger")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with Bench() as bench:
        backend, registry = free_port(), Registry()
        backends = bench.folder / "all"
        backends.mkdir()
        text = BACKEND.format(folder=backends, listen=f"listen 0.0.0.0:{backend} backlog=4096;", body=BODY.decode())
        bench.spawn([need("nginx"), "-p", backends, "-c", bench.write("all.conf", text), "-e", "/dev/null"])
        bodies = answers(options.instances, backend)
        registry.says(json.dumps([instance(number, backend, 1) for number in range(10)]).encode())
        port, admin = free_port(), free_port()
        config = CONFIG.format(port=port, admin=admin, consul=registry.serve())
        process = bench.spawn([options.outrigger, "run", bench.write("discovery.yaml", config)])
        url = f"http://127.0.0.1:{port}/"
        wait_for(url, process)
        few = memory_kib(process.pid)
        registry.says(bodies[-1])
        while updates(admin) < 2:
            time.sleep(0.05)
        many = memory_kib(process.pid)

        following = itertools.cycle(bodies)

        def change():
            """Ten instances get another weight; gives the control thread's CPU time for that."""
            before = control_seconds(process.pid)
            registry.says(next(following))
            time.sleep(1)
            return control_seconds(process.pid) - before

        load(bench, url, 5, 32)  # Every endpoint has a connection.
        seen = updates(admin)
        spent = [change() for _ in range(10)]
        applied = updates(admin) - seen
        settled = memory_kib(process.pid)
        quiet, busy = [], []
        for _ in range(options.rounds):
            for changes in random.sample((False, True), 2):
                stop = threading.Event()
                if changes:
                    changing = threading.Thread(target=lambda: [change() for _ in iter(stop.is_set, True)])
                    changing.start()
                (busy if changes else quiet).append(load(bench, url, options.seconds, 32)[1])
                if changes:
                    stop.set()
                    changing.join()
        size = len(bodies[0]) / 1e6
        print(f"{options.instances} instances, {size:.1f} MB an answer, {applied} updates of 10 changes")
        print(f"CPU of an update, off the workers: {statistics.median(spent) * 1e3:.0f} ms (median)")
        print(f"RSS: {few} KiB with 10 instances, {many} with all, {settled} after the updates and {options.instances} connections")
        ratio = statistics.median(busy) / statistics.median(quiet)
        print(f"p99 without updates {quiet} ms, with one a second {busy} ms: ratio of the medians {ratio:.2f}")


if __name__ == "__main__":
    main()
