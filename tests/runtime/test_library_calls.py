"""SmartBert called as people call libraries: any iterable, presets by name, pickled, spawned, from another folder."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest

from smartbert_runtime import Policy, SmartBert
from smartbert_runtime.errors import ConfigError, InputError, ManifestError
from smartbert_runtime.prediction import Prediction
from tests.conftest import SENTENCES

TEXTS = list(SENTENCES[:5])


def answers(predictions: Iterable[Prediction]) -> list[tuple[str, str, float, tuple[int, ...]]]:
    return [(found.text, found.label, round(found.score, 5), found.layers_run) for found in predictions]


# Iterables


@pytest.mark.parametrize(
    "made",
    [
        tuple,
        iter,
        lambda texts: (text for text in texts),
        np.array,
        lambda texts: np.array(texts, dtype=object),
        lambda texts: pandas.Series(texts, index=range(5, 0, -1)),
        lambda texts: dict.fromkeys(texts).keys(),
    ],
    ids=["tuple", "iterator", "generator", "array", "array of objects", "series", "view"],
)
def test_iterables_are_read_in_order(classifier: SmartBert, made: Callable[[list[str]], Iterable[str]]) -> None:
    found = classifier.classify(made(TEXTS))
    assert answers(found) == answers(classifier.classify(TEXTS))
    assert {type(prediction.text) for prediction in found} == {str}
    pairs = classifier.classify(made(TEXTS), text_pairs=made(TEXTS[::-1]))
    assert answers(pairs) == answers(classifier.classify(TEXTS, text_pairs=TEXTS[::-1]))


def test_set_keeps_texts_with_their_answers(classifier: SmartBert) -> None:
    assert sorted(answers(classifier.classify(set(TEXTS)))) == sorted(answers(classifier.classify(TEXTS)))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (b"bytes", "not one string"),
        ({"text": "a"}, "not a dict"),
        (pandas.DataFrame({"text": TEXTS}), "not a DataFrame"),
        (np.array([TEXTS]), "not a ndarray"),
        (7, "not int"),
        ([None], "text 1 is not a text but NoneType"),
        (pandas.Series(["a", float("nan")]), "text 2 is not a text but float"),
    ],
    ids=["bytes", "dict", "table", "matrix", "number", "none", "nan"],
)
def test_other_objects_are_refused(classifier: SmartBert, texts: Iterable[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        classifier.classify(texts)
    assert caught.value.hint and "--" not in caught.value.hint


# Policies


def test_policy_by_name(classifier: SmartBert) -> None:
    assert answers(classifier.classify(TEXTS, policy="full-depth")) == answers(
        classifier.classify(TEXTS, policy=classifier.policy("full-depth"))
    )
    with pytest.raises(ConfigError, match="no preset 'quick'"):
        classifier.classify(TEXTS, policy="quick")


def test_policy_with_changes(classifier: SmartBert) -> None:
    assert classifier.policy(deadline_ms=5.0) == replace(classifier.policy(), deadline_ms=5.0)
    with pytest.raises(ConfigError, match="a policy has no 'dead_line'"):
        classifier.policy(dead_line=5.0)


@pytest.mark.parametrize("limit", [{"deadline_ms": 60_000.0}, {"max_layers": 4}], ids=str)
def test_what_is_not_given_is_the_packages(classifier: SmartBert, limit: dict[str, float]) -> None:
    own = classifier.classify(SENTENCES)
    assert len({prediction.exit_layer for prediction in own}) > 1, "or nothing is compared"
    assert answers(classifier.classify(SENTENCES, policy=Policy(**limit))) == answers(own)  # type: ignore[arg-type]


def test_given_thresholds_are_kept() -> None:
    own = Policy(rule="patience", skip_threshold=0.3, exit_threshold=0.4, patience=3, no_skip=True, no_exit=True)
    assert Policy().with_defaults_of(own) == own
    assert Policy(skip_threshold=0.5).with_defaults_of(own) == replace(own, skip_threshold=0.5, no_skip=False)
    given = Policy(exit_threshold=0.0)
    assert given.with_defaults_of(own) == replace(given, skip_threshold=0.3, no_skip=True)
    per_layer = Policy(exit_thresholds=(0.1, 0.2))
    assert per_layer.with_defaults_of(own).exit_thresholds == (0.1, 0.2)
    assert Policy(rule="max-probability").with_defaults_of(own).exit_threshold == 0.0
    limited = replace(Policy(deadline_ms=5.0), max_layers=2).with_defaults_of(own)
    assert limited == replace(own, deadline_ms=5.0, max_layers=2)


# Predictions


def test_prediction_is_json_and_readable(classifier: SmartBert) -> None:
    (found,) = classifier.classify(np.array(["Down, down, down."]))
    assert json.loads(json.dumps(found.to_dict()))["label"] == found.label
    assert repr(found).startswith(f"Prediction(label='{found.label}', score=")
    assert "array" not in repr(found) and len(repr(found)) < 200


def test_latency_is_without_loading(package_dir: Path) -> None:
    with SmartBert.load(package_dir) as model:
        loading: list[float] = []
        create = model.sessions._create

        def slow(part: str) -> object:
            loading.append(0.05)
            os.sched_yield()
            multiprocessing.Event().wait(0.05)
            return create(part)

        model.sessions._create = slow  # type: ignore[method-assign]
        (first,) = model.classify(["Down, down, down."])
    assert len(loading) >= 5
    assert first.latency_ms < 1000.0 * sum(loading)
    assert all(run.seconds < 0.05 for run in first.trace.part_runs())


# Copies, processes, folders


def test_copies_answer_alike(package_dir: Path) -> None:
    model = SmartBert.load(package_dir, threads=1)
    for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert answers(copied.classify(TEXTS)) == answers(model.classify(TEXTS))
        assert (copied.sessions.threads, copied.sessions.variant) == (1, model.sessions.variant)


def labels_in_child(model: SmartBert) -> list[str]:
    return [prediction.label for prediction in model.classify(TEXTS)]


def test_spawned_process(package_dir: Path) -> None:
    model = SmartBert.load(package_dir, threads=1)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(labels_in_child, (model,)) == [found.label for found in model.classify(TEXTS)]


def test_pickle_needs_the_folder(package_copy: Path) -> None:
    content = pickle.dumps(SmartBert.load(package_copy))
    shutil.rmtree(package_copy)
    with pytest.raises(ManifestError, match="is not a folder"):
        pickle.loads(content)


def test_closed_model_is_not_pickled(package_dir: Path) -> None:
    model = SmartBert.load(package_dir)
    model.close()
    with pytest.raises(ConfigError, match="was closed"):
        pickle.dumps(model)


def test_change_of_folder(package_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = tmp_path / "with spaces and ünicode"
    package_copy.rename(moved)
    monkeypatch.chdir(tmp_path)
    model = SmartBert.load(moved.name)
    monkeypatch.chdir("/")
    assert len(model.classify(TEXTS)) == len(TEXTS)


def test_read_only_folder(package_copy: Path) -> None:
    for path in [package_copy, *package_copy.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert len(SmartBert.load(package_copy).classify(TEXTS)) == len(TEXTS)
    finally:
        for path in [package_copy, *package_copy.rglob("*")]:
            path.chmod(0o755)


# Hub names


def test_from_pretrained_folder(package_dir: Path) -> None:
    assert answers(SmartBert.from_pretrained(str(package_dir)).classify(TEXTS)) == answers(
        SmartBert.from_pretrained(package_dir, threads=1).classify(TEXTS)
    )


def test_from_pretrained_cached_repository(package_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `huggingface_hub` keeps a repository: links in snapshots/REVISION to files in blobs, named by their hash."""
    repository = tmp_path / "models--house--small"
    snapshot = repository / "snapshots" / ("0" * 40)
    link_to_blobs(package_dir, snapshot, repository / "blobs")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40, encoding="ascii")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = SmartBert.from_pretrained("house/small")
    assert answers(model.classify(TEXTS)) == answers(SmartBert.load(package_dir).classify(TEXTS))


def test_from_pretrained_unknown_name() -> None:
    with pytest.raises(InputError, match="'house/none' is no folder, and the hub does not give it") as caught:
        SmartBert.from_pretrained("house/none")
    assert "cache" in caught.value.hint


def link_to_blobs(package: Path, snapshot: Path, blobs: Path) -> None:
    blobs.mkdir(parents=True)
    for number, file in enumerate(path for path in sorted(package.rglob("*")) if path.is_file()):
        blob, link = blobs / f"{number:064x}", snapshot / file.relative_to(package)
        shutil.copyfile(file, blob)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
