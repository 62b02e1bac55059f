"""errors: one tree, a hint for each, and the exit codes that the command line promises."""

from __future__ import annotations

import pytest

from smartbert_runtime import errors


def tree(kind: type[Exception]) -> dict[str, object]:
    return {child.__name__: tree(child) for child in kind.__subclasses__()}


def test_tree_of_errors() -> None:
    assert tree(errors.SmartBertError) == {
        "ConfigError": {},
        "InputError": {},
        "TrainingError": {},
        "ManifestError": {"IntegrityError": {}},
        "ProviderError": {},
        "ExportError": {},
        "BenchError": {},
        "ParityError": {},
        "MissingExtraError": {},
    }


def test_message_and_hint() -> None:
    error = errors.InputError("no texts", hint="give some")
    assert (str(error), error.hint, error.exit_code) == ("no texts", "give some", 1)
    assert errors.InputError("no texts").hint == ""


def test_parity_error_carries_report() -> None:
    error = errors.ParityError("layer_03 differs", report={"part": "layer_03"}, hint="look")
    assert (error.exit_code, error.report, error.hint) == (3, {"part": "layer_03"}, "look")


def test_missing_extra_hint() -> None:
    with pytest.raises(errors.SmartBertError, match="smartbert-train needs the package 'torch'") as caught:
        raise errors.MissingExtraError("smartbert-train", "train", "torch")
    assert caught.value.hint == "pip install 'smartbert[train]'"
