"""The app of `orders`: says who it is on loopback, and on port 8081 for everybody. Ends at once when it is told to."""

import http.server
import signal
import sys
import threading


class Server(http.server.ThreadingHTTPServer):
    # The default of 5 is too few for a crowd.
    request_queue_size = 128


def server(address, text):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # An answer goes out in one piece.
        wbufsize = -1

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    return Server(address, Handler)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
threading.Thread(target=server(("0.0.0.0", 8081), b"other").serve_forever, daemon=True).start()
server(("127.0.0.1", 8080), b"orders").serve_forever()
