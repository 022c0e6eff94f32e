"""An OTLP receiver, its messages decoded by OpenTelemetry's own definitions. Prints its port, then each span, and each
data point of a metric, as JSON.

otlp_receiver.py grpc|http [refuse] [CERTIFICATE KEY AUTHORITIES]

With files, it speaks TLS and wants a certificate of these authorities from its clients.
"""

import json
import ssl
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_service
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_service_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service_grpc

protocol, refuses = sys.argv[1], "refuse" in sys.argv[2:]
files = [argument for argument in sys.argv[2:] if argument != "refuse"]
printing = threading.Lock()


def content(path):
    with open(path, "rb") as file:
        return file.read()


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


def take(message, headers):
    for resource in message.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                line = {
                    "headers": headers,
                    "resource": attributes(resource.resource.attributes),
                    "scope": scope.scope.name,
                    "name": span.name,
                    "kind": span.kind,
                    "trace_id": span.trace_id.hex(),
                    "span_id": span.span_id.hex(),
                    "parent_span_id": span.parent_span_id.hex(),
                    "trace_state": span.trace_state,
                    "flags": span.flags,
                    "nanos": span.end_time_unix_nano - span.start_time_unix_nano,
                    "began": span.start_time_unix_nano,
                    "status": span.status.code,
                    "message": span.status.message,
                    "attributes": attributes(span.attributes),
                }
                with printing:
                    print(json.dumps(line), flush=True)


def take_metrics(message, headers):
    for resource in message.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                data = getattr(metric, kind)
                for point in data.data_points:
                    line = {
                        "metric": metric.name,
                        "kind": kind,
                        "unit": metric.unit,
                        "description": metric.description,
                        "headers": headers,
                        "resource": attributes(resource.resource.attributes),
                        "scope": scope.scope.name,
                        "attributes": attributes(point.attributes),
                        "nanos": point.time_unix_nano - point.start_time_unix_nano,
                    }
                    if kind == "histogram":
                        line |= {
                            "count": point.count,
                            "sum": point.sum,
                            "bounds": list(point.explicit_bounds),
                            "counts": list(point.bucket_counts),
                            "exemplars": [exemplar.trace_id.hex() for exemplar in point.exemplars],
                        }
                    else:
                        line["value"] = point.as_double
                    if kind != "gauge":
                        # 2 is cumulative.
                        line["temporality"] = data.aggregation_temporality
                    with printing:
                        print(json.dumps(line), flush=True)


class GrpcMetrics(metrics_service_grpc.MetricsServiceServicer):
    def Export(self, request, context):
        take_metrics(request, dict(context.invocation_metadata()))
        return metrics_service.ExportMetricsServiceResponse()


class Grpc(service_grpc.TraceServiceServicer):
    def Export(self, request, context):
        if refuses:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not today")
        take(request, dict(context.invocation_metadata()))
        return service.ExportTraceServiceResponse()


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): text for name, text in self.headers.items()}
        if refuses or headers["content-type"] != "application/x-protobuf":
            self.answer(400, b"")
        elif self.path == "/v1/traces":
            take(service.ExportTraceServiceRequest.FromString(body), headers)
            self.answer(200, service.ExportTraceServiceResponse().SerializeToString())
        elif self.path == "/v1/metrics":
            take_metrics(metrics_service.ExportMetricsServiceRequest.FromString(body), headers)
            self.answer(200, metrics_service.ExportMetricsServiceResponse().SerializeToString())
        else:
            self.answer(404, b"")

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


if protocol == "grpc":
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    service_grpc.add_TraceServiceServicer_to_server(Grpc(), server)
    metrics_service_grpc.add_MetricsServiceServicer_to_server(GrpcMetrics(), server)
    if files:
        certificate, key, authorities = map(content, files)
        credentials = grpc.ssl_server_credentials([(key, certificate)], authorities, require_client_auth=True)
        print(server.add_secure_port("127.0.0.1:0", credentials), flush=True)
    else:
        print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()
else:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Http)
    if files:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files[0], files[1])
        context.load_verify_locations(files[2])
        context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print(server.server_port, flush=True)
    server.serve_forever()
