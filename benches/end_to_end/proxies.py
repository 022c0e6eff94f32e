"""Outrigger, nginx and HAProxy with the same work: how each is configured, started, watched and ended.

Every proxy listens on one port, forwards to two endpoints in turn over kept connections, adds X-Forwarded-For, gives up
after 15 s and runs with one worker. With telemetry, each also passes a trace context and a request id on, and writes a
JSON line for each request to /dev/null. What remains different is said in README.md beside this file.
"""

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BODY = b"x" * 1024

OUTRIGGER = """
workers: 1
admin: {{ address: none }}
{metrics}
drain: {{ delay: 0s, timeout: 1s }}
telemetry: {{ access_log: {{ path: {log}, only: all }} }}
listeners:
  inbound: {{ address: "127.0.0.1:{port}", upstream: app{tls} }}
defaults: {{ timeouts: {{ response: 15s }} }}
upstreams:
  app: [{endpoints}]
"""

NGINX = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log /dev/null crit;
events {{ worker_connections 16384; }}
http {{
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 100000000;
  keepalive_timeout 75s;
  client_header_timeout 10s;
  {log}
  upstream app {{ {endpoints} keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} {ssl} backlog=4096;
    {certificate}
    location / {{
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_read_timeout 15s;
      {trace}
    }}
  }}
}}
"""
NGINX_LOG = r"""
  map $http_traceparent $trace { default $http_traceparent; "" "00-$request_id-0123456789abcdef-00"; }
  log_format json escape=json '{"time":"$time_iso8601","method":"$request_method","host":"$host","path":"$uri",'
    '"code":$status,"upstream":"$upstream_addr","bytes_in":$request_length,"bytes_out":$body_bytes_sent,'
    '"total":$request_time,"first_byte":"$upstream_header_time","trace":"$trace","request_id":"$request_id"}';
  access_log /dev/null json buffer=32k flush=1s;
"""

HAPROXY = """
global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 1s
  timeout client 75s
  timeout server 15s
  timeout http-request 10s
  http-reuse always
  option forwardfor
{log}
frontend inbound
  bind 127.0.0.1:{port} {ssl} backlog 4096
{trace}
  default_backend app
backend app
  balance roundrobin
{endpoints}
"""
HAPROXY_LOG = r"""
  log stdout format raw local0
  log-format '{"time":"%t","method":"%HM","path":"%HPO","code":%ST,"upstream":"%s","bytes_in":%U,"bytes_out":%B,"total":%Ta,"first_byte":%Tr,"trace":"%[var(txn.trace)]","request_id":"%ID"}'
"""
HAPROXY_TRACE = r"""
  unique-id-format %{+X}o\ %ci:%cp_%fi:%fp_%Ts_%rt:%pid
  unique-id-header X-Request-Id
  http-request set-var(txn.trace) req.hdr(traceparent)
  http-request set-var-fmt(txn.trace) "00-%[uuid,regsub(-,,g)]-%[uuid,regsub(-,,g),bytes(0,16)]-00" unless { var(txn.trace) -m found }
  http-request set-header traceparent %[var(txn.trace)]
"""

# Both endpoints of every proxy: one nginx that says the same 1 KiB to all.
BACKEND = """
worker_processes 1;
daemon off;
pid {folder}/backend.pid;
error_log /dev/null crit;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  keepalive_timeout 600s;
  client_body_temp_path {folder}/b1; proxy_temp_path {folder}/b2; fastcgi_temp_path {folder}/b3;
  uwsgi_temp_path {folder}/b4; scgi_temp_path {folder}/b5;
  server {{ {listen} location / {{ default_type text/plain; return 200 "{body}"; }} }}
}}
"""


class Bench(contextlib.ExitStack):
    """What was started here, to be ended here: by process id, in whatever way the bench ends."""

    def __init__(self, core=None):
        super().__init__()
        self.core = core
        self.folder = Path(tempfile.mkdtemp(prefix="outrigger-bench-"))
        self.callback(shutil.rmtree, self.folder, ignore_errors=True)
        # A kill must run the callbacks too.
        signal.signal(signal.SIGTERM, lambda *_: exit(143))
        self.endpoints = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        listen = " ".join(f"listen {endpoint} backlog=4096;" for endpoint in self.endpoints)
        config = self.write("backend.conf", BACKEND.format(folder=self.folder, listen=listen, body=BODY.decode()))
        self.spawn([need("nginx"), "-p", self.folder, "-c", config, "-e", "/dev/null"])
        for endpoint in self.endpoints:
            wait_for(f"http://{endpoint}/")

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def spawn(self, words, core=None, **options):
        """Starts a process that ends with the bench."""
        core = self.core if core is None else core
        pin = None if core is None else (lambda: os.sched_setaffinity(0, {core}))
        options.setdefault("stdout", subprocess.DEVNULL)
        options.setdefault("stderr", subprocess.DEVNULL)
        process = subprocess.Popen([str(word) for word in words], preexec_fn=pin, **options)
        self.callback(end, process)
        return process

    def proxy(self, name, job, program=None):
        """Starts a proxy for a kind of work; gives its process and its URL once it answers."""
        port = free_port()
        words = STARTS[name](self, port, job, program)
        # HAProxy logs to its standard output, which is /dev/null.
        process = self.spawn(words)
        url = f"{'https' if job == 'tls' else 'http'}://127.0.0.1:{port}/"
        wait_for(url, process)
        return process, url

    def certificate(self):
        """A certificate for 127.0.0.1 and its key, as two files and as one: ECDSA over P-256."""
        paths = [self.folder / name for name in ("tls.crt", "tls.key", "tls.pem")]
        if not paths[0].exists():
            words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=bench"
            words = [*words.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-out", paths[0], "-keyout", paths[1]]
            subprocess.run([need("openssl"), *words], check=True, capture_output=True)
            paths[2].write_text(paths[0].read_text() + paths[1].read_text())
        return paths


def outrigger(bench, port, job, program):
    telemetry = job == "telemetry"
    program = program or ROOT / "target/release/outrigger"
    if not Path(program).exists():
        exit(f"{program} is not there: cargo build --release")
    text = OUTRIGGER.format(
        port=port,
        metrics=f'metrics: "127.0.0.1:{free_port()}"' if telemetry else "",
        log="/dev/null" if telemetry else "none",
        tls=", tls: {{ cert_file: {0}, key_file: {1} }}".format(*bench.certificate()) if job == "tls" else "",
        endpoints=", ".join(f'"{endpoint}"' for endpoint in bench.endpoints),
    )
    return [program, "run", bench.write(f"outrigger-{port}.yaml", text)]


def nginx(bench, port, job, _):
    telemetry = job == "telemetry"
    trace = "proxy_set_header traceparent $trace; proxy_set_header X-Request-Id $request_id;"
    folder = bench.folder / f"nginx-{port}"
    folder.mkdir()
    text = NGINX.format(
        folder=folder,
        port=port,
        ssl="ssl" if job == "tls" else "",
        certificate="ssl_certificate {}; ssl_certificate_key {};".format(*bench.certificate()) if job == "tls" else "",
        log=NGINX_LOG if telemetry else "access_log off;",
        trace=trace if telemetry else "",
        endpoints=" ".join(f"server {endpoint};" for endpoint in bench.endpoints),
    )
    return [need("nginx"), "-p", folder, "-c", bench.write(f"nginx-{port}.conf", text), "-e", "/dev/null"]


def haproxy(bench, port, job, _):
    telemetry = job == "telemetry"
    text = HAPROXY.format(
        port=port,
        ssl=f"ssl crt {bench.certificate()[2]}" if job == "tls" else "",
        log=HAPROXY_LOG if telemetry else "",
        trace=HAPROXY_TRACE if telemetry else "",
        endpoints="\n".join(f"  server s{i} {endpoint}" for i, endpoint in enumerate(bench.endpoints)),
    )
    return [need("haproxy"), "-db", "-f", bench.write(f"haproxy-{port}.cfg", text)]


STARTS = {"outrigger": outrigger, "nginx": nginx, "haproxy": haproxy}


def version(name, program=None):
    words = {
        "outrigger": [program or ROOT / "target/release/outrigger", "--version"],
        "nginx": [need("nginx"), "-v"],
        "haproxy": [need("haproxy"), "-v"],
    }[name]
    said = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True)
    first = (said.stdout + said.stderr).splitlines()[0]
    return first.replace("nginx version: ", "").replace("HAProxy version ", "haproxy ").split(" 20")[0]


def cpu_seconds(pid):
    """CPU time of a process and its children, to the nanosecond where the kernel has it."""
    total = 0
    for process in family(pid):
        for task in Path(f"/proc/{process}/task").glob("*"):
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                pass
    return total / 1e9


def memory_kib(pid, field="VmRSS"):
    """Resident memory of a process and its children."""
    total = 0
    for process in family(pid):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                total += int(line.split()[1])
    return total


def family(pid):
    """A process and what it has started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(FileNotFoundError):
            for child in (task / "children").read_text().split():
                found += family(int(child))
    return found


def set_apart(pid, core):
    """Puts all threads but the workers on a core of their own, and gives the tasks of the workers and of the others."""
    workers, others = [], []
    for task in Path(f"/proc/{pid}/task").iterdir():
        is_worker = (task / "comm").read_text().startswith("worker-")
        (workers if is_worker else others).append(task)
        if not is_worker:
            os.sched_setaffinity(int(task.name), {core})
    return workers, others


def need(program):
    path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin")
    if not path:
        exit(f"{program} is not there: apt-get install nginx-light haproxy wrk strace openssl")
    return path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url, process=None):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            exit(f"{process.args[0]} has ended with {process.returncode} instead of serving")
        try:
            with urllib.request.urlopen(url, timeout=2, context=ssl._create_unverified_context()) as answer:
                if answer.read() == BODY:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.02)
    exit(f"nobody answers at {url}")


def end(process):
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
