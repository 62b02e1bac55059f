"""Fails unless the parity check notices 1 % on any one weight matrix of a real package, and names its part.

python .ci/check_damage.py build/demo/out
"""

import hashlib
import sys
from collections.abc import Iterator
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


def weight_matrices(package: Package, component: Component) -> Iterator[tuple[int, str]]:
    """The index and the name of every float32 initializer with two or more dimensions."""
    graph = onnx.load(package.root / next(iter(component.files.values())).file).graph
    for number, weight in enumerate(graph.initializer):
        if len(weight.dims) >= 2 and weight.data_type == onnx.TensorProto.FLOAT:
            yield number, weight.name


def damaged(package: Package, folder: Path, component: Component, matrix: int) -> Package:
    """The package with one matrix of one part scaled by 1.01, and a manifest with the hash of the changed file."""
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


def main(package: Package) -> int:
    """Damage every matrix in turn, print the verdict, return the exit code."""
    golden, policy = read_golden(package), package.manifest.golden.policy
    count, missed, smallest = 0, [], float("inf")
    with TemporaryDirectory() as folder:
        for component in package.manifest.components:
            for matrix, weight in weight_matrices(package, component):
                sessions = Sessions(damaged(package, Path(folder), component, matrix), package.manifest.variant())
                report = verify(sessions, golden, policy, oracle="the recording", part=component.name)
                difference = report.parts[0].difference
                smallest = min(smallest, difference.max_abs / difference.tolerance)
                count += 1
                if report.first_failure != component.name:
                    missed.append(f"{component.name} {weight}: {difference.max_abs:.1e} of {difference.tolerance:.1e}")
    print(
        f"1 % on one weight matrix: {count - len(missed)} of {count} noticed, "
        f"the smallest difference is {smallest:.1f}x the tolerance"
    )
    print("\n".join(missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(open_package(sys.argv[1])))
