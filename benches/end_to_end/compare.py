#!/usr/bin/env python3
"""Outrigger beside nginx and HAProxy: CPU per request and per TLS handshake, system calls, requests per second.

    cargo build --release && python3 benches/end_to_end/compare.py

Needs nginx, haproxy, wrk and, for system calls, strace, all of them from Debian. Takes about three minutes.
"""

import argparse
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import time

from proxies import STARTS, Bench, cpu_seconds, family, memory_kib, need, version

# What one load run says.
REQUESTS = re.compile(r"(\d+) requests in")
LATENCY = re.compile(r"99%\s+([\d.]+)(us|ms|s)")
HANDSHAKES = re.compile(r"(\d+) connections in \d+ real seconds")
FAILURES = re.compile(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)")
# Kinds of work. TLS is measured twice: by request on kept connections, and by full handshake.
JOBS = ("plain", "telemetry", "tls")
MILLISECONDS = {"us": 0.001, "ms": 1, "s": 1000}


def main():
    options = arguments()
    deadline = time.monotonic() + options.max_seconds
    names = ["outrigger", *[peer for peer in options.peers.split(",") if peer]]
    jobs = [job for job in JOBS if job in options.scenario.split(",")]
    rows = {}
    with Bench(core=options.core) as bench:
        proxies = {
            (name, job): bench.proxy(name, job, options.outrigger if name == "outrigger" else None)
            for name in names
            for job in jobs
        }
        for _, url in proxies.values():
            load(bench, url, 1, options.connections)
        for round_number in range(options.rounds):
            # In another order each time, so that what the machine does besides, and who came before, hits all alike.
            for key in random.sample(list(proxies), len(proxies)):
                if time.monotonic() > deadline - options.seconds:
                    print(f"time is up after {round_number} rounds", file=sys.stderr)
                    break
                process, url = proxies[key]
                measure(rows, key, process, lambda: load(bench, url, options.seconds, options.connections))
                if key[1] == "tls":
                    measure(rows, (key[0], "handshake"), process, lambda: shake_hands(bench, url, options.seconds))
        calls = {}
        if options.syscalls:
            calls = {key: system_calls(bench, *proxies[key], options.connections) for key in proxies}
        memory = {key: memory_kib(process.pid) for key, (process, _) in proxies.items()}
        memory |= {(name, "handshake"): held for (name, job), held in memory.items() if job == "tls"}
    report(names, rows, calls, memory, options)


def measure(rows, key, process, work):
    before, began = cpu_seconds(process.pid), time.monotonic()
    done, p99 = work()
    spent, took = cpu_seconds(process.pid) - before, time.monotonic() - began
    rows.setdefault(key, []).append((spent / done * 1e6, done / took, p99))


def shake_hands(bench, url, seconds):
    """Connects again and again without resuming a session; gives the number of handshakes."""
    where = url.removeprefix("https://").rstrip("/")
    words = [need("openssl"), "s_time", "-new", "-time", seconds, "-connect", where]
    out, _ = bench.spawn(words, stdout=subprocess.PIPE, text=True).communicate(timeout=seconds + 20)
    return int(HANDSHAKES.search(out)[1]), 0.0


def load(bench, url, seconds, connections):
    """Drives one proxy; gives the requests that were answered and their 99th percentile in milliseconds."""
    wrk = bench.spawn(
        [need("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", url], stdout=subprocess.PIPE, text=True
    )
    out, _ = wrk.communicate(timeout=seconds + 20)
    failures = FAILURES.search(out)
    if failures:
        exit(f"{url}: {failures[0]}")
    latency = LATENCY.search(out)
    return int(REQUESTS.search(out)[1]), float(latency[1]) * MILLISECONDS[latency[2]]


def system_calls(bench, process, url, connections):
    """Calls per request besides waiting (epoll). Under strace events come in larger batches than in life."""
    target = family(process.pid)[-1]
    summary = bench.folder / f"strace-{target}"
    strace = bench.spawn([need("strace"), "-f", "-c", "-o", summary, "-p", target])
    time.sleep(0.5)
    requests, _ = load(bench, url, 3, connections)
    strace.send_signal(signal.SIGINT)
    strace.wait(10)
    total = 0
    for line in summary.read_text().splitlines():
        # % time, seconds, usecs/call, calls, [errors,] syscall
        fields = line.split()
        if len(fields) >= 5 and fields[0][0].isdigit() and not fields[-1].startswith("epoll") and fields[-1] != "total":
            total += int(fields[3])
    return total / requests


def report(names, rows, calls, memory, options):
    print(f"\n{', '.join(version(name, options.outrigger if name == 'outrigger' else None) for name in names)};", end=" ")
    print(
        f"1 KiB answers, {options.connections} connections, medians of {options.rounds} rounds of {options.seconds} s, "
        f"load, proxy and endpoints on one core\n"
    )
    print("| work | proxy | CPU µs per request | spread | outrigger's share | requests/s | p99 ms | calls | RSS MiB |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for job in (*JOBS, "handshake"):
        own = [row[0] for row in rows.get(("outrigger", job), [])]
        for name in names:
            measured = rows.get((name, job))
            if not measured or not own:
                continue
            cpu = [row[0] for row in measured]
            middle = statistics.median(cpu)
            spread = (max(cpu) - min(cpu)) / middle / 2
            share = statistics.median(own) / middle
            call = f"{calls[name, job]:.1f}" if (name, job) in calls else ""
            print(
                f"| {job} | {name} | {middle:.1f} | ±{spread:.0%} | {share:.2f} | "
                f"{statistics.median(row[1] for row in measured):.0f} | "
                f"{statistics.median(row[2] for row in measured):.1f} | {call} | {memory[name, job] / 1024:.1f} |"
            )
    print("\nRead shares, not absolutes; differences below 5 % are noise.")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="nginx,haproxy", help=f"of {', '.join(STARTS)}; default %(default)s")
    parser.add_argument("--scenario", default="plain,telemetry", help=f"of {', '.join(JOBS)}; default %(default)s")
    parser.add_argument("--outrigger", help="the program; default target/release/outrigger")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of one measurement")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="where everything runs")
    parser.add_argument("--max-seconds", type=int, default=600, help="of the whole bench")
    parser.add_argument("--no-syscalls", dest="syscalls", action="store_false", help="without strace")
    return parser.parse_args()


if __name__ == "__main__":
    main()
