"""Fails, pushes back and tells deadlines, as asked for in the call's name. Prints its port."""

import collections
import threading
from concurrent import futures

import grpc

calls = collections.Counter()
lock = threading.Lock()


def unary(request, context):
    """The request is `WHAT NAME`; calls of one name are counted together."""
    what, name = request.decode().split(" ")
    with lock:
        calls[name] += 1
        nth = calls[name]
    metadata = dict(context.invocation_metadata())
    if what == "count":
        return b"%d" % (nth - 1)
    if what == "deadline":
        return b"%f" % context.time_remaining()
    if what == "slow":
        threading.Event().wait(5)
    if what.startswith("pushback:") and nth == 1:
        context.set_trailing_metadata((("grpc-retry-pushback-ms", what.removeprefix("pushback:")),))
        context.abort(grpc.StatusCode.UNAVAILABLE, "later")
    if what == "unavailable" and nth == 1:
        context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
    if what == "invalid":
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "never")
    return metadata.get("grpc-previous-rpc-attempts", "first").encode()


server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
handler = grpc.unary_unary_rpc_method_handler(unary, request_deserializer=None, response_serializer=None)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Peer", {"Unary": handler}),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
