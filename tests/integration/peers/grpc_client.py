"""Calls the server of grpc_server.py at the address given; says what is wrong and exits 1, or exits 0."""

import queue
import sys
import time

import grpc

# One connection of its own, not shared within the process; no proxy from the environment.
options = [("grpc.enable_http_proxy", 0)]
if len(sys.argv) == 3:
    # Authorities that the server's certificate has to come from, for the name app.test.
    credentials = grpc.ssl_channel_credentials(open(sys.argv[2], "rb").read())
    options.append(("grpc.ssl_target_name_override", "app.test"))
    channel = grpc.secure_channel(sys.argv[1], credentials, options=options)
else:
    channel = grpc.insecure_channel(sys.argv[1], options=options)
unary = channel.unary_unary("/test.Peer/Unary")
server_stream = channel.unary_stream("/test.Peer/ServerStream")
client_stream = channel.stream_unary("/test.Peer/ClientStream")
both = channel.stream_stream("/test.Peer/Both")


def equal(what, seen, expected):
    if seen != expected:
        sys.exit(f"{what}: {seen!r} instead of {expected!r}")


answer, call = unary.with_call(b"hello", timeout=10, metadata=(("x-sent", "up"),))
equal("unary", answer, b"unary:hello:up")
equal("initial metadata", dict(call.initial_metadata()).get("x-initial"), "first")
equal("trailing metadata", dict(call.trailing_metadata()).get("x-trailing"), "last")
equal("binary metadata", dict(call.trailing_metadata()).get("x-data-bin"), b"\x00\xff")

big = bytes(range(256)) * 8192
equal("a message of 2 MiB", unary(big, timeout=20), b"unary:" + big + b":")

equal("server stream", list(server_stream(b"1000", timeout=10)), [b"%d" % number for number in range(1000)])
equal("client stream", client_stream(iter([b"a", b"b", b"c"]), timeout=10), b"a+b+c")

# A conversation: each answer is awaited before the next question.
questions = queue.Queue()
answers = both(iter(questions.get, None), timeout=10)
for number in range(100):
    questions.put(b"%d" % number)
    equal("conversation", next(answers), b"echo:%d" % number)
questions.put(None)
equal("the conversation's end", list(answers), [])

try:
    unary(b"fail", timeout=10)
    sys.exit("a failing call did not fail")
except grpc.RpcError as error:
    equal("status", error.code(), grpc.StatusCode.NOT_FOUND)
    equal("message", error.details(), "no such thing: ü")

began = time.monotonic()
try:
    unary(b"hang", timeout=0.5)
    sys.exit("a call outlived its deadline")
except grpc.RpcError as error:
    equal("status after the deadline", error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
if time.monotonic() - began > 5:
    sys.exit("the deadline came late")

futures = [unary.future(b"%d" % number, timeout=10) for number in range(200)]
for number, future in enumerate(futures):
    equal("parallel calls", future.result(), b"unary:%d:" % number)
