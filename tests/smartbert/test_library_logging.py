"""library_logging.py: once a command has called it, no library writes to the terminal on its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
import transformers

from smartbert.data.sources import DataSource
from smartbert.data.splits import load_task
from smartbert.library_logging import quiet_libraries
from smartbert.modeling import SmartBertForSequenceClassification


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """These are switches of the whole process; the other tests get them back as they were."""
    verbosity = transformers.logging.get_verbosity()
    yield
    transformers.logging.set_verbosity(verbosity)
    transformers.logging.enable_progress_bar()
    datasets.enable_progress_bars()


def test_loading_and_saving_print_nothing(encoder_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    quiet_libraries()
    SmartBertForSequenceClassification.from_backbone(str(encoder_dir), max_input_length=24).save_pretrained(tmp_path)
    SmartBertForSequenceClassification.from_pretrained(tmp_path)
    assert tuple(capfd.readouterr()) == ("", "")


def test_reading_data_prints_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # Bars belong on a terminal only, and here there is none.
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    for split in ("train", "validation"):
        lines = ["text,label", *(f"text number {number},{number % 2}" for number in range(20))]
        (tmp_path / "set" / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    quiet_libraries()
    load_task(DataSource(dataset=str(tmp_path / "set")), validation_fraction=0.2, seed=1)
    assert tuple(capfd.readouterr()) == ("", "")
