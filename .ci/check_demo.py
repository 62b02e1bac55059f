"""Fails when the demo's figures fall below what is promised: accuracy, spam recall, layers run."""

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
for name, value, fine, wanted in floors:
    print(f"{name}: {value:.4f}, {wanted}: {'ok' if fine else 'MISSED'}")
sys.exit(0 if all(fine for *_, fine, _ in floors) else 1)
