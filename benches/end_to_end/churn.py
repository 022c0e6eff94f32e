#!/usr/bin/env python3
"""A service in a real Consul agent changes, and the agent fails, while 500 requests a second pass: what shows how soon in
the traffic, how many requests fail, and how often Consul is asked.

    cargo build --release && python3 benches/end_to_end/churn.py                  # about six minutes
    python3 benches/end_to_end/churn.py --only changes                            # or outage, queries

Needs a Consul: OUTRIGGER_CONSUL names one, else that which the tests have unpacked below target/tmp. Instances, load and
the relay that counts questions are one Python process; figures hold where it has a core of its own.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
import urllib.request
from pathlib import Path

from discovery import control_seconds
from proxies import ROOT, Bench, free_port

CONFIG = """
workers: 1
admin: {{ address: "127.0.0.1:{admin}" }}
drain: {{ delay: 0s, timeout: 1s }}
telemetry: {{ access_log: {{ path: none }} }}
consul: {{ address: "http://127.0.0.1:{consul}" }}
listeners:
  inbound: {{ address: "127.0.0.1:{port}", upstream: app }}
upstreams:
  app: {{ consul: web }}
"""
REQUEST = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"
CONNECTIONS = 10


class Agent:
    """A Consul agent in dev mode: it forgets everything when it ends."""

    def __init__(self, bench):
        program = os.environ.get("OUTRIGGER_CONSUL", ROOT / "target/tmp/consul/usr/bin/consul")
        if not Path(program).exists():
            exit(f"{program} is not there: run `cargo test --test integration consul`, or set OUTRIGGER_CONSUL")
        self.bench, self.ip = bench, f"127.9.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"
        self.words = [program, "agent", "-dev", "-log-level=err", "-bind", self.ip, "-client", self.ip]
        self.process = None

    async def start(self):
        self.process = self.bench.spawn(self.words)
        while not await self.leads():
            await asyncio.sleep(0.02)
        return time.monotonic()

    async def leads(self):
        try:
            return bool(await self.ask("GET", "/v1/health/state/passing"))
        except OSError:
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    async def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.ip}:8500{path}", data=data, method=method)

        def send():
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.loads(answer.read() or b"null")

        return await asyncio.to_thread(send)

    async def register(self, name, port, weight=1, tags=()):
        check = {"CheckID": f"check-{name}", "TTL": "1h", "Status": "passing"}
        weights = {"Passing": weight, "Warning": 1}
        service = {"Name": "web", "ID": name, "Address": address(name), "Port": port, "Tags": list(tags)}
        await self.ask("PUT", "/v1/agent/service/register", {**service, "Weights": weights, "Check": check})

    async def deregister(self, name):
        await self.ask("PUT", f"/v1/agent/service/deregister/{name}")

    async def check(self, name, status):
        await self.ask("PUT", f"/v1/agent/check/update/check-{name}", {"Status": status})


def address(name):
    number = int(name[1:])
    return f"127.10.{number // 250}.{number % 250 + 1}"


class Traffic:
    """500 requests a second over a few connections; who answered each, or why nobody did."""

    def __init__(self, port):
        self.port, self.seen = port, []

    async def run(self):
        await asyncio.gather(*(self.connection(number) for number in range(CONNECTIONS)))

    async def connection(self, number):
        reader = writer = None
        due = time.monotonic() + number / 500
        while True:
            due = max(due + CONNECTIONS / 500, time.monotonic() - 1)
            await asyncio.sleep(max(0, due - time.monotonic()))
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(REQUEST)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                body = (await reader.readexactly(length)).decode()
                self.seen.append((time.monotonic(), body if b" 200 " in head[:15] else None))
            except (OSError, asyncio.IncompleteReadError, IndexError):
                self.seen.append((time.monotonic(), None))
                writer = None

    def failed(self, since):
        return sum(1 for at, who in self.seen if at >= since and who is None)

    def first(self, who, since):
        return next((at - since for at, name in self.seen if at >= since and name == who), None)

    def last(self, who, since):
        return max((at - since for at, name in self.seen if at >= since and name in who), default=0.0)

    def share(self, who, since):
        names = [name for at, name in self.seen if at >= since]
        return names.count(who) / max(len(names), 1)


async def serve(name, port):
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(name)}\r\n\r\n{name}".encode()
    open_ones = set()

    async def client(reader, writer):
        open_ones.add(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(answer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        writer.close()

    server = await asyncio.start_server(client, address(name), port)
    return server, open_ones


class Relay:
    """Before the agent: counts what the proxy asks it."""

    def __init__(self, ip):
        self.ip, self.questions = ip, 0

    async def start(self):
        server = await asyncio.start_server(self.client, "127.0.0.1", 0)
        return server.sockets[0].getsockname()[1]

    async def client(self, reader, writer):
        try:
            there, back = await asyncio.open_connection(self.ip, 8500)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self.copy(reader, back, True), self.copy(there, writer, False))

    async def copy(self, reader, writer, counts):
        try:
            while data := await reader.read(1 << 16):
                self.questions += counts and data.count(b"GET /v1/health/service/")
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()


class Proxy:
    def __init__(self, bench, program, consul):
        self.port, self.admin = free_port(), free_port()
        text = CONFIG.format(port=self.port, admin=self.admin, consul=consul)
        self.process = bench.spawn([program, "run", bench.write("churn.yaml", text)])

    async def app(self):
        def look():
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/upstreams", timeout=5) as answer:
                return json.load(answer)["upstreams"][0]

        return await asyncio.to_thread(look)

    async def becomes(self, right):
        """Seconds until the proxy shows it."""
        begin = time.monotonic()
        while True:
            try:
                if right(await self.app()):
                    return time.monotonic() - begin
            except OSError:
                pass
            await asyncio.sleep(0.01)


def endpoints(count):
    return lambda app: len(app["endpoints"]) == count


def say(what, seconds, failed):
    print(f"| {what} | {seconds if isinstance(seconds, str) else f'{seconds:.2f} s'} | {failed} |", flush=True)


async def changes(agent, proxy, traffic, port):
    print("\n| change, at 500 requests a second | shows after | failed |\n| --- | ---: | ---: |")
    await serve("i1", port)
    for _ in range(3):
        begin = time.monotonic()
        await agent.register("i1", port)
        await asyncio.sleep(1.5)
        say("an instance registers", traffic.first("i1", begin) or 99.0, traffic.failed(begin))
        begin = time.monotonic()
        await agent.check("i1", "critical")
        await asyncio.sleep(1.5)
        say("its check turns critical", traffic.last(["i1"], begin), traffic.failed(begin))
        begin = time.monotonic()
        await agent.check("i1", "passing")
        await asyncio.sleep(1.5)
        say("and passes again", traffic.first("i1", begin) or 99.0, traffic.failed(begin))
        begin = time.monotonic()
        await agent.register("i1", port, weight=9, tags=["v2"])
        await proxy.becomes(lambda app: any(endpoint["weight"] == 9 for endpoint in app["endpoints"]))
        took = time.monotonic() - begin
        await asyncio.sleep(1.5)
        say("its weight becomes 9, its tag v2", took, traffic.failed(begin))
        print(f"| … its share is then {traffic.share('i1', begin + took + 0.2):.0%}, 90 % is due | | |")
        begin = time.monotonic()
        await agent.deregister("i1")
        await asyncio.sleep(1.5)
        say("it deregisters", traffic.last(["i1"], begin), traffic.failed(begin))
    many = [f"i{number}" for number in range(100, 300)]
    for name in many:
        await serve(name, port)
    for _ in range(3):
        whole = time.monotonic()
        await asyncio.gather(*(agent.register(name, port) for name in many))
        say("200 instances register at once", await proxy.becomes(endpoints(201)), traffic.failed(whole))
        whole = time.monotonic()
        await asyncio.gather(*(agent.deregister(name) for name in many))
        begin = time.monotonic()
        await proxy.becomes(endpoints(1))
        await asyncio.sleep(1.5)
        say("and deregister", traffic.last(many, begin), traffic.failed(whole))
    server, open_ones = await serve("i2", port)
    await agent.register("i2", port)
    await proxy.becomes(endpoints(2))
    await asyncio.sleep(1)
    begin = time.monotonic()
    server.close()
    for writer in list(open_ones):
        writer.transport.abort()
    await asyncio.sleep(5)
    say("an instance dies unannounced", traffic.last(["i2"], begin), traffic.failed(begin))
    await agent.deregister("i2")


async def outage(agent, proxy, traffic, port):
    print("\n| failure of the agent | proxy is up to date again after | failed |\n| --- | ---: | ---: |")
    begin = time.monotonic()
    agent.kill()
    await asyncio.sleep(30)
    await agent.start()
    begin_again = time.monotonic()
    fresh = await proxy.becomes(lambda app: app["discovery"]["error"] is None)
    say("stopped for 30 s, started empty-handed", fresh, traffic.failed(begin))
    await agent.register("i0", port)
    await proxy.becomes(lambda app: app["discovery"]["kept_for_seconds"] is None)
    say("… and the service registers again", time.monotonic() - begin_again, traffic.failed(begin))
    begin = time.monotonic()
    agent.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(20)
    agent.process.send_signal(signal.SIGCONT)
    await serve("i3", port)
    resumed = time.monotonic()
    await agent.register("i3", port)
    await proxy.becomes(endpoints(2))
    say("paused for 20 s (SIGSTOP), then an instance registers", time.monotonic() - resumed, traffic.failed(begin))
    await agent.deregister("i3")
    await proxy.becomes(endpoints(1))


async def queries(agent, proxy, relay, port):
    print("\n| over a minute | questions to Consul | CPU of the control thread |\n| --- | ---: | ---: |")
    await asyncio.sleep(15)
    for what, period in (("an unchanged service", None), ("a change each 100 ms", 0.1)):
        asked, cpu, end, weight = relay.questions, control_seconds(proxy.process.pid), time.monotonic() + 60, 1
        while time.monotonic() < end:
            if period is None:
                await asyncio.sleep(1)
                continue
            weight = weight % 9 + 1
            await asyncio.gather(agent.register("i0", port, weight=weight), asyncio.sleep(period))
        cpu = control_seconds(proxy.process.pid) - cpu
        print(f"| {what} | {relay.questions - asked} | {cpu:.2f} s |", flush=True)


async def run(options, bench):
    agent = Agent(bench)
    await agent.start()
    port = free_port()
    await serve("i0", port)
    await agent.register("i0", port)
    relay = Relay(agent.ip)
    proxy = Proxy(bench, options.outrigger, await relay.start())
    await proxy.becomes(endpoints(1))
    traffic = Traffic(proxy.port)
    load = asyncio.create_task(traffic.run())
    await asyncio.sleep(1)
    if options.only in (None, "changes"):
        await changes(agent, proxy, traffic, port)
    if options.only in (None, "outage"):
        await outage(agent, proxy, traffic, port)
    if options.only in (None, "queries"):
        await queries(agent, proxy, relay, port)
    load.cancel()
    print(f"\n{len(traffic.seen)} requests, {traffic.failed(0)} failed")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["changes", "outage", "queries"])
    parser.add_argument("--outrigger", default=ROOT / "target/release/outrigger")
    options = parser.parse_args()
    with Bench() as bench:
        asyncio.new_event_loop().run_until_complete(run(options, bench))
    sys.stdout.flush()
    os._exit(0)  # Connections that are open still have no end to wait for.


if __name__ == "__main__":
    main()
