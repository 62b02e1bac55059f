"""PyTorch asked through the package's own tokenizer; a checkpoint that cannot be the package's is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from smartbert_export.parity.against_checkpoint import ask_checkpoint
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import InputError
from smartbert_runtime.package.open import open_package
from smartbert_runtime.parity.golden import read_golden

POLICY = Policy(exit_threshold=0.5)


def test_without_a_file_the_golden_texts_are_asked(checkpoint_dir: Path, package_dir: Path) -> None:
    opened = open_package(package_dir)
    said: list[str] = []
    golden = ask_checkpoint(checkpoint_dir, opened, None, POLICY, say=said.append)
    recorded = read_golden(opened)
    assert [trace.decisions() for trace in golden.traces] == [trace.decisions() for trace in recorded.traces]
    np.testing.assert_array_equal(golden.tokens.input_ids_bs, recorded.tokens.input_ids_bs)
    assert said == ["loading the checkpoint", "asking PyTorch for 24 texts"]


def test_a_file_brings_its_own_texts_and_the_longest_probe(
    checkpoint_dir: Path, package_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "dev.tsv"
    file.write_text("text\tlabel\nDo cats eat bats?\todd\nOff with her head!\tloud\n", encoding="utf-8")
    golden = ask_checkpoint(checkpoint_dir, open_package(package_dir), file, POLICY, say=lambda step: None)
    assert len(golden.traces) == 2
    assert max(probe.tokens.input_ids_bs.shape[1] for probe in golden.probes) == 24


@pytest.mark.parametrize(
    "change",
    [
        {"id2label": {"0": "calm", "1": "loud", "2": "quiet"}},
        {"id2label": {"0": "loud", "1": "calm", "2": "odd"}},
    ],
)
def test_a_checkpoint_with_other_labels_is_refused(
    checkpoint_dir: Path, package_dir: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    other = Path(shutil.copytree(checkpoint_dir, tmp_path / "ckpt"))
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps({**config, **change}), encoding="utf-8")
    with pytest.raises(InputError, match="other labels or another depth") as error:
        ask_checkpoint(other, open_package(package_dir), None, POLICY, say=lambda step: None)
    assert error.value.hint
