"""Fails when many sessions in a row cost much more than one graph of the same parts: the thread-pool trap.

python .ci/check_chain.py build/demo/out

Workers of one session that go on spinning while the next one runs make such a chain ten times slower. Every part of
the package is run in a row, twice over by two sets of sessions (38 sessions for 6 layers), against one graph that
holds the same parts, run twice. Each way in processes of its own, in turns: a ratio and not a time.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from smartbert_export.graphs.compose import Builder
from smartbert_runtime import SmartBert, share_thread_pool
from smartbert_runtime.package.manifest import TensorSpec
from smartbert_runtime.package.open import open_package
from smartbert_runtime.sessions.providers import CPU
from smartbert_runtime.sessions.sessions import Sessions
from smartbert_runtime.tokenizer import Tokens

# How many times one graph at most: 1.25 with one pool of threads, as the commands have it, and 1.5 with one for each
# session, whose workers have to be woken for every run; and slack for a machine that others use, too.
SLACK = 0.5
ALLOWED = {"one pool": 1.25 + SLACK, "a pool each": 1.5 + SLACK}
TURNS, STARTS = 40, 5
TEXT = "Your account balance is low, top up at your nearest shop, or call us before the end of this week for help"


def one_graph(model: SmartBert) -> onnx.ModelProto:
    """Every part of the layout `separate` in one graph, each with an output that is asked for."""
    manifest, variant = model.package.manifest, model.sessions.variant
    builder, outputs = Builder(), []
    state = "hidden_00"
    for component in manifest.in_variant(variant.name):
        after = f"hidden_{component.index:02d}"
        names = {"hidden": after, "hidden_next": after, "mask": "mask"}
        made = [names.get(spec.name, f"{component.name}_{spec.name}") for spec in component.outputs]
        feeds = {"hidden": state, "mask": "mask"}
        if component.role == "embeddings":
            feeds = {spec.name: spec.name for spec in component.inputs}
        part = onnx.load(model.package.root / component.files[variant.name].file)
        builder.inline(part, component.name, feeds, made)
        if component.role in ("embeddings", "layer"):
            state = made[0]
        else:
            outputs.append(TensorSpec(name=made[0], dtype="float32", dims=component.outputs[0].dims))
    return builder.model(manifest.input, outputs)


def in_a_row(model: SmartBert, sessions: Sessions, tokens: Tokens) -> list[np.ndarray]:
    """The same by a session a part."""
    said = []
    state, mask = sessions.run("embeddings", tokens.feeds())
    for component in model.package.manifest.in_variant(sessions.variant.name)[1:]:
        (made,) = sessions.run(component.name, {"hidden": state, "mask": mask})
        if component.role == "layer":
            state = made
        else:
            said.append(made)
    return said


def milliseconds(call: Callable[[], object]) -> float:
    """Of one call: the median of many."""
    times = []
    for _ in range(TURNS):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1000.0)
    return statistics.median(times)


def measure(package: Path, way: str) -> float:
    """Milliseconds of one of the ways, alone in this process: spinning workers would slow the other, too."""
    if way == "one pool":
        share_thread_pool()
    model = SmartBert.load(package, layout="separate", precision="fp32")
    tokens = model.tokenizer.encode([TEXT])
    if way in ALLOWED:
        second = Sessions(model.package, model.sessions.variant)
        return milliseconds(
            lambda: in_a_row(model, model.sessions, tokens) + in_a_row(model, second, tokens),
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = model.sessions.threads
    graph = onnxruntime.InferenceSession(one_graph(model).SerializeToString(), options, providers=[CPU])
    for ours, theirs in zip(in_a_row(model, model.sessions, tokens), graph.run(None, tokens.feeds()), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    model.close()
    return milliseconds(lambda: (graph.run(None, tokens.feeds()), graph.run(None, tokens.feeds())))


def ratios(package: Path) -> dict[str, float]:
    """How many times one graph, each way in processes of its own, in turns: the median over the turns."""
    found: dict[str, list[float]] = {way: [] for way in ALLOWED}
    for _ in range(STARTS):
        took = {}
        for way in ("one graph", *ALLOWED):
            command = [sys.executable, __file__, str(package), way]
            took[way] = float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        for way, values in found.items():
            values.append(took[way] / took["one graph"])
    return {way: statistics.median(values) for way, values in found.items()}


def main(package: Path) -> int:
    """Print the verdict; what is too slow is measured once more, since others may use this machine."""
    count = 2 * (1 + 3 * open_package(package).manifest.model.layers)
    found = ratios(package)
    if any(found[way] > allowed for way, allowed in ALLOWED.items()):
        found = ratios(package)
    missed = 0
    for way, allowed in ALLOWED.items():
        missed += found[way] > allowed
        verdict = "ok" if found[way] <= allowed else "TOO SLOW"
        print(f"{count} sessions in a row, {way}: {found[way]:.2f} times one graph, at most {allowed}: {verdict}")
    return 1 if missed else 0


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(measure(Path(sys.argv[1]), sys.argv[2]))
    else:
        sys.exit(main(Path(sys.argv[1])))
