"""What quantizing costs: each part alone, then all together, against fp32 on the same texts.

Agreement of a part is counted under the package's policy, and of the exit head that reads it over all texts, also those
that would have left before; of all parts together under the policy and at full depth. The least counts. Speed never
decides what is exported.
Shape letters: b batch, s sequence, h hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from smartbert_export.parts.signatures import Part
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.batch import run_batch
from smartbert_runtime.engine.parts import Outcome
from smartbert_runtime.sessions.providers import CPU
from smartbert_runtime.sessions.threads import available_threads, session_options
from smartbert_runtime.tokenizer import Tokens

# Labels equal to fp32's: with one part quantized, and with all of them.
ALONE, TOGETHER = 0.99, 0.98
TEXTS = 500
BATCH_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Shares of the texts that keep their label, and that leave at the same exit under the policy."""

    labels: float
    exit_layers: float


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A part that stays fp32, and the agreement that was not enough."""

    part: str
    why: str
    agreement: Agreement


@dataclass(frozen=True, kw_only=True)
class QuantizationReport:
    """One precision: each part alone, what was refused, and the rest together."""

    precision: str
    texts: int
    alone: Mapping[str, Agreement]
    refused: tuple[Refusal, ...]
    together: Agreement


def check_quantized(
    parts: Sequence[Part],
    exact: Path,
    candidate: Path,
    tokens: Tokens,
    policy: Policy,
    *,
    precision: str,
    classes: int,
    fused: bool,
    known: Mapping[str, Agreement] = MappingProxyType({}),
    say: Callable[[str], None] = lambda step: None,
) -> QuantizationReport:
    """Decide which parts of one layout may be quantized.

    exact, candidate: folders with NAME.onnx of every part, in fp32 and quantized. tokens: the texts to decide on.
    known: what was found of parts that another layout has too.
    """
    layers = max(part.index for part in parts)
    heads = {part.index for part in parts if part.role == "exit"}
    sessions = _Sessions(exact), _Sessions(candidate)
    counts = {part.name: _Count() for part in parts if part.name not in known}
    chunks = list(_chunks(tokens))
    references = []
    for number, chunk in enumerate(chunks, start=1):
        say(f"trying {precision} on texts, batch {number} of {len(chunks)}")
        reference = _Reference(_Mixed(*sessions), chunk, policy, layers, classes, fused, heads)
        references.append(reference.outcomes)
        for part in parts:
            if part.name in known:
                continue
            counts[part.name].add(*reference.compare(_Mixed(*sessions, {part.name}), part))
    alone = {name: count.agreement() for name, count in counts.items()} | dict(known)
    refused = [
        Refusal(part=name, why=f"alone under {ALONE:.0%}", agreement=found)
        for name, found in alone.items()
        if found.labels < ALONE
    ]
    while True:
        kept = {part.name for part in parts} - {refusal.part for refusal in refused}
        mixed = _Mixed(*sessions, kept)
        count = _Count()
        for chunk, outcomes in zip(chunks, references, strict=True):
            count.add(*_outcomes(mixed, chunk, policy, layers, classes, fused).compare(outcomes))
        together = count.agreement()
        if together.labels >= TOGETHER or not kept:
            break
        worst = min(kept, key=lambda name: (alone[name].labels, name))
        refused.append(Refusal(part=worst, why=f"together under {TOGETHER:.0%}", agreement=alone[worst]))
    return QuantizationReport(
        precision=precision,
        texts=len(tokens.truncated),
        alone=alone,
        refused=tuple(refused),
        together=together,
    )


def _chunks(tokens: Tokens) -> list[Tokens]:
    order = np.argsort(tokens.attention_mask_bs.sum(axis=1), kind="stable").tolist()
    return [tokens.rows(order[start : start + BATCH_SIZE]) for start in range(0, len(order), BATCH_SIZE)]


class _Count:
    """Texts that agree, counted in every way of comparing them."""

    def __init__(self) -> None:
        self.labels: list[NDArray[np.bool_]] = []
        self.exits: list[NDArray[np.bool_]] = []

    def add(self, labels: Sequence[NDArray[np.bool_]], exits: NDArray[np.bool_]) -> None:
        """labels: one array of texts for each way."""
        self.labels.append(np.stack(labels))
        self.exits.append(exits)

    def agreement(self) -> Agreement:
        """The least over the ways."""
        labels = np.concatenate(self.labels, axis=1).mean(axis=1).min()
        return Agreement(labels=float(labels), exit_layers=float(np.concatenate(self.exits).mean()))


@dataclass(frozen=True, kw_only=True)
class _Outcomes:
    """Of a batch: labels and exit layers under the policy, labels at full depth."""

    labels_b: NDArray[np.int64]
    exit_layers_b: NDArray[np.int64]
    full_labels_b: NDArray[np.int64]

    @classmethod
    def of(cls, quick: Sequence[Outcome], full_labels_b: NDArray[np.int64]) -> _Outcomes:
        """From the outcomes under the policy, and the labels at full depth."""
        return cls(
            labels_b=np.array([outcome.trace.logits_c.argmax() for outcome in quick]),
            exit_layers_b=np.array([outcome.trace.exit_layer for outcome in quick]),
            full_labels_b=full_labels_b,
        )

    def compare(self, other: _Outcomes) -> tuple[list[NDArray[np.bool_]], NDArray[np.bool_]]:
        """Equal labels in both ways, equal exits."""
        labels = [self.labels_b == other.labels_b, self.full_labels_b == other.full_labels_b]
        return labels, self.exit_layers_b == other.exit_layers_b


def _outcomes(parts: _Mixed, tokens: Tokens, policy: Policy, layers: int, classes: int, fused: bool) -> _Outcomes:
    quick = run_batch(parts, tokens, policy, layers=layers, classes=classes, fused=fused)
    full = run_batch(parts, tokens, policy.at_full_depth(), layers=layers, classes=classes, fused=fused)
    return _Outcomes.of(quick, np.array([outcome.trace.logits_c.argmax() for outcome in full]))


class _Reference:
    """fp32's way through all layers for one batch, from any point of which a quantized part can be tried."""

    def __init__(
        self,
        parts: _Mixed,
        tokens: Tokens,
        policy: Policy,
        layers: int,
        classes: int,
        fused: bool,
        heads: Collection[int],
    ) -> None:
        self.tokens, self.policy, self.layers, self.classes, self.fused = tokens, policy, layers, classes, fused
        self.heads = heads  # of the layout `separate`: after which layers there is an exit head
        hidden_bsh, self.mask_b11s = parts.run("embeddings", tokens.feeds())
        self.hidden = [hidden_bsh]
        self.head_labels: list[NDArray[np.int64] | None] = []  # None where no head follows
        for layer in range(1, layers + 1):
            hidden_bsh, logits_bc = self._layer(parts, layer, hidden_bsh)
            self.hidden.append(hidden_bsh)
            self.head_labels.append(None if logits_bc is None else logits_bc.argmax(axis=1))
        quick = run_batch(parts, tokens, policy, layers=layers, classes=classes, fused=fused)
        assert self.head_labels[-1] is not None  # every model has its last head
        self.outcomes = _Outcomes.of(quick, self.head_labels[-1])

    def compare(self, parts: _Mixed, part: Part) -> tuple[list[NDArray[np.bool_]], NDArray[np.bool_]]:
        """With `part` quantized in `parts`: equal labels in every way that it can change, equal exits."""
        labels_b, exits_b = self.outcomes.labels_b.copy(), self.outcomes.exit_layers_b.copy()
        # A text that has left before cannot tell the difference.
        rows = np.flatnonzero(exits_b >= part.index)
        if rows.size:
            run = run_batch(
                parts,
                self.tokens.rows(rows.tolist()),
                self.policy,
                layers=self.layers,
                classes=self.classes,
                fused=self.fused,
            )
            labels_b[rows] = [outcome.trace.logits_c.argmax() for outcome in run]
            exits_b[rows] = [outcome.trace.exit_layer for outcome in run]
        labels = [labels_b == self.outcomes.labels_b]
        if part.role != "gate" and self.head_labels[max(1, part.index) - 1] is not None:
            labels.append(self._own_head(parts, part))
        return labels, exits_b == self.outcomes.exit_layers_b

    def _own_head(self, parts: _Mixed, part: Part) -> NDArray[np.bool_]:
        """The exit head that reads the part's output, on all texts."""
        layer = max(1, part.index)
        if part.role == "exit":
            feeds = {"hidden": self.hidden[layer], "mask": self.mask_b11s}
            logits_bc: NDArray[np.float32] | None = parts.run(part.name, feeds)[0]
        else:
            first = part.role == "embeddings"
            hidden_bsh = parts.run("embeddings", self.tokens.feeds())[0] if first else self.hidden[layer - 1]
            logits_bc = self._layer(parts, layer, hidden_bsh)[1]
        assert logits_bc is not None  # asked only where a head follows
        agree: NDArray[np.bool_] = logits_bc.argmax(axis=1) == self.head_labels[layer - 1]
        return agree

    def _layer(
        self, parts: _Mixed, layer: int, hidden_bsh: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        feeds = {"hidden": hidden_bsh, "mask": self.mask_b11s}
        if self.fused:
            hidden_next_bsh, *told = parts.run(f"block_{layer:02d}", feeds)
            return hidden_next_bsh, told[0] if told else None
        (hidden_next_bsh,) = parts.run(f"layer_{layer:02d}", feeds)
        if layer not in self.heads:
            return hidden_next_bsh, None
        (logits_bc,) = parts.run(f"exit_{layer:02d}", {**feeds, "hidden": hidden_next_bsh})
        return hidden_next_bsh, logits_bc


class _Mixed:
    """`engine.Parts`: the parts in `names` quantized, all others fp32."""

    def __init__(self, exact: _Sessions, candidate: _Sessions, names: set[str] | None = None) -> None:
        self._exact, self._candidate, self._names = exact, candidate, names or set()

    def run(self, part: str, feeds: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.float32]]:
        return (self._candidate if part in self._names else self._exact).run(part, feeds)


class _Sessions:
    """A folder's graphs, each opened at its first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def run(self, part: str, feeds: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.float32]]:
        if part not in self._sessions:
            # No arena: a session's keeps what its largest batch needed.
            options = session_options(available_threads(), arena=False)
            self._sessions[part] = onnxruntime.InferenceSession(
                str(self._folder / f"{part}.onnx"), sess_options=options, providers=[CPU]
            )
        outputs: list[NDArray[np.float32]] = self._sessions[part].run(None, feeds)
        return outputs
