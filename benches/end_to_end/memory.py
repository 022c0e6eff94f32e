#!/usr/bin/env python3
"""Outrigger's memory: with connections that idle, after a burst of them, after many requests, and under clients that never
finish their headers.

    cargo build --release && python3 benches/end_to_end/memory.py                 # about three minutes
    cargo build --release && python3 benches/end_to_end/memory.py --requests 10000000 --max-seconds 1800
    python3 benches/end_to_end/memory.py --pid 4711 --url http://10.0.0.7:15006/     # of a sidecar in its pod

Needs nginx and wrk from Debian, and a limit of open files above twice the number of slow clients.
"""

import argparse
import multiprocessing
import os
import resource
import selectors
import socket
import sys
import time
from urllib.parse import urlsplit

from compare import load
from proxies import Bench, memory_kib

# What a sidecar may take: alone, and with a thousand connections that idle.
IDLE_KIB, THOUSAND_KIB = 10 * 1024, 24 * 1024
# Open files that are no client's.
SPARE = 64
# The first measurement: everything that grows once has grown.
WARM = 100_000


def main():
    options = arguments()
    deadline = time.monotonic() + options.max_seconds
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.pid:
        exit(0 if connections(options.pid, options.url, options.idle, options.burst, options.width) else 1)
    with Bench() as bench:
        process, url = bench.proxy("outrigger", "telemetry", options.outrigger)
        connections(process.pid, url, options.idle, options.burst, options.width)
        requests(bench, process, url, options.requests, deadline)
        slow_headers(process, url, options.slow, options.hold)


def connections(pid, url, idle, burst, width):
    """Clients that ask once and stay, and many more that come, ask and go together. True where no target is missed."""
    address, path = (urlsplit(url).hostname, urlsplit(url).port or 80), urlsplit(url).path or "/"
    files = open_sockets(pid)

    def settled():
        """Memory, once what the last clients left is given back: connections idle after 1 s, freed memory goes after another."""
        deadline = time.monotonic() + 15
        while open_sockets(pid) > files + SPARE and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(5)
        return memory_kib(pid)

    def show(what, kib, most):
        print(f"| {what} | {kib} | {most} |", flush=True)
        return kib <= most if isinstance(most, int) else True

    print("| connections | RSS KiB | at most |\n| --- | ---: | ---: |")
    before = memory_kib(pid)
    holds = show("none", before, IDLE_KIB)
    clients, answered = ask(address, path, idle, 1)
    time.sleep(5)
    holds &= show(f"{answered} that idle", memory_kib(pid), THOUSAND_KIB)
    close(clients)
    calm = settled()
    show("none", calm, "")
    clients, answered = ask(address, path, burst, width)
    show(f"{len(clients)}, of which {answered} were answered", memory_kib(pid), "")
    close(clients)
    gone = time.monotonic()
    while (last := memory_kib(pid)) > calm * 1.2 and time.monotonic() < gone + 60:
        time.sleep(0.5)
    holds &= show(f"none, {time.monotonic() - gone:.0f} s later", last, int(calm * 1.2))
    print()
    return holds


def ask(address, path, count, width):
    """Opens so many connections and sends one request on each, so many at a time; the clients, and how many were answered."""
    request = f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    selector, clients, answered, under_way = selectors.DefaultSelector(), [], 0, 0
    deadline = time.monotonic() + 60
    while (under_way or len(clients) < count) and time.monotonic() < deadline:
        while under_way < width and len(clients) < count:
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(address)
            clients.append(client)
            selector.register(client, selectors.EVENT_WRITE)
            under_way += 1
        for key, events in selector.select(1):
            try:
                if events & selectors.EVENT_WRITE:
                    key.fileobj.send(request)
                    selector.modify(key.fileobj, selectors.EVENT_READ)
                    continue
                # These answers come in one piece.
                answered += key.fileobj.recv(65536).startswith(b"HTTP/1.1 200 ")
            except OSError:
                pass
            selector.unregister(key.fileobj)
            under_way -= 1
    selector.close()
    return clients, answered


def close(clients):
    for client in clients:
        client.close()


def requests(bench, process, url, wanted, deadline):
    print("| requests | RSS KiB |\n| ---: | ---: |")
    done, marks, first = 0, [mark for mark in (WARM, WARM * 10, WARM * 100) if mark < wanted] + [wanted], None
    while marks:
        if time.monotonic() > deadline:
            print(f"time is up after {done} requests", file=sys.stderr)
            break
        answered, _ = load(bench, url, 2 if done < WARM else 10, 64)
        done += answered
        if done >= marks[0]:
            last = memory_kib(process.pid)
            first = first or last
            print(f"| {done} | {last} |", flush=True)
            marks = [mark for mark in marks if mark > done]
    if first:
        print(f"\nfrom the first to the last: {last / first - 1:+.1%}\n")


def slow_headers(process, url, clients, hold):
    """Clients that send one byte of a header a second, for ever; a normal client beside them."""
    address = (urlsplit(url).hostname, urlsplit(url).port)
    stop = multiprocessing.Event()
    holding = multiprocessing.Process(target=dribble, args=(address, clients, stop), daemon=True)
    before, before_p99 = memory_kib(process.pid), normal_client(address, hold / 3)
    holding.start()
    # Until they are all there.
    deadline = time.monotonic() + 30
    while open_sockets(process.pid) < clients and time.monotonic() < deadline:
        time.sleep(0.1)
    during_p99, held, during = normal_client(address, hold), open_sockets(process.pid), memory_kib(process.pid)
    stop.set()
    holding.join(10)
    if holding.is_alive():
        holding.kill()
    deadline = time.monotonic() + 15
    while open_sockets(process.pid) > SPARE and time.monotonic() < deadline:
        time.sleep(0.1)
    after_p99, after = normal_client(address, hold / 3), memory_kib(process.pid)
    print(f"{held} open sockets while {clients} clients dribbled for {hold} s\n")
    print("| | RSS KiB | p99 ms of a normal client at 200 requests/s |\n| --- | ---: | ---: |")
    for when, memory, p99 in (("before", before, before_p99), ("during", during, during_p99), ("after", after, after_p99)):
        print(f"| {when} | {memory} | {p99:.2f} |")
    print(f"\nafter against before: memory {after / before - 1:+.1%}; p99 during against before: {during_p99 / before_p99:.2f}")


def dribble(address, clients, stop):
    """Keeps this many clients connected; whoever is turned away comes again."""
    # They stand for other machines, which would not take the normal client's processor away.
    os.nice(10)
    selector = selectors.DefaultSelector()

    def connect():
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(address)
        selector.register(client, selectors.EVENT_READ)
        return client

    def send(client, data):
        try:
            client.send(data)
            return True
        except BlockingIOError:
            return True
        except OSError:
            return False

    # They come over ten seconds, and so they do again when the proxy's patience with them is over.
    waiting = [(None, 0)] * clients
    turn = 0
    while not stop.is_set():
        began = time.monotonic()
        turn += 1
        for ended, _ in selector.select(0):
            selector.unregister(ended.fileobj)
            ended.fileobj.close()
        for index, (client, sent) in enumerate(waiting):
            if client is None:
                if index % 10 < turn:
                    waiting[index] = (connect(), 0)
            elif client.fileno() == -1 or not send(client, b"GET / HTTP/1.1\r\nHost: a\r\nx: " if sent == 0 else b"y"):
                waiting[index] = (connect(), 0)
            else:
                waiting[index] = (client, sent + 1)
            if index % 10 == 0:
                # Spread over the second, as strangers would be.
                time.sleep(max(0, began + index / clients - time.monotonic()))
        stop.wait(max(0, began + 1 - time.monotonic()))


def normal_client(address, seconds, rate=200):
    """One kept connection, a request each 5 ms whether or not the last was late; the 99th percentile in ms."""
    client = socket.create_connection(address)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    times, due, until = [], time.monotonic(), time.monotonic() + seconds
    while due < until:
        time.sleep(max(0, due - time.monotonic()))
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = b""
        while b"\r\n\r\n" not in answer or len(answer) < answer.index(b"\r\n\r\n") + 4 + 1024:
            part = client.recv(65536)
            if not part:
                exit("the normal client was cut off")
            answer += part
        times.append(time.monotonic() - due)
        due += 1 / rate
    client.close()
    times.sort()
    return times[len(times) * 99 // 100] * 1000


def open_sockets(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outrigger", help="the program; default target/release/outrigger")
    parser.add_argument("--idle", type=int, default=1_000, help="connections")
    parser.add_argument("--burst", type=int, default=10_000, help="connections")
    parser.add_argument("--width", type=int, default=64, help="requests at a time in the burst")
    parser.add_argument("--pid", type=int, help="of a proxy that runs already: only its connections are looked at")
    parser.add_argument("--url", help="of that proxy; exit 1 where it takes more memory than a sidecar may")
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--slow", type=int, default=5_000, help="clients")
    parser.add_argument("--hold", type=int, default=30, help="seconds")
    parser.add_argument("--max-seconds", type=int, default=600, help="of the requests")
    return parser.parse_args()


if __name__ == "__main__":
    main()
