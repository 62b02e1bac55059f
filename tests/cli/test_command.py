"""command: exit codes, `error:` and `hint:` lines, missing extras, and steps and notes on stderr."""

from __future__ import annotations

import io

import pytest

from smartbert_runtime.cli.command import TerminalReporter, require_extra, run_command
from smartbert_runtime.errors import InputError, MissingExtraError, ParityError
from tests.cli.conftest import Call
from tests.helpers import assert_named_error


def test_good_end_exits_with_0(call: Call) -> None:
    run = call(lambda: run_command(lambda: print("data")))
    assert (run.code, run.out, run.err) == (0, "data\n", "")


def test_named_error_exits_with_1(call: Call) -> None:
    def fail() -> None:
        raise InputError("the file is empty", hint="fill it")

    run = call(lambda: run_command(fail))
    assert (run.code, run.out, run.err) == (1, "", "error: the file is empty\nhint: fill it\n")


def test_parity_failure_exits_with_3(call: Call) -> None:
    def fail() -> None:
        raise ParityError("layer_02 differs", report=None, hint="export again")

    assert_named_error(call(lambda: run_command(fail)), "error: layer_02 differs", "hint: export again", code=3)


def test_unknown_option_is_usage_error(call: Call) -> None:
    run = call(lambda: run_command(lambda: None), "--no-such-option")
    assert run.code == 2 and run.out == "" and "--no-such-option" in run.err


def test_interrupt_exits_with_130(call: Call) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    run = call(lambda: run_command(interrupted))
    assert run.code == 130 and "Traceback" not in run.err


def test_bug_is_not_a_named_error() -> None:
    def bug() -> None:
        raise ZeroDivisionError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("sys.argv", ["command"])
        run_command(bug)


def test_missing_extra_names_the_pip_command() -> None:
    with pytest.raises(MissingExtraError) as error, require_extra("smartbert-train", "train"):
        import a_package_that_nobody_has.inside  # type: ignore[import-not-found]  # noqa: F401
    assert str(error.value) == "smartbert-train needs the package 'a_package_that_nobody_has', which is not installed"
    assert error.value.hint == "pip install 'smartbert[train]'"


# Steps and notes


class Terminal(io.StringIO):
    """A stream that is a terminal; `shown` is what a person sees on it at the end."""

    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> list[str]:
        """The lines on the screen: a carriage return goes to the start of a line, ESC[K erases what follows."""
        lines = []
        for line in self.getvalue().split("\n"):
            screen = ""
            for written in line.split("\r"):
                erased = written.startswith("\033[K")
                text = written.removeprefix("\033[K")
                screen = text if erased else text + screen[len(text) :]
            lines.append(screen)
        return lines


def report() -> None:
    with TerminalReporter() as reporter:
        reporter.step("quantizing layer_02 to int8")
        reporter.note("int8 refused for layer_02")
        reporter.step("done")


def test_steps_and_notes_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    report()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "quantizing layer_02 to int8\nnote: int8 refused for layer_02\ndone\n"


def test_notes_stay_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    report()
    assert terminal.shown == ["note: int8 refused for layer_02", ""]


def test_step_is_rewritten_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with TerminalReporter() as reporter:
        reporter.step("quantizing layer_02")
        reporter.step("done")
        assert terminal.shown == ["done"]
        reporter.note("slow")
        assert terminal.shown == ["note: slow", "done"]


def test_error_clears_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with pytest.raises(InputError), TerminalReporter() as reporter:
        reporter.step("reading")
        raise InputError("unreadable")
    assert terminal.shown == [""]
