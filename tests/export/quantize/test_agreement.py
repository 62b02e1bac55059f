"""By which scheme parts are quantized: one that loses too much accuracy gets the next, at last fp32."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_export.graphs.cut import CutParts, cut_parts
from smartbert_export.parts.signatures import parts
from smartbert_export.quantize.agreement import (
    ALONE,
    MAX_LOSS_ALONE,
    MAX_LOSS_TOGETHER,
    TOGETHER,
    Candidates,
    QuantizationReport,
    check_quantized,
    scheme_folder,
)
from smartbert_export.quantize.check_texts import CheckTexts, recombine
from smartbert_runtime import SmartBert
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.batch import run_batch
from smartbert_runtime.tokenizer import Tokens
from tests.conftest import LAYERS, SENTENCES

POLICY = Policy(exit_threshold=0.5)
ONE, OTHER, LAST = "one", "other, clipped", "last"


@dataclass
class Trial:
    """fp32 graphs, and copies of them as candidates of each scheme, which a test may damage.

    `check` tries only the first scheme unless `ranks` names others.
    """

    cut: CutParts
    folder: Path
    tokens: Tokens

    @property
    def candidate(self) -> Path:
        return self.folder / ONE

    def check(
        self,
        layout: str = "separate",
        tokens: Tokens | None = None,
        policy: Policy = POLICY,
        *,
        labels: NDArray[np.int64] | None = None,
        ranks: tuple[tuple[str, ...], ...] = ((ONE,),),
    ) -> QuantizationReport:
        chosen = list(parts(self.cut.config, layout))
        return check_quantized(
            self.cut,
            Candidates(self.folder, {part.name: ranks for part in chosen}),
            chosen,
            CheckTexts(tokens=tokens or self.tokens, label_ids_r=labels),
            policy,
            precision="int8",
            fused=layout != "separate",
        )

    def damage(
        self,
        part: str,
        weight: str,
        change: Callable[[NDArray[np.float32]], NDArray[np.float32]],
        scheme: str = ONE,
    ) -> None:
        file = self.folder / scheme_folder(scheme) / f"{part}.onnx"
        model = onnx.load_model_from_string(file.read_bytes())
        (found,) = (tensor for tensor in model.graph.initializer if tensor.name == weight)
        found.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(found)).astype(np.float32), weight))
        file.write_bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def tokens(classifier: SmartBert) -> Tokens:
    texts, _ = recombine(SENTENCES, None, 120)
    return classifier.tokenizer.encode(texts)


@pytest.fixture
def trial(cut: CutParts, tmp_path: Path, tokens: Tokens) -> Trial:
    folder = tmp_path / "candidates"
    for scheme in (ONE, OTHER, LAST):
        shutil.copytree(cut.folder, folder / scheme_folder(scheme))
    return Trial(cut=cut, folder=folder, tokens=tokens)


def refused(report: QuantizationReport) -> list[str]:
    return list(report.refused)


@pytest.mark.parametrize("layout", ["separate", "fused"])
def test_equal_parts_are_all_kept(trial: Trial, layout: str) -> None:
    report = trial.check(layout)
    assert (report.precision, report.texts, report.refused) == ("int8", len(trial.tokens.truncated), {})
    assert list(report.alone) == [part.name for part in parts(trial.cut.config, layout)]
    assert report.schemes == dict.fromkeys(report.alone, ONE)
    for agreement in (*report.alone.values(), report.together):
        assert (agreement.labels, agreement.exit_layers, agreement.loss.mean) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("layout", "part", "other"),
    [
        ("separate", "layer_03", "layer_02"),
        ("separate", "exit_02", "exit_03"),
        ("separate", "gate_01", "gate_03"),
        ("fused", "block_03", "block_02"),
        ("fused", "exit_04", None),
        ("separate", "exit_04", "exit_01"),
    ],
)
def test_wrong_part_is_refused(trial: Trial, layout: str, part: str, other: str | None) -> None:
    shutil.copy(trial.cut.folder / f"{other or 'exit_04'}.onnx", trial.candidate / f"{part}.onnx")
    if other is None:
        trial.damage(part, "classify.weight", np.zeros_like)
    report = trial.check(layout)
    assert report.refused == {part: ALONE} and part not in report.schemes
    assert report.alone[part].loss.lower > MAX_LOSS_ALONE
    others = {name: found.labels for name, found in report.alone.items() if name != part}
    assert set(others.values()) == {1.0}
    assert (report.together.labels, report.together.exit_layers) == (1.0, 1.0), "a refused part stays fp32"


@pytest.mark.parametrize(
    ("part", "weight"),
    [
        ("embeddings", "embeddings.word_embeddings.weight"),
        ("layer_01", "layer.output.dense.weight"),
        ("exit_01", "classify.weight"),
    ],
)
def test_zeroed_weights_are_refused(trial: Trial, part: str, weight: str) -> None:
    trial.damage(part, weight, np.zeros_like)
    assert refused(trial.check()) == [part]


def test_two_damaged_parts(trial: Trial) -> None:
    trial.damage("layer_02", "layer.output.dense.weight", np.zeros_like)
    trial.damage("exit_03", "classify.weight", np.zeros_like)
    report = trial.check()
    assert refused(report) == ["layer_02", "exit_03"]
    assert report.together.labels == 1.0


def test_unreached_head_is_refused(trial: Trial) -> None:
    """Other thresholds would evaluate it: the agreement counts its own labels on all texts."""
    trial.damage("exit_01", "classify.weight", np.negative)
    report = trial.check(policy=Policy(no_exit=True))
    assert refused(report) == ["exit_01"] and report.alone["exit_01"].exit_layers == 1.0


def test_damaged_gate(trial: Trial) -> None:
    """Its part changes labels and exits under the policy, though it is not evaluated at full depth."""
    trial.damage("gate_02", "read.take.0.bias", lambda bias: bias + 100.0)
    found = trial.check().alone["gate_02"]
    assert found.loss.lower > MAX_LOSS_ALONE and found.exit_layers < 1.0
    trial.damage("gate_02", "read.take.0.bias", lambda bias: bias - 100.0)
    assert refused(trial.check()) == []


class Folder:
    """`engine.Parts` over a folder of graphs, some names taken from another folder."""

    def __init__(self, folder: Path, damaged: Mapping[str, Path]) -> None:
        self._folder, self._damaged = folder, damaged
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def run(self, part: str, feeds: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.float32]]:
        if part not in self._sessions:
            file = self._damaged.get(part, self._folder) / f"{part}.onnx"
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self._sessions[part] = onnxruntime.InferenceSession(str(file), options)
        outputs: list[NDArray[np.float32]] = self._sessions[part].run(None, feeds)
        return outputs


@pytest.mark.parametrize("layer", [2, 3])
def test_exit_agreement_of_damaged_head(trial: Trial, layer: int) -> None:
    """A head that is never sure exits no text, and changes nothing for texts that exit before or after it."""
    fp32 = run_batch(Folder(trial.cut.folder, {}), trial.tokens, POLICY, layers=LAYERS, classes=3)
    leave_here = np.mean([outcome.trace.exit_layer == layer for outcome in fp32])
    assert leave_here > 0
    for weight in ("classify.weight", "classify.bias"):
        trial.damage(f"exit_{layer:02d}", weight, np.zeros_like)
    agreements = trial.check().alone
    assert agreements[f"exit_{layer:02d}"].exit_layers == pytest.approx(1.0 - leave_here)
    assert {found.exit_layers for part, found in agreements.items() if part != f"exit_{layer:02d}"} == {1.0}


def head_labels(folder: Folder, tokens: Tokens) -> NDArray[np.int64]:
    """Every head's label for every text at full depth: (layers, texts)."""
    state, mask = folder.run("embeddings", tokens.feeds())
    labels = []
    for layer in range(1, LAYERS + 1):
        (state,) = folder.run(f"layer_{layer:02d}", {"hidden": state, "mask": mask})
        (logits_bc,) = folder.run(f"exit_{layer:02d}", {"hidden": state, "mask": mask})
        labels.append(logits_bc.argmax(axis=1))
    return np.stack(labels)


def test_worst_is_refused_when_together_fails(trial: Trial, classifier: SmartBert) -> None:
    """Of 220 picked texts, layer 2 changes two labels, all layers six, all but layer 2 none.

    Two of 220 are not beyond doubt more than the tolerance, six are. What fp32 answers counts as right.
    """
    texts, _ = recombine(SENTENCES, None, 552)
    tokens = classifier.tokenizer.encode(texts)
    layers = [f"layer_{layer:02d}" for layer in range(1, LAYERS + 1)]
    for part in layers:
        trial.damage(part, "layer.output.dense.weight", lambda weight: weight * 0.7)
    exact_lb = head_labels(Folder(trial.cut.folder, {}), tokens)

    def turned(damaged: list[str]) -> NDArray[np.bool_]:
        labels_lb = head_labels(Folder(trial.cut.folder, dict.fromkeys(damaged, trial.candidate)), tokens)
        return np.not_equal(labels_lb, exact_lb)

    # Of a layer's own, its head's labels and the last one's count.
    alone = {part: turned([part])[[number, -1]].any(axis=0) for number, part in enumerate(layers)}
    by_one = np.stack(list(alone.values())).any(axis=0)
    by_all, by_the_rest = turned(layers)[-1], turned([part for part in layers if part != "layer_02"])[-1]
    by_layer_2 = alone["layer_02"] & ~np.stack([alone[p] for p in layers if p != "layer_02"]).any(axis=0)
    rows = [
        *np.flatnonzero(by_layer_2 & by_all & ~by_the_rest)[:2],
        *np.flatnonzero(~by_one & by_all & ~by_the_rest)[:4],
        *np.flatnonzero(~by_one & ~by_all & ~by_the_rest)[:214],
    ]
    assert len(rows) == 220, "the damage is too little or too much for this test"

    report = trial.check(
        tokens=tokens.rows([int(row) for row in rows]), policy=POLICY.at_full_depth(), labels=exact_lb[-1][rows]
    )
    assert [report.alone[part].labels for part in layers] == [1.0, 218 / 220, 1.0, 1.0]
    assert report.refused == {"layer_02": TOGETHER} and report.labeled
    assert report.alone["layer_02"].loss.lower <= MAX_LOSS_ALONE
    assert report.together.loss.upper > MAX_LOSS_TOGETHER > report.together.loss.mean
    assert report.together.labels == 1.0, "together is the agreement of the parts that are kept"


def test_parts_of_fixed_shape(trial: Trial, model: SmartBertForSequenceClassification, tmp_path: Path) -> None:
    """Batches are padded and split, as the runtime does it: graphs for 2 texts of 24 tokens decide as dynamic ones."""
    fixed_cut = cut_parts(model, tmp_path / "cut", ("fused",), fixed_shape=(2, 24))
    chosen = list(parts(model.config, "fused"))
    candidates = Candidates(tmp_path / "fixed", {part.name: ((ONE,),) for part in chosen})
    shutil.copytree(fixed_cut.folder, candidates.folder / ONE)
    shutil.copy(fixed_cut.folder / "block_02.onnx", candidates.folder / ONE / "block_03.onnx")
    texts = CheckTexts(tokens=trial.tokens)
    fixed = check_quantized(fixed_cut, candidates, chosen, texts, POLICY, precision="int8", fused=True)
    shutil.copy(trial.cut.folder / "block_02.onnx", trial.candidate / "block_03.onnx")
    assert fixed == trial.check("fused")
    assert list(fixed.refused) == ["block_03"]


def test_smallest_error_is_chosen(trial: Trial) -> None:
    """Of schemes of one rank; both would pass."""
    for part, scheme in (("layer_01", ONE), ("layer_02", OTHER)):
        trial.damage(part, "layer.output.dense.weight", lambda weight: weight * 1.001, scheme)
    report = trial.check(ranks=((ONE, OTHER), (LAST,)))
    assert report.refused == {}
    assert (report.schemes["layer_01"], report.schemes["layer_02"]) == (OTHER, ONE)
    assert report.alone["layer_01"].scheme == OTHER


def test_failed_scheme_is_followed_by_the_next(trial: Trial) -> None:
    trial.damage("layer_02", "layer.output.dense.weight", np.zeros_like)
    trial.damage("layer_02", "layer.output.dense.weight", np.zeros_like, OTHER)
    trial.damage("layer_03", "layer.output.dense.weight", np.zeros_like)
    report = trial.check(ranks=((ONE, OTHER), (LAST,)))
    assert report.refused == {}
    assert (report.schemes["layer_01"], report.schemes["layer_02"], report.schemes["layer_03"]) == (ONE, LAST, OTHER)
    assert report.alone["layer_02"].loss.mean == 0.0, "what is reported is the scheme that was chosen"


def test_refused_when_every_scheme_fails(trial: Trial) -> None:
    for scheme in (ONE, OTHER, LAST):
        trial.damage("layer_02", "layer.output.dense.weight", np.zeros_like, scheme)
    report = trial.check(ranks=((ONE, OTHER), (LAST,)))
    assert report.refused == {"layer_02": ALONE} and report.alone["layer_02"].scheme == LAST


def test_known_parts_are_not_compared_again(trial: Trial) -> None:
    """Of another layout: a part that was refused there stays refused."""
    trial.damage("gate_02", "read.take.0.bias", lambda bias: bias + 100.0)
    first = trial.check()
    chosen = list(parts(trial.cut.config, "fused"))
    again = check_quantized(
        trial.cut,
        Candidates(trial.folder, {part.name: ((ONE,),) for part in chosen}),
        chosen,
        CheckTexts(tokens=trial.tokens),
        POLICY,
        precision="int8",
        fused=True,
        known={name: found for name, found in first.alone.items() if name in {part.name for part in chosen}},
    )
    assert again.refused == {"gate_02": ALONE} and again.alone["gate_02"] is first.alone["gate_02"]
    assert again.together.labels == 1.0


def test_labels_weigh_otherwise_than_probabilities(trial: Trial) -> None:
    """A part that changes answers loses nothing where both are wrong."""
    trial.damage("exit_04", "classify.weight", lambda weight: weight[[1, 0, 2]])
    rows = len(trial.tokens.truncated)
    exact_lb = head_labels(Folder(trial.cut.folder, {}), trial.tokens)
    neither = np.full(rows, 2)
    changed = exact_lb[-1] != 2
    assert changed.mean() > 0.1
    report = trial.check(policy=POLICY.at_full_depth(), labels=neither)
    assert report.alone["exit_04"].loss.mean == 0.0 and report.alone["exit_04"].labels < 0.9
    assert refused(trial.check(policy=POLICY.at_full_depth())) == ["exit_04"]
