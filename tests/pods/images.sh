# For those who build images: what they need, by podman. Read by `run` and `reproducible` in this folder, which give
# `work`, a folder that goes when they end.
# shellcheck shell=bash

export CONTAINERS_CONF=$work/containers.conf
base=docker.io/library/debian:bookworm-slim
rust=docker.io/library/rust:1-slim-bookworm

# What podman starts leaves notes in the folder that it was started from.
mkdir "$work/notes"
podman() { (cd "$work/notes" && command podman "$@"); }

packages() {
  local missing=()
  for package in podman buildah runc netavark aardvark-dns catatonit debootstrap iptables nftables curl python3-yaml; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  fi
  # Machines without systemd have no other way.
  cat > "$CONTAINERS_CONF" <<'C'
[containers]
default_ulimits = ["nofile=FILES:FILES", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
C
  # A burst of 10,000 connections has to fit.
  sed -i "s/FILES/$(ulimit -Hn)/g" "$CONTAINERS_CONF"
  mkdir -p /etc/containers
  [ -s /etc/containers/policy.json ] || echo '{"default":[{"type":"insecureAcceptAnything"}]}' > /etc/containers/policy.json
}

# Images that others make: from their registry or, where that cannot be reached, from this machine's own packages.
bases() {
  if ! podman image exists $base && ! podman pull -q $base >/dev/null 2>&1; then
    debootstrap --variant=minbase bookworm "$work/root" > "$work/debootstrap.log" 2>&1
    tar -C "$work/root" -c . | podman import -q - $base >/dev/null
  fi
  if ! podman image exists $rust && ! podman pull -q $rust >/dev/null 2>&1; then
    mkdir "$work/rust"
    cp -a "$(rustc --print sysroot)" "$work/rust/toolchain"
    cat > "$work/rust/Dockerfile" <<C
FROM $base
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev ca-certificates >/dev/null
COPY toolchain /usr/local/rust
ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
C
    build $rust "$work/rust"
  fi
}

# Builds an image, and forgets the one that had this name before.
build() { # NAME FOLDER [OPTION...]
  local before
  before=$(podman image inspect "$1" --format '{{.Id}}' 2>/dev/null || true)
  podman build --network=host -q -t "$1" "${@:3}" "$2" >/dev/null
  [ -z "$before" ] || [ "$before" = "$(podman image inspect "$1" --format '{{.Id}}')" ] || podman rmi "$before" >/dev/null 2>&1 || true
}
