"""Calls http://orders/ from four threads, each call on a connection of its own, until there is a file /tmp/stop or a
minute is over; then prints what failed."""

import collections
import http.client
import os
import threading
import time
import urllib.error
import urllib.request

counts = collections.Counter()
until = time.monotonic() + 60


def call():
    try:
        with urllib.request.urlopen("http://orders/who", timeout=10) as response:
            response.read()
            return str(response.status)
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.headers.get('x-outrigger-reason')}"
    except (OSError, http.client.HTTPException) as error:
        return repr(error)


def work():
    while not os.path.exists("/tmp/stop") and time.monotonic() < until:
        counts[call()] += 1
        time.sleep(0.01)


threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
made = sum(counts.values())
well = counts.pop("200", 0)
print(made - well, "of", made, dict(counts))
