# Ends with one static binary and nothing else: no shell and no packages. glibc is in the binary, so what is mended in it
# comes with a new build.
#
#   docker build -t outrigger .
#   docker run --rm -p 15006:15006 -v "$PWD/outrigger.yaml:/etc/outrigger.yaml:ro" outrigger run /etc/outrigger.yaml

# The same sources in the same image give the same binary to the byte; whoever wants to build it again names the image by
# its digest.
ARG RUST=rust:1-slim-bookworm
FROM $RUST AS build
WORKDIR /build
# Static means glibc too. With an explicit target, build scripts and procedural macros are left out of that: they are
# loaded while the compiler runs, and cannot be static. getrandom falls back to /dev/urandom in such a binary, and every
# container runtime mounts that. The rest keeps the image below 12 MiB:
# - relocations packed: 0.5 MB
# - functions that are not marked for it are inlined only where they are hardly larger than their call: 2 MB. A request
#   takes 5 % more CPU time; over HTTP/2 it may be 10 %
# - paths of sources without the folder that they were built in: 0.02 MB, and the image does not depend on it
# - no AES-GCM in AVX-512: 0.7 MB. It is twice as fast there, with bodies of many KiB; AES-NI and AVX stay
# - C at -O2, and without tables for unwinding, which it never does: 0.05 MB
# What is built from C would name the time of its build; it is given one (reproducible-builds.org, SOURCE_DATE_EPOCH).
ENV RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs \
 -C llvm-args=-inline-threshold=30 -C llvm-args=-inlinecold-threshold=5 -C llvm-args=-inline-cold-callsite-threshold=5 \
 --remap-path-prefix=/usr/local/cargo/registry/src/=" \
    AWS_LC_SYS_CFLAGS="-DMY_ASSEMBLER_IS_TOO_OLD_FOR_512AVX -O2 -fno-asynchronous-unwind-tables" \
    SOURCE_DATE_EPOCH=0 CARGO_HOME=/usr/local/cargo CARGO_TERM_COLOR=never

# Dependencies first, from the manifest alone: this layer stays until Cargo.toml or Cargo.lock changes. Benches and tests
# are left out of the manifest, for their files are not here.
COPY Cargo.toml Cargo.lock ./
RUN sed -i '/^\[\[\(bench\|test\|example\)\]\]/,/^$/d' Cargo.toml \
 && mkdir src && echo 'fn main() {}' > src/main.rs && touch src/lib.rs \
 && cargo build --release --locked --target "$(rustc -vV | sed -n 's/^host: //p')" \
 && rm -r src

# Files of the checkout may be older than what was just built from the stand-ins, so they are touched.
COPY src src
RUN target=$(rustc -vV | sed -n 's/^host: //p') \
 && touch src/main.rs src/lib.rs \
 && cargo build --release --locked --target "$target" \
 && mv "target/$target/release/outrigger" /outrigger

FROM scratch
LABEL org.opencontainers.image.title="Outrigger" \
      org.opencontainers.image.description="A service-mesh-lite sidecar: one small L7 proxy and one short YAML file per pod" \
      org.opencontainers.image.licenses="Apache-2.0"
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
