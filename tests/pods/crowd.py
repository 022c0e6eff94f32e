"""Keeps many connections to an address, a request begun on each, until a process has ended or half a minute is over.

crowd.py ADDRESS PORT CONNECTIONS PID"""

import os
import resource
import socket
import sys
import time

address, port, count, pid = sys.argv[1], *map(int, sys.argv[2:])
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
until = time.monotonic() + 30
clients = []


def runs():
    return os.path.exists(f"/proc/{pid}") and time.monotonic() < until


while runs() and len(clients) < count:
    try:
        client = socket.create_connection((address, port), timeout=1)
        client.sendall(b"POST /who HTTP/1.1\r\nHost: orders\r\nContent-Length: 9\r\n\r\n")
        clients.append(client)
    except OSError:
        pass
while runs():
    time.sleep(0.1)
