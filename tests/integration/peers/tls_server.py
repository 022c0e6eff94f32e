"""An HTTPS server of Python's own: CERTIFICATE KEY [CLIENTS' AUTHORITIES]. Prints its port.

Answers say what the handshake brought: the name that was asked for, the client's names, and how many requests came on
the connection so far.
"""

import http.server
import json
import ssl
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.requests = 0

    def do_GET(self):
        self.requests += 1
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        shown = self.connection.getpeercert() or {}
        names = [name for _, name in shown.get("subjectAltName", [])]
        seen = {"sni": getattr(self.connection, "asked_for", None), "client": names, "requests": self.requests}
        body = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass


def remember(connection, name, _):
    connection.asked_for = name


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
context.sni_callback = remember
if len(sys.argv) > 3:
    context.load_verify_locations(sys.argv[3])
    context.verify_mode = ssl.CERT_REQUIRED
server = Server(("127.0.0.1", 0), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_port, flush=True)
server.serve_forever()
