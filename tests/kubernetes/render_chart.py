"""Renders the Helm chart as `helm template` would, after `helm lint --strict`: render_chart.py CHART [VALUES as JSON]"""

import json
import sys

import helm_python as helm

chart, values = sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
report = helm.lint(chart, values, strict=True)
problems = [message for message in report["messages"] if message["severity"] >= 2] + report["errors"]
assert not problems, problems
for path, manifest in sorted(helm.Chart.load(chart).render(values, name="edge").items()):
    if manifest.strip() and not path.endswith((".tpl", ".txt")):
        print(f"---\n# Source: {path}\n{manifest}")
