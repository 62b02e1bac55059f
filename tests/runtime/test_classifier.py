"""classifier: one answer per text in the given order, independent of its batch, and equal to PyTorch's."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.reference import trace_rows
from smartbert_runtime import Policy, Prediction, SmartBert
from smartbert_runtime.errors import ConfigError, InputError, IntegrityError, ManifestError
from smartbert_runtime.trace import Trace
from tests.conftest import LABELS, SENTENCES
from tests.package_folders import flip_byte

SECOND_TEXTS = SENTENCES[7:] + SENTENCES[:7]
JSON_KEYS = ["index", "text", "label", "score", "probabilities", "exit_layer", "layers_run", "layers_skipped"]


def assert_same(found: list[Prediction], expected: list[Prediction]) -> None:
    assert [one.text for one in found] == [other.text for other in expected]
    assert [one.trace.decisions() for one in found] == [other.trace.decisions() for other in expected]
    assert [one.label for one in found] == [other.label for other in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_classify_matches_oracle(classifier: SmartBert, model: SmartBertForSequenceClassification) -> None:
    expected = trace_rows(model, classifier.tokenizer.encode(SENTENCES), Policy(exit_threshold=0.5))
    found = classifier.classify(SENTENCES)
    assert [prediction.trace.decisions() for prediction in found] == [trace.decisions() for trace in expected]
    for prediction, trace in zip(found, expected, strict=True):
        np.testing.assert_allclose(prediction.trace.logits_c, trace.logits_c, rtol=0, atol=1e-5)
        assert prediction.label == LABELS[int(trace.logits_c.argmax())]


def test_pairs_match_oracle(classifier: SmartBert, model: SmartBertForSequenceClassification) -> None:
    tokens = classifier.tokenizer.encode(SENTENCES, SECOND_TEXTS)
    expected = trace_rows(model, tokens, Policy(exit_threshold=0.5))
    found = classifier.classify(SENTENCES, text_pairs=SECOND_TEXTS, batch_size=5)
    assert [prediction.text_pair for prediction in found] == list(SECOND_TEXTS)
    for prediction, trace in zip(found, expected, strict=True):
        assert prediction.trace.decisions() == trace.decisions()
        np.testing.assert_allclose(prediction.trace.logits_c, trace.logits_c, rtol=0, atol=1e-5)


def test_answers_in_text_order(classifier: SmartBert) -> None:
    lengths = [len(text) for text in SENTENCES]
    assert lengths != sorted(lengths)
    found = classifier.classify(SENTENCES, batch_size=4)
    assert [prediction.text for prediction in found] == list(SENTENCES)
    assert_same(found, [classifier.classify([text])[0] for text in SENTENCES])


@pytest.mark.parametrize("batch_size", [1, 2, 7, 1000])
def test_batch_size_changes_nothing(classifier: SmartBert, batch_size: int) -> None:
    for policy in (None, Policy(exit_threshold=0.7, no_skip=True)):
        whole = classifier.classify(SENTENCES, policy=policy)
        assert_same(classifier.classify(SENTENCES, policy=policy, batch_size=batch_size), whole)


def test_label_and_probabilities(classifier: SmartBert) -> None:
    for prediction in classifier.classify(SENTENCES):
        assert tuple(prediction.probabilities) == LABELS
        assert sum(prediction.probabilities.values()) == pytest.approx(1.0)
        assert prediction.score == max(prediction.probabilities.values())
        assert prediction.probabilities[prediction.label] == prediction.score
    assert classifier.labels == LABELS


def test_default_and_given_policy(classifier: SmartBert) -> None:
    text = "Down, down, down."
    (packaged,) = classifier.classify([text])
    assert (packaged.layers_run, packaged.layers_skipped, packaged.exit_layer) == ((3,), (1, 2, 4), 4)
    (full,) = classifier.classify([text], policy=classifier.policy("full-depth"))
    assert (full.layers_run, full.layers_skipped, full.exit_layer) == ((1, 2, 3, 4), (), 4)


def test_latency_ends_at_own_answer(classifier: SmartBert) -> None:
    started = time.perf_counter()
    early, late = sorted(
        classifier.classify(["We are all mad here.", "Would the fall never come to an end?"]),
        key=lambda prediction: prediction.exit_layer,
    )
    wall_ms = (time.perf_counter() - started) * 1000.0
    assert (early.exit_layer, late.exit_layer) == (3, 4)
    # The last answer ends the batch, so its latency is nearly all of the time taken.
    assert 0.1 * wall_ms < late.latency_ms < wall_ms
    assert 0.0 < early.latency_ms < late.latency_ms


def test_no_texts(classifier: SmartBert) -> None:
    assert classifier.classify([]) == []


# The line that --format json prints


def test_to_dict_keys(classifier: SmartBert) -> None:
    (prediction,) = classifier.classify(["Down, down, down."])
    line = prediction.to_dict()
    assert ["index", *line] == [*JSON_KEYS, "latency_ms"]
    assert json.loads(json.dumps(line)) == line
    assert (line["text"], line["label"]) == ("Down, down, down.", "odd")
    assert (line["exit_layer"], line["layers_run"], line["layers_skipped"]) == (4, [3], [1, 2, 4])
    assert line["probabilities"] == prediction.probabilities
    assert (line["score"], line["latency_ms"]) == (prediction.score, prediction.latency_ms)


def test_to_dict_of_pair(classifier: SmartBert) -> None:
    (prediction,) = classifier.classify(["Do cats eat bats?"], text_pairs=["Do bats eat cats?"])
    line = prediction.to_dict()
    assert {"index", *line} == {*JSON_KEYS, "latency_ms", "text_pair"}
    assert line["text_pair"] == "Do bats eat cats?"


# Long texts


def test_truncated_flag(classifier: SmartBert) -> None:
    short, long = classifier.classify(["Off with her head!", "Off with her head! " * 20])
    assert (short.truncated, long.truncated) == (False, True)
    assert len(long.text) == len("Off with her head! ") * 20


def test_no_truncate_refuses_long_text(classifier: SmartBert) -> None:
    with pytest.raises(InputError, match="longer than the model's"):
        classifier.classify(["Off with her head!", "Off with her head! " * 20], truncate=False)


# What is refused


def test_string_for_texts_is_refused(classifier: SmartBert) -> None:
    with pytest.raises(InputError, match="several texts, not one string") as caught:
        classifier.classify("Off with her head!")
    assert caught.value.hint == "classify([text])"


def test_string_for_pairs_is_refused(classifier: SmartBert) -> None:
    with pytest.raises(InputError, match="not one string"):
        classifier.classify(["Do cats eat bats?", "Do bats eat cats?"], text_pairs="no")


@pytest.mark.parametrize("empty", ["", "  \n\t"])
def test_empty_text_names_number(classifier: SmartBert, empty: str) -> None:
    with pytest.raises(InputError, match=r"^text 2 is empty$"):
        classifier.classify(["a", empty])
    with pytest.raises(InputError, match=r"^second text 1 is empty$"):
        classifier.classify(["a", "b"], text_pairs=[empty, "c"])


def test_unequal_numbers_of_pairs(classifier: SmartBert) -> None:
    for pairs in (["c"], [], ["c", "d", "e"]):
        with pytest.raises(InputError, match=f"2 texts but {len(pairs)} second texts"):
            classifier.classify(["a", "b"], text_pairs=pairs)


def test_half_emoji_is_refused(classifier: SmartBert) -> None:
    # JSON can hold one half of a surrogate pair, as cut messages do: "\\ud83d".
    with pytest.raises(InputError):
        classifier.classify([json.loads('"so late \\ud83d"')])


def test_bad_batch_size_and_preset(classifier: SmartBert) -> None:
    with pytest.raises(ConfigError, match="batch_size must be 1 or more, not 0"):
        classifier.classify(["a"], batch_size=0)
    with pytest.raises(ConfigError, match="no preset 'fast'") as caught:
        classifier.policy("fast")
    assert caught.value.hint == "it has: default, full-depth"


# Folders


def test_load_chooses_variant(package_dir: Path) -> None:
    assert SmartBert.load(package_dir, layout="separate", precision="fp32").sessions.variant.name == "separate-fp32"
    with pytest.raises(ManifestError, match="layout fused and precision any") as caught:
        SmartBert.load(str(package_dir), layout="fused")
    assert caught.value.hint == "it holds: separate-fp32"


def test_damaged_policy_file_at_load(package_copy: Path) -> None:
    file = package_copy / "policy.json"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('"exit_threshold": 0.5', '"exit_threshold": 0.9'), encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"policy\.json was changed by hand"):
        SmartBert.load(package_copy)
    file.unlink()
    with pytest.raises(IntegrityError, match=r"policy\.json cannot be read"):
        SmartBert.load(package_copy)


def test_changed_tokenizer_at_load(package_copy: Path) -> None:
    flip_byte(package_copy / "tokenizer" / "tokenizer.json", 500)
    with pytest.raises(IntegrityError, match=r"tokenizer/tokenizer\.json does not match"):
        SmartBert.load(package_copy)


# stream, threads, forks, closing


def test_stream_matches_classify(package_dir: Path) -> None:
    model = SmartBert.load(package_dir)
    read = []

    def endless() -> Iterator[str]:
        for number in itertools.count():
            read.append(number)
            yield SENTENCES[number % len(SENTENCES)]

    answers = list(itertools.islice(model.stream(endless(), batch_size=2), 40))
    expected = model.classify(SENTENCES)
    for number, answer in enumerate(answers):
        assert answer.trace.decisions() == expected[number % len(SENTENCES)].trace.decisions()
    assert len(read) == 48  # three windows of 8 batches of 2


def test_stream_of_pairs(package_dir: Path) -> None:
    model = SmartBert.load(package_dir)
    pairs = list(zip(SENTENCES[:5], SENTENCES[5:10], strict=True))
    (expected,) = model.classify([pairs[0][0]], text_pairs=[pairs[0][1]])
    assert next(model.stream(pairs)).trace.decisions() == expected.trace.decisions()
    with pytest.raises(InputError, match="mixed"):
        list(model.stream(["one", ("one", "two")]))
    with pytest.raises(InputError, match="text 2 is a tuple of 3"):
        list(model.stream([("a", "b"), ("a", "b", "lost")]))  # type: ignore[list-item]
    with pytest.raises(InputError, match="not one string"):
        model.stream("one")
    with pytest.raises(InputError, match="text 21 is empty"):
        list(model.stream([*SENTENCES[:20], " "], batch_size=2))
    with pytest.raises(ConfigError, match="batch_size"):
        model.stream([], batch_size=0)
    assert list(model.stream([])) == []


@pytest.mark.parametrize("batch_size", [1, 32])
def test_threads_classify_at_once(package_dir: Path, batch_size: int) -> None:
    model, other = SmartBert.load(package_dir, threads=1), SmartBert.load(package_dir, threads=1)

    def traces_of(classifier: SmartBert) -> list[Trace]:
        return [answer.trace for answer in classifier.classify(SENTENCES, batch_size=batch_size)]

    expected = traces_of(other)
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda _: traces_of(model), range(32)))
    for traces in found:
        for trace, wanted in zip(traces, expected, strict=True):
            assert trace.decisions() == wanted.decisions()
            assert np.array_equal(trace.logits_c, wanted.logits_c)


def _classify_in_child(model: SmartBert, answers: Any) -> None:
    # The shared arena may be locked forever, by another thread at the moment of the fork.
    options = model.sessions.open("gate_01").get_session_options()
    with pytest.raises(RuntimeError, match="use_env_allocators"):
        options.get_session_config_entry("session.use_env_allocators")
    answers.put([answer.label for answer in model.classify(SENTENCES, batch_size=1)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_forked_child_classifies(package_dir: Path) -> None:
    model = SmartBert.load(package_dir, threads=2)
    expected = [answer.label for answer in model.classify(SENTENCES, batch_size=1)]
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    children = [context.Process(target=_classify_in_child, args=(model, answers)) for _ in range(2)]
    for child in children:
        child.start()
    assert [answers.get(timeout=60) for _ in children] == [expected] * 2
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    assert [answer.label for answer in model.classify(SENTENCES)] == expected


def test_deadline_excludes_loading(package_dir: Path) -> None:
    model = SmartBert.load(package_dir)
    model.classify(SENTENCES[:1], policy=Policy(deadline_ms=1e6, max_layers=1, no_skip=True))
    assert len(model.sessions.placements()) == len(model.package.manifest.components)


def test_closed_model_is_refused(package_dir: Path) -> None:
    with SmartBert.load(package_dir) as model:
        model.classify(SENTENCES[:1])
        assert model.sessions.placements()
    assert model.sessions.placements() == {}
    with pytest.raises(ConfigError, match="this model was closed"):
        model.classify(SENTENCES[:1])
    model.close()
