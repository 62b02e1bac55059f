"""lane: one text at a time through bound buffers answers bit for bit as the sessions do, and keeps no text's answer."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smartbert_runtime import Policy, SmartBert
from smartbert_runtime.engine.run import run_layout
from smartbert_runtime.engine.text import run_alone
from smartbert_runtime.errors import ProviderError
from smartbert_runtime.sessions import io_binding as lane_module
from smartbert_runtime.sessions.sessions import Sessions
from smartbert_runtime.tokenizer import Tokens
from tests.conftest import LAYERS, SENTENCES
from tests.runtime.engine.test_batch import POLICIES


def lengths_of(tokens: Tokens) -> list[int]:
    return [int(length) for length in tokens.attention_mask_bs.sum(axis=1)]


@pytest.mark.parametrize("layout", ["separate", "fused"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_lane_answers_bit_for_bit_as_the_sessions_do(layouts_dir: Path, layout: str, precision: str) -> None:
    model = SmartBert.load(layouts_dir, layout=layout, precision=precision)
    tokens = model.tokenizer.encode(SENTENCES)
    assert len(set(lengths_of(tokens))) > 5
    ways = set()
    for policy in POLICIES:
        for row in range(len(SENTENCES)):
            text = tokens.rows([row])
            (found,) = run_layout(model.sessions, text, policy)
            expected = run_alone(model.sessions, text, policy, layers=LAYERS, fused=layout == "fused")
            assert found.trace.decisions() == expected.trace.decisions()
            assert np.array_equal(found.trace.logits_c, expected.trace.logits_c)
            assert np.array_equal(found.trace.skip_logit_l, expected.trace.skip_logit_l, equal_nan=True)
            ways.add(found.trace.decisions())
    assert len(ways) > 5, "skips leave the state in either buffer"


def test_an_answer_is_not_overwritten_by_the_next_text(layouts_dir: Path) -> None:
    model = SmartBert.load(layouts_dir, layout="fused")
    first = model.classify(SENTENCES[:1])[0].trace.logits_c
    kept = first.copy()
    second = model.classify(SENTENCES[1:2])[0].trace.logits_c
    assert np.array_equal(first, kept) and not np.array_equal(first, second)


def test_lengths_beyond_those_that_stay_bound_are_bound_again(
    layouts_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "LENGTHS", 2)
    model = SmartBert.load(layouts_dir, layout="fused")
    texts = sorted(SENTENCES, key=len)
    expected = [answer.trace.logits_c for answer in SmartBert.load(layouts_dir, layout="fused").classify(texts)]
    for _ in range(2):
        for text, logits_c in zip(texts, expected, strict=True):
            assert np.allclose(model.classify([text])[0].trace.logits_c, logits_c, atol=1e-5)
    (lane,) = model.sessions._lanes
    assert len(lane._lengths) == 2
    # The one that was used least lately makes room.
    ones = [np.ones((1, length), dtype=np.int64) for length in (3, 4, 3, 5)]
    for ids in ones:
        lane.run("embeddings", {"input_ids": ids, "attention_mask": ids, "token_type_ids": ids * 0})
    assert list(lane._lengths) == [3, 5]


def test_one_lane_serves_one_text_after_another_and_goes_with_its_model(layouts_dir: Path) -> None:
    model = SmartBert.load(layouts_dir, layout="fused", preload=True)
    lane = model.sessions.take_lane(5)
    assert lane is not None
    model.sessions.give_lane(lane)
    model.classify(SENTENCES, batch_size=1)
    assert model.sessions._lanes == [lane]
    sessions = weakref.ref(model.sessions)
    model.close()
    assert model.sessions._lanes == []
    model.sessions.give_lane(lane)
    assert model.sessions._lanes == [], "one that comes back after the end keeps no graph in memory"
    gc.disable()
    try:
        del model, lane
        assert sessions() is None, "no cycle keeps the graphs in memory"
    finally:
        gc.enable()


def test_there_is_no_lane_for_a_fixed_shape_or_a_text_that_is_too_long(fixed_dir: Path, layouts_dir: Path) -> None:
    assert SmartBert.load(fixed_dir).sessions.take_lane(5) is None
    sessions = SmartBert.load(layouts_dir).sessions
    assert sessions.take_lane(24) is not None
    assert sessions.take_lane(25) is None


class Failing:
    """A stopwatch's place, taken by a part that fails once."""

    def __init__(self) -> None:
        self.failed = False

    def around(self, parts: Any) -> Any:
        self._parts = parts
        return self

    def run(self, part: str, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        if part == "block_02" and not self.failed:
            self.failed = True
            raise RuntimeError("a part fails")
        found: list[NDArray[np.float32]] = self._parts.run(part, feeds)
        return found


def test_a_lane_that_failed_is_not_used_again(layouts_dir: Path) -> None:
    model = SmartBert.load(layouts_dir, layout="fused")
    text, policy, failing = model.tokenizer.encode(SENTENCES[:1]), Policy(no_skip=True, no_exit=True), Failing()
    with pytest.raises(RuntimeError, match="a part fails"):
        run_layout(model.sessions, text, policy, timed=failing)  # type: ignore[arg-type]
    assert model.sessions._lanes == []
    (found,) = run_layout(model.sessions, text, policy, timed=failing)  # type: ignore[arg-type]
    assert len(found.trace.layers_run) == LAYERS
    assert len(model.sessions._lanes) == 1


def test_a_state_that_is_not_the_lanes_own_is_refused(layouts_dir: Path) -> None:
    sessions: Sessions = SmartBert.load(layouts_dir, layout="fused").sessions
    lane = sessions.take_lane(5)
    assert lane is not None
    ones = np.ones((1, 5), dtype=np.int64)
    hidden_bsh, mask_b11s = lane.run(
        "embeddings", {"input_ids": ones, "attention_mask": ones, "token_type_ids": ones * 0}
    )
    with pytest.raises(AssertionError, match="not this text's state"):
        lane.run("block_01", {"hidden": hidden_bsh.copy(), "mask": mask_b11s})


def test_what_onnxruntime_refuses_is_a_named_error(layouts_dir: Path) -> None:
    sessions = SmartBert.load(layouts_dir, layout="fused").sessions
    lane = sessions.take_lane(5)
    assert lane is not None
    ids, ones = np.full((1, 5), 10**6), np.ones((1, 5), dtype=np.int64)
    with pytest.raises(ProviderError, match="embeddings failed on CPUExecutionProvider"):
        lane.run("embeddings", {"input_ids": ids, "attention_mask": ones, "token_type_ids": ones * 0})
