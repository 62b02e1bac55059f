"""Fails when many sessions in a row cost much more than one graph of the same parts: the thread-pool trap.

python .ci/check_chain.py build/demo/out

If one session's threads go on spinning while the next session runs, such a chain is ten times slower. Every part of
the package runs in a row, twice, in two sets of sessions (38 sessions for 6 layers), against one graph of the same
parts, run twice. Each mode has its own processes, and they take turns: the result is a ratio, not a time.
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

# The mode that the others are compared with.
ONE_GRAPH = "one graph"
# Mode -> its time over one graph's, at most: 1.25 with one thread pool, as the commands have it, and 1.5 with a pool
# for each session, whose threads have to be woken for every run; plus slack for a machine that others use, too.
SLACK = 0.5
ALLOWED = {"one pool": 1.25 + SLACK, "a pool each": 1.5 + SLACK}
REPEATS, STARTS = 40, 5
TEXT = "Your account balance is low, top up at your nearest shop, or call us before the end of this week for help"


def one_graph(model: SmartBert) -> onnx.ModelProto:
    """Every part of the layout `separate` in one graph; every gate and every exit head is an output."""
    manifest, variant = model.package.manifest, model.sessions.variant
    builder, outputs = Builder(), []
    hidden = "hidden_00"
    for component in manifest.in_variant(variant.name):
        after = f"hidden_{component.index:02d}"
        names = {"hidden": after, "hidden_next": after, "mask": "mask"}
        output_names = [names.get(spec.name, f"{component.name}_{spec.name}") for spec in component.outputs]
        feeds = {"hidden": hidden, "mask": "mask"}
        if component.role == "embeddings":
            feeds = {spec.name: spec.name for spec in component.inputs}
        part = onnx.load(model.package.root / component.files[variant.name].file)
        builder.inline(part, component.name, feeds, output_names)
        if component.role in ("embeddings", "layer"):
            hidden = output_names[0]
        else:
            outputs.append(TensorSpec(name=output_names[0], dtype="float32", dims=component.outputs[0].dims))
    return builder.model(manifest.input, outputs)


def run_chain(model: SmartBert, sessions: Sessions, tokens: Tokens) -> list[np.ndarray]:
    """The same outputs from one session per part."""
    outputs = []
    hidden, mask = sessions.run("embeddings", tokens.feeds())
    for component in model.package.manifest.in_variant(sessions.variant.name)[1:]:
        (output,) = sessions.run(component.name, {"hidden": hidden, "mask": mask})
        if component.role == "layer":
            hidden = output
        else:
            outputs.append(output)
    return outputs


def median_ms(call: Callable[[], object]) -> float:
    """Median milliseconds of one call."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1000.0)
    return statistics.median(times)


def time_mode(package: Path, mode: str) -> float:
    """Milliseconds of one mode, the only one in this process: spinning threads would slow down the others, too."""
    if mode == "one pool":
        share_thread_pool()
    model = SmartBert.load(package, layout="separate", precision="fp32")
    tokens = model.tokenizer.encode([TEXT])
    if mode in ALLOWED:
        second = Sessions(model.package, model.sessions.variant)
        return median_ms(lambda: run_chain(model, model.sessions, tokens) + run_chain(model, second, tokens))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = model.sessions.threads
    graph = onnxruntime.InferenceSession(one_graph(model).SerializeToString(), options, providers=[CPU])
    for ours, theirs in zip(run_chain(model, model.sessions, tokens), graph.run(None, tokens.feeds()), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    model.close()
    return median_ms(lambda: (graph.run(None, tokens.feeds()), graph.run(None, tokens.feeds())))


def median_ratios(package: Path) -> dict[str, float]:
    """Mode -> its time over one graph's, each mode in its own processes, in turns: the median over the starts."""
    ratios: dict[str, list[float]] = {mode: [] for mode in ALLOWED}
    for _ in range(STARTS):
        ms = {}
        for mode in (ONE_GRAPH, *ALLOWED):
            command = [sys.executable, __file__, str(package), mode]
            ms[mode] = float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        for mode, values in ratios.items():
            values.append(ms[mode] / ms[ONE_GRAPH])
    return {mode: statistics.median(values) for mode, values in ratios.items()}


def main(package: Path) -> int:
    """Print the verdict, return the exit code; a mode that is too slow is timed again: others may use this machine."""
    count = 2 * (1 + 3 * open_package(package).manifest.model.layers)
    ratios = median_ratios(package)
    if any(ratios[mode] > allowed for mode, allowed in ALLOWED.items()):
        ratios = median_ratios(package)
    missed = 0
    for mode, allowed in ALLOWED.items():
        missed += ratios[mode] > allowed
        verdict = "ok" if ratios[mode] <= allowed else "TOO SLOW"
        print(f"{count} sessions in a row, {mode}: {ratios[mode]:.2f} times one graph, at most {allowed}: {verdict}")
    return 1 if missed else 0


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(time_mode(Path(sys.argv[1]), sys.argv[2]))
    else:
        sys.exit(main(Path(sys.argv[1])))
