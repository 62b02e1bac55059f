"""python -m studies.performance.layouts_table: every layout in every precision of a checkpoint, measured side by side.

Each is exported into its own folder and compared with PyTorch on real texts: size, seconds, agreement, whether a text
gets the same answer by itself and in a batch, time per text.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import typer

from smartbert.library_logging import quiet_libraries
from smartbert.reference import trace_rows
from smartbert_export.graphs.coverage import COREML_PROGRAM, coverage
from smartbert_export.options import ExportOptions, GraphOptions
from smartbert_export.package import export_package
from smartbert_export.parts.signatures import LAYOUTS
from smartbert_export.precisions import FP32, PRECISIONS
from smartbert_export.quantize.quantized_graph import quantized
from smartbert_export.source_checkpoint import open_checkpoint
from smartbert_runtime.cli.command import run_command
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.run import run_layout
from smartbert_runtime.package.manifest import SINGLE
from smartbert_runtime.package.open import open_package
from smartbert_runtime.sessions.sessions import Sessions
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.examples import read_examples
from smartbert_runtime.tokenizer import Tokenizer, Tokens
from smartbert_runtime.trace import Trace
from studies.performance.append_record import conditions_line

BATCH_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class LayoutFigures:
    """One layout in one precision, against PyTorch.

    batch_difference: largest logit difference between a text by itself and in a batch, where the decisions are equal.
    same_in_batch: share of texts with the same decisions by themselves and in a batch.
    """

    layout: str
    precision: str
    graphs_mb: float
    seconds: float
    refused: int
    largest: float
    labels: float
    exits: float
    batch_difference: float
    same_in_batch: float
    coreml_coverage: str
    sessions: Sessions


def make_table(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="Checkpoint folder.")],
    file: Annotated[
        Path, typer.Option(help="Real texts, preferably a dev set; they also decide what may be quantized.")
    ],
    fixed_shape: Annotated[str, typer.Option(help="B,S that CoreML's operator coverage is counted for.")] = "1,32",
    target: Annotated[str, typer.Option(help="Processor that int8 is for.")] = "x86-vnni",
    layout: Annotated[list[str], typer.Option(help="Layouts; repeatable.")] = list(LAYOUTS),  # noqa: B006
    precision: Annotated[list[str], typer.Option(help="Precisions; repeatable.")] = list(PRECISIONS),  # noqa: B006
    repeats: Annotated[int, typer.Option(help="Passes over the texts for the times.")] = 3,
) -> None:
    """Export every layout in every precision and print a Markdown table with its conditions."""
    quiet_libraries()
    examples = read_examples(file, Columns())
    batch, length = map(int, fixed_shape.split(","))
    with tempfile.TemporaryDirectory() as temporary:
        rows = []
        expected: list[Trace] = []
        for name in layout:
            fixed = Path(temporary) / f"{name}-fixed"
            options = GraphOptions(layouts=(name,), fixed_shape=(batch, length))
            export_package(checkpoint, fixed, ExportOptions(graphs=options))
            for number in precision:
                print(f"{name} {number}", file=sys.stderr, flush=True)
                out = Path(temporary) / f"{name}-{number}"
                graphs = GraphOptions(layouts=(name,), precisions=(number,), target=target)
                started = time.perf_counter()
                report = export_package(checkpoint, out, ExportOptions(graphs=graphs, check_file=file))
                seconds = time.perf_counter() - started
                sessions = _open(out)
                tokens = Tokenizer.from_package(sessions.package).encode(examples.texts, examples.pairs)
                policy = sessions.package.manifest.golden.policy
                if not expected:
                    expected = trace_rows(open_checkpoint(checkpoint).model, tokens, policy)
                refused = sum(len(found.refused) for found in report.quantization.values())
                covered = _coreml_coverage(fixed, name, number, target)
                rows.append(_row(sessions, tokens, policy, expected, seconds, refused, covered))
        times = _times([row.sessions for row in rows], tokens, policy, repeats)
        _print(checkpoint, rows, times, tokens, repeats, target, fixed_shape)


def _open(folder: Path) -> Sessions:
    package = open_package(folder)
    return Sessions(package, package.manifest.variant())


def _coreml_coverage(fixed: Path, layout: str, precision: str, target: str) -> str:
    """CoreML's operator coverage of a layer, a block or the whole graph; of the whole graph only in fp32."""
    part = {"separate": "layer_01", "fused": "block_01", "single": "model"}[layout]
    if layout == SINGLE and precision != FP32:
        return "-"
    graph = quantized(onnx.load(fixed / "graphs" / f"{part}.onnx"), precision, target)
    return "{} of {}".format(*coverage(graph)[COREML_PROGRAM])


def _row(
    sessions: Sessions,
    tokens: Tokens,
    policy: Policy,
    expected: list[Trace],
    seconds: float,
    refused: int,
    covered: str,
) -> LayoutFigures:
    one_by_one = _traces(sessions, tokens, policy, 1)
    batched = one_by_one if sessions.variant.layout == SINGLE else _traces(sessions, tokens, policy, BATCH_SIZE)
    same = [one.decisions() == other.decisions() for one, other in zip(one_by_one, expected, strict=True)]
    return LayoutFigures(
        layout=sessions.variant.layout,
        precision=sessions.variant.precision,
        graphs_mb=sum(file.stat().st_size for file in (sessions.package.root / "graphs").iterdir()) / 1e6,
        seconds=seconds,
        refused=refused,
        largest=max(
            float(np.abs(one.logits_c - other.logits_c).max())
            for one, other, equal in zip(one_by_one, expected, same, strict=True)
            if equal
        ),
        labels=statistics.fmean(
            one.logits_c.argmax() == other.logits_c.argmax() for one, other in zip(one_by_one, expected, strict=True)
        ),
        exits=statistics.fmean(
            one.exit_layer == other.exit_layer for one, other in zip(one_by_one, expected, strict=True)
        ),
        batch_difference=max(
            float(np.abs(one.logits_c - other.logits_c).max())
            for one, other in zip(one_by_one, batched, strict=True)
            if one.decisions() == other.decisions()
        ),
        same_in_batch=statistics.fmean(
            one.decisions() == other.decisions() for one, other in zip(one_by_one, batched, strict=True)
        ),
        coreml_coverage=covered,
        sessions=sessions,
    )


def _traces(sessions: Sessions, tokens: Tokens, policy: Policy, batch_size: int) -> list[Trace]:
    """In the order of the rows; consecutive texts share a batch, so that different lengths are padded together."""
    rows = range(len(tokens.truncated))
    traces = []
    for start in rows[::batch_size]:
        batch = tokens.rows(rows[start : start + batch_size])
        traces += [outcome.trace for outcome in run_layout(sessions, batch, policy)]
    return traces


def _times(variants: list[Sessions], tokens: Tokens, policy: Policy, repeats: int) -> list[tuple[float, float]]:
    """Median milliseconds per text for each variant: under the policy, at full depth. They take turns on every text."""
    modes = [(sessions, mode) for sessions in variants for mode in (policy, policy.at_full_depth())]
    times_ms: list[list[float]] = [[] for _ in modes]
    for _ in range(repeats):
        for row in range(len(tokens.truncated)):
            text = tokens.rows([row])
            for number, (sessions, mode) in enumerate(modes):
                started = time.perf_counter()
                run_layout(sessions, text, mode)
                times_ms[number].append((time.perf_counter() - started) * 1000.0)
    medians = [statistics.median(times) for times in times_ms]
    return list(zip(medians[::2], medians[1::2], strict=True))


def _print(
    checkpoint: Path,
    rows: list[LayoutFigures],
    times: list[tuple[float, float]],
    tokens: Tokens,
    repeats: int,
    target: str,
    fixed_shape: str,
) -> None:
    print(
        "| layout | precision | graphs, MB | export, s | parts left fp32 | largest logit difference | labels equal "
        "| exits equal | by itself and in a batch: decisions, logits | ms per text: policy, full depth "
        f"| CoreML coverage at {fixed_shape} |"
    )
    print("|---" * 11 + "|")
    for row, (quick, full) in zip(rows, times, strict=True):
        batch = "one text per call" if row.layout == SINGLE else f"{row.same_in_batch:.2%}, {row.batch_difference:.0e}"
        print(
            f"| {row.layout} | {row.precision} | {row.graphs_mb:.1f} | {row.seconds:.0f} | {row.refused} "
            f"| {row.largest:.1e} | {row.labels:.2%} | {row.exits:.2%} | {batch} | {quick:.2f}, {full:.2f} "
            f"| {row.coreml_coverage} |"
        )
    lengths = tokens.attention_mask_bs.sum(axis=1)
    print(
        f"\n{checkpoint.name}: {len(lengths)} texts of {lengths.mean():.1f} tokens on average; against PyTorch; "
        f"batches of {BATCH_SIZE} consecutive texts; times without tokenizing, medians of {repeats} passes in turns, "
        f"int8 for {target}; {conditions_line(rows[0].sessions.threads)}"
    )


if __name__ == "__main__":
    run_command(make_table)
