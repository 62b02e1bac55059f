"""Fails when the demo's figures miss their floors: dev accuracy, spam recall, layers run.

python .ci/check_demo.py build/demo/bench.json
"""

import json
import sys
from pathlib import Path

report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
policy, plain = report["contenders"][0], report["contenders"][-1]
layers = plain["mean_layers_run"]
floors = [
    ("dev accuracy", policy["accuracy"], policy["accuracy"] >= 0.98, "at least 0.98"),
    ("spam recall", policy["recall"]["spam"], policy["recall"]["spam"] >= 0.93, "at least 0.93"),
    ("layers run", policy["mean_layers_run"], policy["mean_layers_run"] <= layers / 2, f"at most {layers / 2}"),
]
for name, value, ok, limit in floors:
    print(f"{name}: {value:.4f}, {limit}: {'ok' if ok else 'MISSED'}")
sys.exit(0 if all(ok for _, _, ok, _ in floors) else 1)
