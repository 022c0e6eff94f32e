#!/usr/bin/env python3
"""Three proxies in a row before an app that fails: how often the app is asked for each request that entered.

    cargo build --release
    python3 benches/storm/storm.py

Once as Outrigger comes (a budget, and hops that tell each other), and once with what static retries do: each hop sends
again what failed, twice, whatever the others do. The app fails half of its answers for a while and then all of them, and
then is well again.
"""

import argparse
import asyncio
import json
import pathlib
import random
import subprocess
import tempfile
import time

BUDGET = "max: 2, when: [connect_failure, refused_stream, upstream_reset, 5xx]"
STATIC = BUDGET + ", nested: true, budget: { ratio: 1, min_per_second: 100000, window: 1s }"
FAILS = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
WORKS = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REQUEST = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"


class App:
    """Answers a share of its requests with 503, and counts."""

    def __init__(self):
        self.failing, self.asked = 0.0, 0

    async def serve(self, reader, writer):
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.asked += 1
                writer.write(FAILS if random.random() < self.failing else WORKS)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        writer.close()


class Proxy:
    """One tier."""

    def __init__(self, binary, directory, name, upstream, retries):
        ready = directory / f"{name}.json"
        config = directory / f"{name}.yaml"
        config.write_text(
            f"""workers: 1
admin: {{ address: none }}
telemetry: {{ access_log: {{ path: none }}, log: {{ level: error }} }}
drain: {{ delay: 0s, timeout: 1s }}
listeners: {{ inbound: {{ address: "127.0.0.1:0", upstream: next }} }}
upstreams: {{ next: {{ static: ["127.0.0.1:{upstream}"], limits: {{ retries: 1000000 }}, retries: {{ {retries} }} }} }}
"""
        )
        ready.unlink(missing_ok=True)
        self.process = subprocess.Popen([binary, "run", config, "--ready-file", ready])
        while not ready.exists():
            if self.process.poll() is not None:
                raise SystemExit(f"the proxy did not start with {config.read_text()}")
            time.sleep(0.02)
        self.port = int(json.loads(ready.read_text())["listeners"]["inbound"].rsplit(":", 1)[1])

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Load:
    """Clients that send at a steady rate, whatever becomes of it."""

    def __init__(self, port, rate):
        self.port, self.rate, self.sent, self.answered, self.idle = port, rate, 0, 0, []

    async def one(self):
        self.sent += 1
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        self.answered += head.startswith(b"HTTP/1.1 200")
        self.idle.append((reader, writer))

    async def run(self, seconds):
        tasks, began = [], time.monotonic()
        for number in range(int(self.rate * seconds)):
            await asyncio.sleep(max(0, began + number / self.rate - time.monotonic()))
            tasks.append(asyncio.create_task(self.one()))
        await asyncio.gather(*tasks)


async def storm(binary, rate, seconds, retries):
    app = App()
    server = await asyncio.start_server(app.serve, "127.0.0.1", 0)
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        port, tiers = server.sockets[0].getsockname()[1], []
        for name in ["third", "second", "first"]:
            tiers.append(Proxy(binary, pathlib.Path(directory), name, port, retries))
            port = tiers[-1].port
        load = Load(port, rate)
        await load.run(min(seconds, 11))
        for what, failing, length in [("half fails", 0.5, seconds), ("all fails", 1.0, seconds), ("over", 0.0, 5)]:
            app.failing = failing
            before = load.sent, load.answered, app.asked
            await load.run(length)
            sent, answered, asked = load.sent - before[0], load.answered - before[1], app.asked - before[2]
            rows.append((what, asked / sent, answered / sent))
        for tier in tiers:
            tier.stop()
    server.close()
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/outrigger")
    parser.add_argument("--seconds", type=float, default=20, help="of each phase in which the app fails")
    arguments = parser.parse_args()
    print("| requests a second | retries | phase | attempts per request at the app | answered well |")
    print("| ---: | --- | --- | ---: | ---: |")
    for rate in [200, 20]:
        for name, retries in [("budget", BUDGET), ("static, 2 a hop", STATIC)]:
            for what, attempts, answered in asyncio.run(storm(arguments.binary, rate, arguments.seconds, retries)):
                print(f"| {rate} | {name} | {what} | {attempts:.2f} | {answered:.0%} |", flush=True)


main()
