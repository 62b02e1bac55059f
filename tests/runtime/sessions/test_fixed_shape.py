"""sessions.fixed_shape: feeds are padded and split, outputs cut back, and answers match the dynamic parts."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from smartbert_runtime import Policy, SmartBert
from smartbert_runtime.engine.run import run_layout
from smartbert_runtime.errors import InputError, ManifestError
from smartbert_runtime.package.manifest import TensorSpec
from smartbert_runtime.package.open import open_package
from smartbert_runtime.parity.golden import read_golden
from smartbert_runtime.parity.verify import verify
from smartbert_runtime.sessions.fixed_shape import BATCH, MASKED, SEQUENCE, run_fixed
from smartbert_runtime.sessions.sessions import Sessions
from smartbert_runtime.trace import Trace
from tests.conftest import SENTENCES
from tests.helpers import edit_manifest, swap_files
from tests.package_folders import FIXED_SHAPE

BATCH_SIZE, LENGTH = FIXED_SHAPE

HIDDEN = TensorSpec(name="hidden", dtype="float32", dims=(BATCH, SEQUENCE, "2"))
MASK = TensorSpec(name="mask", dtype="float32", dims=(BATCH, "1", "1", SEQUENCE))
IDS = TensorSpec(name="input_ids", dtype="int64", dims=(BATCH, SEQUENCE))
ATTENTION = TensorSpec(name="attention_mask", dtype="int64", dims=(BATCH, SEQUENCE))
NEXT = TensorSpec(name="hidden_next", dtype="float32", dims=(BATCH, SEQUENCE, "2"))
LOGITS = TensorSpec(name="logits", dtype="float32", dims=(BATCH, "3"))

Feeds = Mapping[str, NDArray[np.generic]]


class Runner:
    """Records its feeds; its outputs are hidden * 10, and for each row its sum three times."""

    def __init__(self) -> None:
        self.fed: list[Feeds] = []

    def run(self, feeds: Feeds) -> list[NDArray[np.float32]]:
        self.fed.append(feeds)
        hidden_bsh = np.asarray(feeds["hidden"], dtype=np.float32)
        return [hidden_bsh * 10.0, np.repeat(hidden_bsh.sum(axis=(1, 2))[:, None], 3, axis=1)]

    def __call__(self, feeds: Feeds, shape: tuple[int, int]) -> list[NDArray[np.float32]]:
        return run_fixed(self.run, feeds, inputs=(HIDDEN, MASK), outputs=(NEXT, LOGITS), shape=shape)


def hidden_feeds(rows: int, length: int) -> dict[str, NDArray[np.generic]]:
    """Numbers that are all different, none of them 0, and a mask that hides nothing."""
    hidden_bsh = np.arange(1, rows * length * 2 + 1, dtype=np.float32).reshape(rows, length, 2)
    return {"hidden": hidden_bsh, "mask": np.zeros((rows, 1, 1, length), np.float32)}


def test_hidden_and_mask_are_padded() -> None:
    runner, feeds = Runner(), hidden_feeds(2, 3)
    runner(feeds, (4, 5))
    (fed,) = runner.fed
    assert {name: array.shape for name, array in fed.items()} == {"hidden": (4, 5, 2), "mask": (4, 1, 1, 5)}
    np.testing.assert_array_equal(fed["hidden"][:2, :3], feeds["hidden"])
    assert not fed["hidden"][2:].any() and not fed["hidden"][:, 3:].any()
    mask_bs = fed["mask"][:, 0, 0]
    assert not mask_bs[:2, :3].any()
    assert (mask_bs[2:] == MASKED).all() and (mask_bs[:, 3:] == MASKED).all()
    assert MASKED == -10000.0  # what the embeddings return for padding
    assert {array.dtype for array in fed.values()} == {np.dtype(np.float32)}


def test_ids_are_padded_with_zeros() -> None:
    fed: list[Feeds] = []

    def run(feeds: Feeds) -> list[NDArray[np.float32]]:
        fed.append(feeds)
        return [np.zeros((2, 4, 2), np.float32)]

    feeds = {"input_ids": np.full((1, 3), 7), "attention_mask": np.ones((1, 3), np.int64)}
    run_fixed(run, feeds, inputs=(IDS, ATTENTION), outputs=(HIDDEN,), shape=(2, 4))
    assert fed[0]["input_ids"].tolist() == [[7, 7, 7, 0], [0, 0, 0, 0]]
    assert fed[0]["attention_mask"].tolist() == [[1, 1, 1, 0], [0, 0, 0, 0]]
    assert {array.dtype for array in fed[0].values()} == {np.dtype(np.int64)}


@pytest.mark.parametrize(("rows", "calls"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_larger_batches_are_split(rows: int, calls: int) -> None:
    runner, feeds = Runner(), hidden_feeds(rows, 3)
    hidden_next_bsh, logits_bc = runner(feeds, (2, 4))
    assert len(runner.fed) == calls
    assert {call["hidden"].shape for call in runner.fed} == {(2, 4, 2)}
    hidden_bsh = np.asarray(feeds["hidden"], dtype=np.float32)
    np.testing.assert_array_equal(hidden_next_bsh, hidden_bsh * 10.0)
    np.testing.assert_array_equal(logits_bc[:, 2], hidden_bsh.sum(axis=(1, 2)))
    assert logits_bc.shape == (rows, 3)


def test_exact_shape_is_unchanged() -> None:
    runner, feeds = Runner(), hidden_feeds(2, 3)
    runner(feeds, (2, 3))
    for name, array in feeds.items():
        np.testing.assert_array_equal(runner.fed[0][name], array)


def test_feeds_are_not_modified() -> None:
    feeds = hidden_feeds(3, 2)
    Runner()(feeds, (2, 4))
    for name, array in hidden_feeds(3, 2).items():
        np.testing.assert_array_equal(feeds[name], array)


def test_scalars_are_kept() -> None:
    ids = TensorSpec(name="input_ids", dtype="int64", dims=("1", SEQUENCE))
    threshold = TensorSpec(name="exit_threshold", dtype="float32", dims=())
    outputs = (
        TensorSpec(name="logits", dtype="float32", dims=("1", "2")),
        TensorSpec(name="exit_layer", dtype="int64", dims=()),
        TensorSpec(name="layers_run", dtype="int64", dims=("4",)),
    )
    fed: list[Feeds] = []

    def run(feeds: Feeds) -> list[NDArray[np.float32]]:
        fed.append(feeds)
        return [np.array([[1.0, 2.0]], np.float32), np.array(3, np.float32), np.array([1, 0, 1, 0], np.float32)]

    feeds = {"input_ids": np.array([[5, 6]]), "exit_threshold": np.asarray(np.float32(0.25))}
    logits, exit_layer, layers_run = run_fixed(run, feeds, inputs=(ids, threshold), outputs=outputs, shape=(1, 3))
    assert [call["input_ids"].tolist() for call in fed] == [[[5, 6, 0]]]
    assert fed[0]["exit_threshold"].shape == () and float(fed[0]["exit_threshold"]) == 0.25
    assert fed[0]["exit_threshold"].dtype == np.float32
    assert logits.tolist() == [[1.0, 2.0]]
    assert int(exit_layer) == 3
    assert layers_run.tolist() == [1.0, 0.0, 1.0, 0.0]


def test_long_rows_are_refused() -> None:
    runner = Runner()
    with pytest.raises(InputError, match="a text of 6 tokens does not fit parts made for 5") as caught:
        runner(hidden_feeds(2, 6), (4, 5))
    assert "--fixed-shape" in caught.value.hint
    assert runner.fed == []


@pytest.mark.parametrize("shape", [[2], [2, 24, 1], [0, 24], [2, 12], [2, 25]], ids=str)
def test_bad_fixed_shape_in_manifest(package_copy: Path, shape: list[int]) -> None:
    edit_manifest(package_copy, lambda manifest: manifest["model"].update(fixed_shape=[2, 24]))
    assert open_package(package_copy).manifest.model.fixed_shape == (2, 24)
    edit_manifest(package_copy, lambda manifest: manifest["model"].update(fixed_shape=shape))
    with pytest.raises(ManifestError, match="is not batch and longest input"):
        open_package(package_copy)


# A real export


POLICIES = [
    Policy(exit_threshold=0.5),
    Policy(no_skip=True, no_exit=True),
    Policy(exit_threshold=0.8, skip_threshold=0.2, max_layers=2),
]


@pytest.fixture(scope="module", params=["separate", "fused"])
def fixed(request: pytest.FixtureRequest, fixed_dir: Path) -> SmartBert:
    return SmartBert.load(fixed_dir, layout=request.param)


def assert_same(found: list[Trace], expected: list[Trace]) -> None:
    assert [trace.decisions() for trace in found] == [trace.decisions() for trace in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.logits_c, other.logits_c, rtol=0, atol=1e-5)


def fitting(classifier: SmartBert) -> list[str]:
    """The sentences of 12 tokens at most, which the fixed shape does not cut."""
    lengths = classifier.tokenizer.encode(SENTENCES).attention_mask_bs.sum(axis=1)
    return [text for text, length in zip(SENTENCES, lengths, strict=True) if length <= LENGTH]


def test_graphs_have_no_dynamic_dimension(fixed: SmartBert) -> None:
    assert fixed.package.manifest.model.fixed_shape == FIXED_SHAPE
    assert fixed.package.manifest.model.max_length == LENGTH
    for component in fixed.package.manifest.in_variant(fixed.sessions.variant.name):
        session = fixed.sessions.open(component.name)
        shapes = [value.shape for value in (*session.get_inputs(), *session.get_outputs())]
        assert all(isinstance(size, int) for shape in shapes for size in shape), (component.name, shapes)


@pytest.mark.parametrize(
    ("batch_size", "policy"),
    [*((batch_size, POLICIES[0]) for batch_size in (1, 2, 5, 24)), *((5, policy) for policy in POLICIES[1:])],
)
def test_fixed_matches_dynamic(fixed: SmartBert, classifier: SmartBert, policy: Policy, batch_size: int) -> None:
    texts = fitting(classifier)
    assert 10 <= len(texts) < len(SENTENCES)
    found = fixed.classify(texts, policy=policy, batch_size=batch_size)
    expected = classifier.classify(texts, policy=policy)
    assert_same([one.trace for one in found], [other.trace for other in expected])
    assert [one.label for one in found] == [other.label for other in expected]
    assert not any(one.truncated for one in found)


def test_longer_texts_are_cut(fixed: SmartBert, classifier: SmartBert) -> None:
    tokens = fixed.tokenizer.encode(SENTENCES)
    expected = [outcome.trace for outcome in run_layout(classifier.sessions, tokens, POLICIES[0])]
    found = fixed.classify(SENTENCES, policy=POLICIES[0])
    assert_same([one.trace for one in found], expected)
    texts = fitting(classifier)
    assert [one.truncated for one in found] == [text not in texts for text in SENTENCES]


def test_no_truncate_refuses_long_text(fixed: SmartBert, classifier: SmartBert) -> None:
    assert fixed.classify(fitting(classifier), truncate=False)
    with pytest.raises(InputError, match=f"longer than the model's {LENGTH} tokens"):
        fixed.classify(SENTENCES, truncate=False)


def test_long_tokens_are_refused(fixed: SmartBert, classifier: SmartBert) -> None:
    with pytest.raises(InputError, match=f"does not fit parts made for {LENGTH}"):
        run_layout(fixed.sessions, classifier.tokenizer.encode(SENTENCES), POLICIES[0])


def test_fixed_single_matches_dynamic(fixed_single_dir: Path, classifier: SmartBert) -> None:
    model = SmartBert.load(fixed_single_dir)
    assert (model.sessions.variant.layout, model.package.manifest.model.fixed_shape) == ("single", (1, LENGTH))
    texts = fitting(classifier)
    for policy in POLICIES[:2]:
        found = model.classify(texts, policy=policy)
        assert_same([one.trace for one in found], [one.trace for one in classifier.classify(texts, policy=policy)])


def test_verify_fixed_package(fixed_dir: Path) -> None:
    package = open_package(fixed_dir)
    golden = read_golden(package)
    assert {len(probe.tokens.truncated) for probe in golden.probes} == {1, 3}
    for variant in package.manifest.variants:
        report = verify(Sessions(package, variant), golden, package.manifest.golden.policy, oracle="golden")
        assert report.first_failure is None


def test_verify_names_swapped_parts(fixed_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(fixed_dir, tmp_path / "out"))
    for role in ("layer", "block"):
        swap_files(folder, f"graphs/{role}_02.onnx", f"graphs/{role}_03.onnx")
    package = open_package(folder)
    for variant, name in (("separate", "layer_02"), ("fused", "block_02")):
        sessions = Sessions(package, package.manifest.variant(variant))
        report = verify(sessions, read_golden(package), package.manifest.golden.policy, oracle="golden")
        assert report.first_failure == name
