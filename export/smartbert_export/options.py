"""What to export: which graphs, for which processor, and what travels with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from smartbert_export.graphs.tracing import OPSET, OPSETS
from smartbert_export.parts.signatures import LAYOUTS
from smartbert_export.precisions import FP32, PRECISIONS, WEIGHT_RANGE
from smartbert_runtime.errors import ConfigError
from smartbert_runtime.package.manifest import SEPARATE, SINGLE, Variant

DEFAULT_TARGET = "x86"


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """Which graphs to write; the first layout in the first precision is the package's default.

    fixed_shape: batch and tokens that every graph is made for; None leaves both dynamic.
    ort_format: onnxruntime's own file format, which reduced builds need, instead of ONNX.
    target: the processor that int8 is for; x86 is correct on every one.
    opset: ONNX operator set of the graphs.
    """

    layouts: tuple[str, ...] = (SEPARATE,)
    precisions: tuple[str, ...] = (FP32,)
    fixed_shape: tuple[int, int] | None = None
    ort_format: bool = False
    target: str = DEFAULT_TARGET
    opset: int = OPSET

    def __post_init__(self) -> None:
        for given, known, what in (
            (self.layouts, LAYOUTS, "layout"),
            (self.precisions, PRECISIONS, "precision"),
            ((self.target,), tuple(WEIGHT_RANGE), "target"),
        ):
            for name in given:
                if name not in known:
                    raise ConfigError(f"unknown {what} {name!r}", hint="known: " + ", ".join(known))
            if not given or len(set(given)) < len(given):
                raise ConfigError(f"a {what} must be named, and only once", hint="known: " + ", ".join(known))
        if self.opset not in OPSETS:
            raise ConfigError(f"unsupported opset {self.opset}", hint="supported: " + ", ".join(map(str, OPSETS)))
        if self.fixed_shape is not None and (self.fixed_shape[0] < 1 or self.fixed_shape[1] < 2):
            raise ConfigError(
                f"a fixed shape of {self.fixed_shape[0]},{self.fixed_shape[1]} holds no text",
                hint="give a batch of 1 or more and 2 tokens or more, such as --fixed-shape 1,64",
            )
        if self.fixed_shape is not None and SINGLE in self.layouts and self.fixed_shape[0] != 1:
            raise ConfigError(
                f"the layout 'single' takes one text a call, not batches of {self.fixed_shape[0]}",
                hint=f"give --fixed-shape 1,{self.fixed_shape[1]}, or leave out --layout single",
            )

    def max_length(self, longest: int) -> int:
        """Tokens of the longest input of a model that takes up to `longest`; ConfigError for a longer fixed shape."""
        if self.fixed_shape is None:
            return longest
        batch, length = self.fixed_shape
        if length > longest:
            raise ConfigError(
                f"a fixed shape of {length} tokens is longer than the model's {longest}",
                hint=f"give --fixed-shape {batch},{longest} or shorter",
            )
        return length

    def variants(self) -> tuple[Variant, ...]:
        """Every layout in every precision, the default first."""
        return tuple(
            Variant(name=f"{layout}-{precision}", layout=layout, precision=precision)
            for layout in self.layouts
            for precision in self.precisions
        )


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export. golden_file replaces the checkpoint's golden texts; golden_texts=False ships token ids only.

    gates: false leaves a model's gates out; it then skips no layer.
    check_file: texts that decide which parts are quantized (500 or more), preferably labeled; None: those that training
    kept in the checkpoint, or texts made of the golden ones.
    scales_file: texts from which the scales of int8 activations are chosen (256 or more); None: the ranges that
    training recorded in the checkpoint.
    license: the package's license, for SUMMARY.md and the manifest; preferably an SPDX identifier.
    """

    graphs: GraphOptions = field(default_factory=GraphOptions)
    golden_file: Path | None = None
    golden_texts: bool = True
    gates: bool = True
    check_file: Path | None = None
    scales_file: Path | None = None
    license: str | None = None
    overwrite: bool = False
