"""errors: one tree, a hint on each, and the exit codes that the command line promises."""

from __future__ import annotations

import pytest

from smartbert_runtime import errors


def tree(kind: type[Exception]) -> dict[str, object]:
    return {child.__name__: tree(child) for child in kind.__subclasses__()}


def test_the_tree_is_the_one_drawn_in_the_file() -> None:
    assert tree(errors.SmartBertError) == {
        "ConfigError": {},
        "InputError": {},
        "TrainingError": {},
        "ManifestError": {"IntegrityError": {}},
        "ProviderError": {},
        "ExportError": {},
        "CalibrationError": {},
        "BenchError": {},
        "ParityError": {},
        "MissingExtraError": {},
    }


def test_an_error_says_what_happened_and_what_to_do() -> None:
    error = errors.InputError("no texts", hint="give some")
    assert (str(error), error.hint, error.exit_code) == ("no texts", "give some", 1)
    assert errors.InputError("no texts").hint == ""


def test_only_a_parity_error_exits_with_three_and_it_carries_its_report() -> None:
    error = errors.ParityError("layer_03 differs", report={"part": "layer_03"}, hint="look")
    assert (error.exit_code, error.report, error.hint) == (3, {"part": "layer_03"}, "look")


def test_a_missing_extra_names_the_package_and_the_pip_command() -> None:
    with pytest.raises(errors.SmartBertError, match="smartbert-train needs the package 'torch'") as caught:
        raise errors.MissingExtraError("smartbert-train", "train", "torch")
    assert caught.value.hint == "pip install 'smartbert[train]'"
