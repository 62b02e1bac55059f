"""Histograms of activations: every value counted once, whatever the range; the file written and read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from smartbert.activations.ranges import (
    BINS,
    RANGES_FILE,
    ActivationRanges,
    HistogramBuilder,
    read_ranges,
    write_ranges,
)
from smartbert_runtime.errors import ConfigError


def some_ranges() -> ActivationRanges:
    builder = HistogramBuilder()
    builder.add(np.linspace(-3.0, 1.0, 500, dtype=np.float32).reshape(-1, 2))
    return ActivationRanges(texts=7, tokens=500, points={"hidden_00": builder.histogram()})


def test_counts_match_numpy() -> None:
    """Also of values that came before the limit grew."""
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=300) * scale for scale in (0.001, 1.0, 40.0)]
    builder = HistogramBuilder()
    for part in parts:
        builder.add(part.astype(np.float32).reshape(-1, 3))
    found, values = builder.histogram(), np.concatenate(parts).astype(np.float32)
    assert (found.minimum, found.maximum) == (float(values.min()), float(values.max()))
    channels_vc = values.reshape(-1, 3)
    np.testing.assert_allclose(found.minima, channels_vc.min(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found.maxima, channels_vc.max(axis=0), rtol=1e-4)
    assert found.limit / 2 <= np.abs(values).max() < found.limit and np.log2(found.limit).is_integer()
    expected, edges = np.histogram(values, bins=BINS, range=(-found.limit, found.limit))
    assert sum(found.counts) == len(values)
    assert np.abs(np.cumsum(found.counts) - np.cumsum(expected)).max() <= 1, "at most a value on an edge"
    np.testing.assert_allclose(found.centers(), (edges[1:] + edges[:-1]) / 2)


def test_value_that_is_not_finite() -> None:
    for value in (np.nan, np.inf):
        with pytest.raises(ConfigError, match="not finite numbers"):
            HistogramBuilder().add(np.array([[1.0], [value]], dtype=np.float32))


def test_file_is_read_back(tmp_path: Path) -> None:
    write_ranges(tmp_path, some_ranges())
    assert read_ranges(tmp_path) == some_ranges()
    assert read_ranges(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text[:-40], "is damaged"),
        (lambda text: text.replace('"texts"', '"textz"'), "unknown key 'textz'"),
        (lambda text: json.dumps({**json.loads(text), "points": {"hidden_00": {}}}), "lacks the key 'minimum'"),
        (lambda text: text.replace('"limit": 4.0', '"limit": -4.0'), "hidden_00 holds no histogram"),
        (lambda text: text.replace('"minima": [-3.0, ', '"minima": ['), "hidden_00 holds no histogram"),
    ],
)
def test_damaged_file(tmp_path: Path, damage: object, says: str) -> None:
    write_ranges(tmp_path, some_ranges())
    file = tmp_path / RANGES_FILE
    file.write_text(damage(file.read_text(encoding="utf-8")), encoding="utf-8")  # type: ignore[operator]
    with pytest.raises(ConfigError, match=says) as error:
        read_ranges(tmp_path)
    assert "--scales-file" in str(error.value.hint)


def test_file_without_ranges_of_channels(tmp_path: Path) -> None:
    """As it was written before they were recorded."""
    ranges = some_ranges()
    write_ranges(tmp_path, ranges)
    file = tmp_path / RANGES_FILE
    content = json.loads(file.read_text(encoding="utf-8"))
    for point in content["points"].values():
        del point["minima"], point["maxima"]
    file.write_text(json.dumps(content), encoding="utf-8")
    bare = replace(ranges.points["hidden_00"], minima=(), maxima=())
    assert read_ranges(tmp_path) == replace(ranges, points={"hidden_00": bare})


def test_fewer_bins(tmp_path: Path) -> None:
    ranges = some_ranges()
    point = replace(ranges.points["hidden_00"], counts=(1, 2, 3))
    write_ranges(tmp_path, replace(ranges, points={"hidden_00": point}))
    with pytest.raises(ConfigError, match=f"no histogram of {BINS} bins"):
        read_ranges(tmp_path)
