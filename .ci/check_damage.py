"""Fails unless parity notices 1 % on any one weight matrix of a real package, each blamed on its own part.

python .ci/check_damage.py build/demo/out
"""

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import numpy_helper

from smartbert_runtime.package.manifest import Component
from smartbert_runtime.package.open import Package, open_package
from smartbert_runtime.parity.golden import read_golden
from smartbert_runtime.parity.verify import verify
from smartbert_runtime.sessions.sessions import Sessions


def damaged(package: Package, folder: Path, component: Component, matrix: int) -> Package:
    """The package with one matrix of one part scaled by 1.01, and a manifest that vouches for it."""
    ((variant, entry),) = component.files.items()
    graph = onnx.load(package.root / entry.file)
    weight = graph.graph.initializer[matrix]
    scaled = numpy_helper.to_array(weight) * np.float32(1.01)
    weight.CopyFrom(numpy_helper.from_array(scaled, weight.name))
    content = graph.SerializeToString()
    (folder / "part.onnx").write_bytes(content)
    changed = replace(entry, file="part.onnx", sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    component = replace(component, files={variant: changed})
    return Package(root=folder, manifest=replace(package.manifest, components=(component,)))


package = open_package(sys.argv[1])
golden, policy = read_golden(package), package.manifest.golden.policy
count, missed, closest = 0, [], float("inf")
with TemporaryDirectory() as folder:
    for component in package.manifest.components:
        graph = onnx.load(package.root / next(iter(component.files.values())).file).graph
        for matrix, weight in enumerate(graph.initializer):
            if len(weight.dims) < 2 or weight.data_type != onnx.TensorProto.FLOAT:
                continue
            broken = damaged(package, Path(folder), component, matrix)
            sessions = Sessions(broken, package.manifest.variant())
            report = verify(sessions, golden, policy, oracle="the recording", part=component.name)
            found = report.parts[0].difference
            closest = min(closest, found.max_abs / found.tolerance)
            count += 1
            if report.first_failure != component.name:
                missed.append(f"{component.name} {weight.name}: {found.max_abs:.1e} of {found.tolerance:.1e}")
print(
    f"1 % on one weight matrix: {count - len(missed)} of {count} noticed, the nearest at {closest:.1f}x the tolerance"
)
print("\n".join(missed))
sys.exit(1 if missed else 0)
