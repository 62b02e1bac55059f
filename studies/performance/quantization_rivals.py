"""python -m studies.performance.quantization_rivals: our int8 layers against onnxruntime's other 8-bit schemes.

A checkpoint at full depth, its embeddings and last exit head in fp32: labels on real texts, how much the other texts
of a batch change an answer, size, and time in turns.
"""

from __future__ import annotations

import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import onnxruntime
import typer
from numpy.typing import NDArray

from smartbert.activations.ranges import ActivationRanges, read_ranges
from smartbert.library_logging import quiet_libraries
from smartbert_export.library_output import own_logging, quiet_logger
from smartbert_export.options import ExportOptions
from smartbert_export.package import export_package
from smartbert_export.parity.probes import cut_stream
from smartbert_export.parts.signatures import Part
from smartbert_export.precisions import INT8, STATIC_CLIPPED
from smartbert_export.quantize.activation_scales import part_scales
from smartbert_export.quantize.quantized_graph import BLOCK, quantized
from smartbert_runtime.cli.command import run_command
from smartbert_runtime.package.open import open_package
from smartbert_runtime.package.part_names import LAYER, role_and_layer
from smartbert_runtime.sessions.providers import CPU
from smartbert_runtime.sessions.threads import available_threads, session_options
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.examples import read_examples
from smartbert_runtime.tokenizer import Tokenizer, Tokens
from studies.performance.append_record import conditions_line

BATCH_SIZE = 32
SHAPES = ((1, 16), (1, 128), (8, 32))


def compare_schemes(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="Checkpoint folder.")],
    file: Annotated[Path, typer.Option(help="Real texts, preferably a dev set.")],
    target: Annotated[str, typer.Option(help="Processor that our int8 is for.")] = "x86-vnni",
    repeats: Annotated[int, typer.Option(help="Runs of each shape; the median counts.")] = 30,
) -> None:
    """Quantize every layer in every scheme and print a Markdown table with its conditions."""
    quiet_libraries()
    examples = read_examples(file, Columns())
    with tempfile.TemporaryDirectory() as temporary:
        out, work = Path(temporary) / "out", Path(temporary) / "work"
        export_package(checkpoint, out, ExportOptions())
        package = open_package(out)
        tokens = Tokenizer.from_package(package).encode(examples.texts, examples.pairs)
        layers = [f"layer_{layer:02d}" for layer in range(1, package.manifest.model.layers + 1)]
        schemes: dict[str, Callable[[Path, Path], None]] = {
            "fp32": lambda source, file: _save(onnx.load(source), file),
            "int8, per-token scale (ours)": lambda source, file: _save(
                quantized(onnx.load(source), INT8, target), file
            ),
            "quantize_dynamic, per channel": _dynamic,
            "MatMulNBits, 8 bits": _eight_bits,
        }
        if (ranges := read_ranges(checkpoint)) is not None:
            schemes["int8, fixed scales (ours)"] = functools.partial(_static, ranges, target)
        chains = {}
        for number, (name, scheme) in enumerate(schemes.items()):
            print(name, file=sys.stderr, flush=True)
            folder = work / str(number)
            folder.mkdir(parents=True)
            for layer in layers:
                scheme(out / "graphs" / f"{layer}.onnx", folder / f"{layer}.onnx")
            chains[name] = _Chain(out / "graphs", folder, layers)
        shapes = [(batch, min(length, package.manifest.model.max_length)) for batch, length in SHAPES]
        _print(checkpoint, chains, tokens, shapes, repeats, target)


def _save(model: onnx.ModelProto, file: Path) -> None:
    file.write_bytes(model.SerializeToString())


def _static(ranges: ActivationRanges, target: str, source: Path, file: Path) -> None:
    model = onnx.load(source)
    part = Part(name=source.stem, role=LAYER, kind=LAYER, index=role_and_layer(source.stem)[1])
    scales = part_scales(model.graph, part, ranges, STATIC_CLIPPED)
    _save(quantized(model, INT8, target, scales=scales), file)


def _dynamic(source: Path, file: Path) -> None:
    with own_logging():
        from onnxruntime.quantization import quantize_dynamic
    with quiet_logger("root"):  # it recommends pre-processing, which changes nothing in these graphs
        quantize_dynamic(source, file, per_channel=True)


def _eight_bits(source: Path, file: Path) -> None:
    with own_logging():
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
    config = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, accuracy_level=4, bits=8)
    with quiet_logger("onnxruntime.quantization.matmul_nbits_quantizer"):
        quantizer = MatMulNBitsQuantizer(onnx.load(source), algo_config=config)
        quantizer.process()
    _save(quantizer.model.model, file)


class _Chain:
    """Embeddings and the last exit head in fp32, the layers between them in one scheme."""

    def __init__(self, exact: Path, folder: Path, layers: list[str]) -> None:
        files = [exact / "embeddings.onnx", *(folder / f"{layer}.onnx" for layer in layers)]
        files.append(exact / f"exit_{len(layers):02d}.onnx")
        options = session_options(available_threads())
        self._sessions = [onnxruntime.InferenceSession(str(file), options, providers=[CPU]) for file in files]
        self.mb = sum(file.stat().st_size for file in files[1:-1]) / 1e6

    def run(self, tokens: Tokens) -> NDArray[np.float32]:
        embeddings, *layers, head = self._sessions
        hidden_bsh, mask_b11s = embeddings.run(None, tokens.feeds())
        for layer in layers:
            (hidden_bsh,) = layer.run(None, {"hidden": hidden_bsh, "mask": mask_b11s})
        logits_bc: NDArray[np.float32] = head.run(None, {"hidden": hidden_bsh, "mask": mask_b11s})[0]
        return logits_bc

    def all_logits(self, tokens: Tokens, batch_size: int) -> NDArray[np.float32]:
        """In the order of the texts; consecutive texts share a batch, so that different lengths are padded together."""
        rows = range(len(tokens.truncated))
        return np.concatenate([self.run(tokens.rows(rows[at : at + batch_size])) for at in rows[::batch_size]])


def _print(
    checkpoint: Path,
    chains: dict[str, _Chain],
    tokens: Tokens,
    shapes: list[tuple[int, int]],
    repeats: int,
    target: str,
) -> None:
    times = _times(chains, tokens, shapes, repeats)
    shape_columns = " | ".join(f"{batch} x {length}, ms" for batch, length in shapes)
    print(
        f"| layers | MB | labels equal, one by one | in batches of {BATCH_SIZE} | one by one against batches "
        f"| {shape_columns} |"
    )
    print("|---" * (5 + len(shapes)) + "|")
    exact = chains["fp32"].all_logits(tokens, 1).argmax(axis=1)
    for name, chain in chains.items():
        one_by_one, batched = chain.all_logits(tokens, 1), chain.all_logits(tokens, BATCH_SIZE)
        labels = [f"{(logits.argmax(axis=1) == exact).mean():.2%}" for logits in (one_by_one, batched)]
        medians = " | ".join(
            f"{statistics.median(times[name][shape]):.2f} "
            f"({statistics.median(times['fp32'][shape]) / statistics.median(times[name][shape]):.2f}x)"
            for shape in shapes
        )
        print(
            f"| {name} | {chain.mb:.1f} | {' | '.join(labels)} | {np.abs(one_by_one - batched).max():.1e} | {medians} |"
        )
    print(
        f"\n{checkpoint.name}: {len(exact)} texts; full depth, embeddings and last exit head in fp32; batch x tokens, "
        f"medians of {repeats} runs in turns, in brackets fp32's time over it; our int8 for {target}; "
        f"{conditions_line(available_threads())}"
    )


def _times(
    chains: dict[str, _Chain], tokens: Tokens, shapes: list[tuple[int, int]], repeats: int
) -> dict[str, dict[tuple[int, int], list[float]]]:
    """Milliseconds of every run; the schemes take turns on the texts' own tokens, cut to each shape."""
    batches = {shape: cut_stream(tokens, [shape[1]] * shape[0]) for shape in shapes}
    times: dict[str, dict[tuple[int, int], list[float]]] = {name: {shape: [] for shape in shapes} for name in chains}
    for repeat in range(repeats + 2):
        for shape, batch in batches.items():
            for name, chain in chains.items():
                started = time.perf_counter()
                chain.run(batch)
                if repeat >= 2:  # the first ones warm up
                    times[name][shape].append((time.perf_counter() - started) * 1000.0)
    return times


if __name__ == "__main__":
    run_command(compare_schemes)
