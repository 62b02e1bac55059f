"""What every command shares: exit codes, error and hint lines, missing extras, steps on stderr."""

from __future__ import annotations

import pytest

from smartbert_runtime.cli.command import Steps, require_extra, run_command
from smartbert_runtime.errors import InputError, MissingExtraError, ParityError
from tests.cli.conftest import Call
from tests.helpers import assert_named_error


def test_a_command_that_ends_well_exits_with_0(call: Call) -> None:
    run = call(lambda: run_command(lambda: print("data")))
    assert (run.code, run.out, run.err) == (0, "data\n", "")


def test_a_named_error_is_two_lines_on_stderr_and_exit_code_1(call: Call) -> None:
    def fail() -> None:
        raise InputError("the file is empty", hint="fill it")

    run = call(lambda: run_command(fail))
    assert (run.code, run.out, run.err) == (1, "", "error: the file is empty\nhint: fill it\n")


def test_a_parity_failure_exits_with_3(call: Call) -> None:
    def fail() -> None:
        raise ParityError("layer_02 differs", report=None, hint="export again")

    assert_named_error(call(lambda: run_command(fail)), "error: layer_02 differs", "hint: export again", code=3)


def test_an_unknown_option_is_a_usage_error(call: Call) -> None:
    run = call(lambda: run_command(lambda: None), "--no-such-option")
    assert run.code == 2 and run.out == "" and "--no-such-option" in run.err


def test_an_interrupted_command_exits_with_130(call: Call) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    run = call(lambda: run_command(interrupted))
    assert run.code == 130 and "Traceback" not in run.err


def test_a_bug_is_not_dressed_up_as_a_users_error() -> None:
    def bug() -> None:
        raise ZeroDivisionError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("sys.argv", ["command"])
        run_command(bug)


def test_a_missing_package_becomes_the_pip_command() -> None:
    with pytest.raises(MissingExtraError) as error, require_extra("smartbert-train", "train"):
        import a_package_that_nobody_has.inside  # type: ignore[import-not-found]  # noqa: F401
    assert str(error.value) == "smartbert-train needs the package 'a_package_that_nobody_has', which is not installed"
    assert error.value.hint == "pip install 'smartbert[train]'"


def test_steps_are_lines_on_stderr_where_it_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Steps() as steps:
        steps.say("first")
        steps.say("second")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "first\nsecond\n")
