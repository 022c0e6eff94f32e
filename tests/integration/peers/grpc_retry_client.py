"""Calls the server of grpc_retry_server.py through two proxies; says what is wrong and exits 1, or exits 0."""

import sys
import time

import grpc

# gRPC's own retries would hide the proxy's.
options = [("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)]
unary = grpc.insecure_channel(sys.argv[1], options=options).unary_unary("/test.Peer/Unary")


def equal(what, seen, expected):
    if seen != expected:
        sys.exit(f"{what}: {seen!r} instead of {expected!r}")


def fails(what, request, code, timeout=10):
    try:
        unary(request, timeout=timeout)
        sys.exit(f"{what}: did not fail")
    except grpc.RpcError as error:
        equal(what, error.code(), code)


def count(name):
    return unary(b"count " + name, timeout=10)


equal("a call", unary(b"echo plain", timeout=10), b"first")
equal("unavailable once", unary(b"unavailable once", timeout=10), b"1")
equal("calls of it", count(b"once"), b"2")
fails("what nobody asked to retry", b"invalid never", grpc.StatusCode.INVALID_ARGUMENT)
equal("calls of that", count(b"never"), b"1")

fails("pushed back for good", b"pushback:-1 back", grpc.StatusCode.UNAVAILABLE)
equal("calls of what was pushed back", count(b"back"), b"1")
began = time.monotonic()
equal("pushed back for a while", unary(b"pushback:700 wait", timeout=10), b"1")
if not 0.7 <= time.monotonic() - began < 5:
    sys.exit(f"a pushback of 0.7 s took {time.monotonic() - began} s")
fails("pushed back beyond the deadline", b"pushback:5000 late", grpc.StatusCode.UNAVAILABLE, timeout=2)
equal("calls of that", count(b"late"), b"1")

left = float(unary(b"deadline left", timeout=3))
# gRPC's clients round up what they send.
if not 1.5 < left <= 3.1:
    sys.exit(f"of 3 s, {left} s arrived after two hops")
began = time.monotonic()
fails("a slow call", b"slow call", grpc.StatusCode.DEADLINE_EXCEEDED, timeout=0.5)
if time.monotonic() - began > 3:
    sys.exit("the deadline came late")
