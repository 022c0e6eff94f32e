"""All four kinds of calls on raw bytes, so that no generated code is needed. Prints its port."""

import sys
import threading
from concurrent import futures

import grpc


def unary(request, context):
    if request == b"fail":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: ü")
    if request == b"hang":
        threading.Event().wait(20)
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", "first"),))
    context.set_trailing_metadata((("x-trailing", "last"), ("x-data-bin", b"\x00\xff")))
    return b"unary:" + request + b":" + metadata.get("x-sent", "").encode()


def server_stream(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def client_stream(requests, context):
    return b"+".join(requests)


def both(requests, context):
    for request in requests:
        yield b"echo:" + request


def raw(make, behaviour):
    return make(behaviour, request_deserializer=None, response_serializer=None)


server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
handlers = {
    "Unary": raw(grpc.unary_unary_rpc_method_handler, unary),
    "ServerStream": raw(grpc.unary_stream_rpc_method_handler, server_stream),
    "ClientStream": raw(grpc.stream_unary_rpc_method_handler, client_stream),
    "Both": raw(grpc.stream_stream_rpc_method_handler, both),
}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Peer", handlers),))
if len(sys.argv) == 3:
    # A certificate and its key.
    certificate, key = (open(path, "rb").read() for path in sys.argv[1:])
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    print(server.add_secure_port("127.0.0.1:0", credentials), flush=True)
else:
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
