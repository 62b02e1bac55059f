"""PyTorch's answers with the package's own tokenizer; a checkpoint of another model is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from smartbert_export.parity.against_checkpoint import record_checkpoint
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import InputError
from smartbert_runtime.package.open import open_package
from smartbert_runtime.parity.golden import read_golden
from tests.export.reporters import Recorder

POLICY = Policy(exit_threshold=0.5)


def test_golden_texts_by_default(checkpoint_dir: Path, package_dir: Path) -> None:
    opened = open_package(package_dir)
    reporter = Recorder()
    golden = record_checkpoint(checkpoint_dir, opened, None, POLICY, reporter=reporter)
    recorded = read_golden(opened)
    assert [trace.decisions() for trace in golden.traces] == [trace.decisions() for trace in recorded.traces]
    np.testing.assert_array_equal(golden.tokens.input_ids_bs, recorded.tokens.input_ids_bs)
    assert reporter.steps == ["loading the checkpoint", "running 24 texts in PyTorch"]


def test_texts_of_a_file(checkpoint_dir: Path, package_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "dev.tsv"
    file.write_text("text\tlabel\nDo cats eat bats?\todd\nOff with her head!\tloud\n", encoding="utf-8")
    golden = record_checkpoint(checkpoint_dir, open_package(package_dir), file, POLICY)
    assert len(golden.traces) == 2
    assert max(probe.tokens.input_ids_bs.shape[1] for probe in golden.probes) == 24


@pytest.mark.parametrize(
    "change",
    [
        {"id2label": {"0": "calm", "1": "loud", "2": "quiet"}},
        {"id2label": {"0": "loud", "1": "calm", "2": "odd"}},
    ],
)
def test_other_labels_are_refused(
    checkpoint_dir: Path, package_dir: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    other = Path(shutil.copytree(checkpoint_dir, tmp_path / "ckpt"))
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps({**config, **change}), encoding="utf-8")
    with pytest.raises(InputError, match="other labels or another depth") as error:
        record_checkpoint(other, open_package(package_dir), None, POLICY)
    assert error.value.hint
