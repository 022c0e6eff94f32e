#!/usr/bin/env python3
"""Holds every crate that is built to a list of licences. Reads `cargo metadata`."""

import json
import subprocess
import sys

# Each may be linked into an Apache-2.0 binary and passed on with its notice.
ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}


def permitted(expression):
    """An SPDX expression holds where one side of each `OR` and both sides of each `AND` hold."""
    tokens = expression.replace("(", " ( ").replace(")", " ) ").replace("/", " OR ").split()

    def alternatives():
        holds = conjunction()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            holds = conjunction() or holds
        return holds

    def conjunction():
        holds = single()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            holds = single() and holds
        return holds

    def single():
        token = tokens.pop(0)
        if token == "(":
            holds = alternatives()
            tokens.pop(0)
            return holds
        if tokens and tokens[0] == "WITH":
            token = " ".join([token, tokens.pop(0), tokens.pop(0)])
        return token in ALLOWED

    return alternatives()


def main():
    metadata = json.loads(
        subprocess.run(
            ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", host()],
            check=True,
            capture_output=True,
        ).stdout
    )
    built = {node["id"] for node in metadata["resolve"]["nodes"]}
    refused = [
        f"{package['name']} {package['version']}: {package['license'] or 'no licence named'}"
        for package in metadata["packages"]
        if package["id"] in built and not (package["license"] and permitted(package["license"]))
    ]
    if refused:
        sys.exit("licences that are not in .ci/licences.py:\n  " + "\n  ".join(refused))
    print(f"{len(built)} crates, all under licences of the list")


def host():
    version = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    return next(line.removeprefix("host: ") for line in version.splitlines() if line.startswith("host: "))


if __name__ == "__main__":
    main()
