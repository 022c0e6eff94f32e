"""Takes from injected manifests what podman's `play kube` does not know of Kubernetes: probes, hooks, some fields.

for_podman.py NAME ADDRESS: the pod's name, and what it will have as its address."""

import sys

import yaml

name, address = sys.argv[1:]
FIELDS = {"metadata.name": name, "status.podIP": address}

# It wants what a pod mounts before the pod.
for document in sorted(yaml.safe_load_all(sys.stdin), key=lambda document: document["kind"] == "Pod"):
    if document["kind"] == "Pod":
        document["metadata"]["name"] = name
        # Annotations may have 63 bytes, where Kubernetes allows 256 KiB.
        document["metadata"]["annotations"].pop("outrigger/injected")
        spec = document["spec"]
        # Or init containers would start again, too.
        spec["restartPolicy"] = "Never"
        for container in spec["initContainers"] + spec["containers"]:
            container["imagePullPolicy"] = "Never"
            for key in ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "ports"):
                container.pop(key, None)
            fields = {
                variable["name"]: variable["valueFrom"]["fieldRef"]["fieldPath"] for variable in container.get("env", [])
            }
            container["env"] = [
                {"name": variable, "value": FIELDS[field]} for variable, field in fields.items() if field in FIELDS
            ]
    print("---")
    yaml.safe_dump(document, sys.stdout)
