# Ends with one static binary and nothing else: no shell, no libc, no package to patch.
#
#   docker build -t outrigger .
#   docker run --rm -p 15006:15006 -v "$PWD/outrigger.yaml:/etc/outrigger.yaml:ro" outrigger run /etc/outrigger.yaml

FROM rust:1-slim-bookworm AS build
WORKDIR /build
# Static means glibc too. With an explicit target, build scripts and procedural macros are left out of that: they are
# loaded while the compiler runs, and cannot be static. getrandom falls back to /dev/urandom in such a binary, and every
# container runtime mounts that.
ENV RUSTFLAGS="-C target-feature=+crt-static" CARGO_TERM_COLOR=never

# Dependencies first, from the manifest alone: this layer stays until Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches \
 && printf 'fn main() {}\n' | tee src/main.rs benches/request_path.rs > /dev/null \
 && touch src/lib.rs \
 && cargo build --release --locked --target "$(rustc -vV | sed -n 's/^host: //p')" \
 && rm -rf src benches target/*/release/.fingerprint/outrigger-*

COPY README.md ./
COPY src src
COPY benches benches
RUN host=$(rustc -vV | sed -n 's/^host: //p') \
 && cargo build --release --locked --bin outrigger --target "$host" \
 && cp "target/$host/release/outrigger" /outrigger \
 && /outrigger --version

FROM scratch
COPY --from=build /outrigger /outrigger
# No name is known here, so by number; nothing in the image needs another.
USER 65532:65532
EXPOSE 15006 15001
# A drain takes drain.delay and drain.timeout: give it more than the 10 s that Docker waits by default
# (`docker stop --time 30`).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/outrigger", "ready"]
ENTRYPOINT ["/outrigger"]
CMD ["--help"]
