"""python -m studies.performance.int8_accuracy: what int8 loses against fp32, by scheme of its activation scales.

Every scheme is forced on all layers and the last exit head of the same weights, as one plain graph at full depth; the
last rows are the package as an export chooses it. Shape letters: r rows (texts), c classes, t timed texts.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import onnxruntime
import torch
import typer
from numpy.typing import NDArray

from smartbert.activations.ranges import ActivationRanges
from smartbert.data.splits import number_labels
from smartbert.library_logging import quiet_libraries
from smartbert_bench.contenders.plain_graph import plain_graph
from smartbert_export.options import ExportOptions, GraphOptions
from smartbert_export.package import export_package
from smartbert_export.parts.signatures import Part
from smartbert_export.precisions import FP32, INT8, STATIC, STATIC_CLIPPED
from smartbert_export.quantize.activation_scales import part_scales
from smartbert_export.quantize.choose_ranges import choose_ranges
from smartbert_export.quantize.losses import LossEstimate, estimate_loss, paired_losses
from smartbert_export.quantize.quantized_graph import quantized
from smartbert_export.source_checkpoint import open_checkpoint
from smartbert_runtime import SmartBert
from smartbert_runtime.cli.command import run_command
from smartbert_runtime.decisions.rules import softmax
from smartbert_runtime.errors import InputError
from smartbert_runtime.package.manifest import FUSED
from smartbert_runtime.package.open import Package, open_package
from smartbert_runtime.sessions.providers import CPU
from smartbert_runtime.sessions.threads import session_options
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.examples import read_examples
from smartbert_runtime.tokenizer import Tokenizer, Tokens, batches_by_length
from studies.performance.append_record import append_record, conditions_line

BATCH_SIZE = 32
TIMED_TEXTS = 40
# After the other graphs' turns a graph's weights are no longer in the caches.
WARM_UP = 10
FIXED = "fixed, whole range"
# By what each layer's product of the inputs at these points is called in the table.
PRODUCTS = {
    "query, key, value": "hidden_",
    "attention output": "/attention.output.dense",
    "intermediate": "/intermediate.dense",
    "layer output": "/output.dense",
}


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Tokenized texts with their class numbers, and the same as the runtime takes them."""

    texts: list[str]
    pairs: list[str] | None
    tokens: Tokens
    label_ids_r: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One scheme against fp32. only_fp32, only_int8: texts that one side alone gets right.

    change: of the probability that changes most, mean over the texts. time: of a plain pass, over FIXED's.
    """

    loss: LossEstimate
    only_fp32: int
    only_int8: int
    same_labels: float
    change: float
    time: float | None = None


def compare_int8(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="Checkpoint folder.")],
    file: Annotated[list[Path], typer.Option(help="Labeled texts that were not trained on; repeatable.")],
    scales_file: Annotated[
        Path | None, typer.Option(help="Texts for the scales; default: the recorded ranges.")
    ] = None,
    target: Annotated[str, typer.Option(help="Processor that int8 is for.")] = "x86-vnni",
    threads: Annotated[int, typer.Option(help="Cores.")] = 1,
    repeats: Annotated[int, typer.Option(help=f"Passes over {TIMED_TEXTS} texts, the schemes in turns.")] = 15,
    shipped: Annotated[bool, typer.Option(help="Also export the package, and compare it.")] = True,
    save: Annotated[
        Path | None, typer.Option(help="Append the figures to this file, and print the losses of all its lines pooled.")
    ] = None,
) -> None:
    """Print accuracy lost, labels kept, change of probabilities and time of each scheme, as a Markdown table."""
    quiet_libraries()
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        export_package(checkpoint, work / "fp32", ExportOptions())
        package = open_package(work / "fp32")
        texts = _read_texts(package, file)
        source = open_checkpoint(checkpoint, gates=True)
        ranges = choose_ranges(source, scales_file, Tokenizer.from_package(package), source.policy())
        if ranges is None:
            raise InputError(f"{checkpoint} has no ranges of activations", hint="give --scales-file")
        graphs = {FP32: _session(plain_graph(package, package.manifest.variants[0]), threads)}
        for number, (name, (known, scheme)) in enumerate(_schemes(ranges).items()):
            graph = _quantized_plain(package, known, scheme, target, work / str(number))
            graphs[name] = _session(graph, threads)
        rows = _plain_rows(graphs, texts, repeats)
        if shipped:
            rows |= _shipped_rows(checkpoint, scales_file, target, work / "out", texts, threads)
    conditions = f"{len(texts.label_ids_r)} texts, int8 for {target}, {conditions_line(threads)}"
    print(_table(rows) + f"\n\n{checkpoint.parent.name}: {conditions}")
    figures = {name: asdict(row) for name, row in rows.items()}
    count = len(texts.label_ids_r)
    append_record(save, {"task": checkpoint.parent.name, "texts": count, "conditions": conditions, "rows": figures})
    if save is not None:
        print("\nPooled over every line of the file, points lost: " + _pooled(save))


def _read_texts(package: Package, files: Sequence[Path]) -> Texts:
    texts: list[str] = []
    pairs: list[str] = []
    label_ids: list[int] = []
    for file in files:
        split = number_labels(read_examples(file, Columns(), labels_if_any=True), package.manifest.labels)
        if not split.label_ids:
            raise InputError(f"{file} has no labels", hint="give a file with a column label")
        texts += split.texts
        pairs += split.pairs or ()
        label_ids += split.label_ids
    tokens = Tokenizer.from_package(package).encode(texts, pairs or None)
    return Texts(texts=texts, pairs=pairs or None, tokens=tokens, label_ids_r=np.array(label_ids))


def _schemes(ranges: ActivationRanges) -> dict[str, tuple[ActivationRanges, str]]:
    """Name -> the ranges that are known, and the scheme; a tensor without a range gets a scale for each token."""
    bare = replace(ranges, points={name: replace(point, minima=(), maxima=()) for name, point in ranges.points.items()})
    schemes = {FIXED: (bare, STATIC), "fixed, clipped": (bare, STATIC_CLIPPED)}
    for product, place in PRODUCTS.items():
        kept = {
            name: point
            for name, point in bare.points.items()
            if not (name.startswith(place) if place == "hidden_" else name[len("layer_00") :] == place)
        }
        schemes[f"fixed, but {product} per token"] = (replace(bare, points=kept), STATIC)
    schemes["fixed, smoothed"] = (ranges, STATIC)
    outputs = {name: point for name, point in ranges.points.items() if name[len("layer_00") :] != "/output.dense"}
    schemes["fixed, smoothed, but layer output per token"] = (replace(ranges, points=outputs), STATIC)
    schemes["per token"] = (replace(bare, points={}), STATIC)
    return schemes


def _quantized_plain(
    package: Package, ranges: ActivationRanges, scheme: str, target: str, folder: Path
) -> onnx.ModelProto:
    """The package's weights as one plain graph, every part of it by this scheme."""
    variant = package.manifest.variants[0]
    shutil.copytree(package.root, folder)
    for component in package.manifest.in_variant(variant.name):
        if component.role not in ("embeddings", "layer", "exit"):
            continue
        file = folder / component.files[variant.name].file
        model = onnx.load(file)
        part = Part(name=component.name, role=component.role, kind=component.role, index=component.index)
        scales = part_scales(model.graph, part, ranges, scheme)
        file.write_bytes(quantized(model, INT8, target, scales=scales).SerializeToString())
    graph = plain_graph(replace(package, root=folder), variant)
    shutil.rmtree(folder)
    return graph


def _session(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), session_options(threads), providers=[CPU])


def _plain_rows(graphs: Mapping[str, onnxruntime.InferenceSession], texts: Texts, repeats: int) -> dict[str, Row]:
    times = _times(graphs, texts.tokens, repeats)
    logits = {name: _logits(session, texts.tokens) for name, session in graphs.items()}
    return {
        name: replace(_row(logits[FP32], found_rc, texts.label_ids_r), time=times[name])
        for name, found_rc in logits.items()
    }


def _logits(session: onnxruntime.InferenceSession, tokens: Tokens) -> NDArray[np.float32]:
    batches = list(batches_by_length(tokens.attention_mask_bs.sum(axis=1).tolist(), BATCH_SIZE))
    found = [session.run(None, tokens.rows(rows).feeds())[0] for rows in batches]
    order = np.argsort([row for rows in batches for row in rows])
    logits_rc: NDArray[np.float32] = np.concatenate(found)[order]
    return logits_rc


def _times(graphs: Mapping[str, onnxruntime.InferenceSession], tokens: Tokens, repeats: int) -> dict[str, float]:
    """Time of each graph over FIXED's, one text at a time; of each text the fastest pass counts, since others preempt.

    The graphs take turns, each with all texts of a pass.
    """
    spread = np.linspace(0, len(tokens.truncated) - 1, TIMED_TEXTS).astype(int).tolist()
    feeds = [tokens.rows([row]).feeds() for row in spread]
    fastest_t = {name: np.full(TIMED_TEXTS, np.inf) for name in graphs}
    for _ in range(repeats):
        for name, session in graphs.items():
            turn_t = [_seconds(session, one) for one in (*feeds[:WARM_UP], *feeds)]
            fastest_t[name] = np.minimum(fastest_t[name], turn_t[WARM_UP:])
    return {name: float(seconds_t.sum() / fastest_t[FIXED].sum()) for name, seconds_t in fastest_t.items()}


def _seconds(session: onnxruntime.InferenceSession, feeds: Mapping[str, NDArray[np.int64]]) -> float:
    started = time.perf_counter()
    session.run(None, feeds)
    return time.perf_counter() - started


def _shipped_rows(
    checkpoint: Path, scales_file: Path | None, target: str, out: Path, texts: Texts, threads: int
) -> dict[str, Row]:
    """The exported package's int8 against its fp32: at full depth, and with its own policy."""
    graphs = GraphOptions(layouts=(FUSED,), precisions=(FP32, INT8), target=target)
    export_package(checkpoint, out, ExportOptions(graphs=graphs, scales_file=scales_file))
    rows = {}
    for name, policy in (("package, full depth", "full-depth"), ("package, own policy", None)):
        logits = []
        for precision in (FP32, INT8):
            with SmartBert.load(out, layout=FUSED, precision=precision, threads=threads) as model:
                predictions = model.classify(texts.texts, text_pairs=texts.pairs, policy=policy)
            # Logarithms of probabilities are logits.
            logits.append([[math.log(max(p, 1e-30)) for p in one.probabilities.values()] for one in predictions])
        fp32_rc, int8_rc = (np.array(one, dtype=np.float32) for one in logits)
        rows[name] = _row(fp32_rc, int8_rc, texts.label_ids_r)
    return rows


def _row(fp32_rc: NDArray[np.float32], int8_rc: NDArray[np.float32], label_ids_r: NDArray[np.int64]) -> Row:
    losses_r = paired_losses(fp32_rc, int8_rc, label_ids_r)
    change_rc = np.abs(softmax(fp32_rc) - softmax(int8_rc))
    return Row(
        loss=estimate_loss(losses_r),
        only_fp32=int((losses_r > 0).sum()),
        only_int8=int((losses_r < 0).sum()),
        same_labels=float((fp32_rc.argmax(axis=1) == int8_rc.argmax(axis=1)).mean()),
        change=float(change_rc.max(axis=1).mean()),
    )


def _table(rows: Mapping[str, Row]) -> str:
    lines = [
        "| scheme | points lost (90 % interval) | labels kept | change of probabilities | time |",
        "|---" * 5 + "|",
    ]
    for name, row in rows.items():
        loss, seconds = row.loss, "" if row.time is None else f"{row.time:.3f}"
        lines.append(
            f"| {name} | {loss.mean * 100:.2f} ({loss.lower * 100:.2f} to {loss.upper * 100:.2f}) "
            f"| {row.same_labels:.2%} | {row.change:.4f} | {seconds} |"
        )
    return "\n".join(lines)


def _pooled(file: Path) -> str:
    """Each scheme's loss, every text of every task counting once."""
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    results = []
    for name in records[0]["rows"]:
        with_it = [record for record in records if name in record["rows"]]
        worse, better = (sum(record["rows"][name][key] for record in with_it) for key in ("only_fp32", "only_int8"))
        losses_r = np.zeros(sum(record["texts"] for record in with_it))
        losses_r[:worse], losses_r[worse : worse + better] = 1.0, -1.0
        loss = estimate_loss(losses_r)
        results.append(f"{name} {loss.mean * 100:.2f} ({loss.lower * 100:.2f} to {loss.upper * 100:.2f})")
    return "; ".join(results)


if __name__ == "__main__":
    run_command(compare_int8)
