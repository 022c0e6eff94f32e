"""Validates manifests on standard input against Kubernetes' own schemas: validate.py VERSION…"""

import sys

import kubernetes_validate
import yaml

documents = [document for document in yaml.safe_load_all(sys.stdin) if document]
objects = []
for document in documents:
    objects.extend(document["items"] if document["kind"] == "List" else [document])
# Kubernetes itself has no schema of what others add to it.
objects = [item for item in objects if not item["apiVersion"].startswith("cert-manager.io/")]
assert objects, "nothing to validate"
wrong = 0
for version in sys.argv[1:]:
    for item in objects:
        try:
            kubernetes_validate.validate(item, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            name = item["metadata"].get("name", item["metadata"].get("generateName"))
            print(f"{version}: {item['kind']} {name}: {error.message} at {list(error.path)}")
            wrong += 1
print(f"{len(objects)} objects, {len(sys.argv) - 1} versions, {wrong} mistakes")
sys.exit(wrong > 0)
