"""What all commands share: exit codes, `error:` and `hint:` lines, --version, and progress on stderr."""

from __future__ import annotations

import functools
import inspect
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

import smartbert_runtime
from smartbert_runtime.errors import InputError, MissingExtraError, SmartBertError
from smartbert_runtime.reporting import Reporter

_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


def choices(*names: str) -> str:
    """How an option that takes one of a few words is shown in the help."""
    return f"[{'|'.join(names)}]"


def run_command(function: Callable[..., Any]) -> NoReturn:
    """Run a one-command program and exit: 0 good, 1 a named error, 2 usage, 3 parity failed, 130 interrupted."""
    run_commands(function)


def run_commands(*functions: Callable[..., Any]) -> NoReturn:
    """Like `run_command`, for a program with one subcommand per function; a single one needs no name.

    Every command also has --quiet and --version, and completes its options in the shell (--install-completion).
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # whatever the locale: answers contain the texts
    help_names = {"help_option_names": ["-h", "--help"]}
    app = typer.Typer(
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings=help_names,
        no_args_is_help=len(functions) > 1,
    )
    for function in functions:
        app.command(context_settings=help_names)(_as_command(function))
    try:
        app(standalone_mode=True)
    except SmartBertError as err:
        print(f"error: {err}", file=sys.stderr)
        if err.hint:
            print(f"hint: {err.hint}", file=sys.stderr)
        sys.exit(err.exit_code)
    sys.exit(0)


def _as_command(function: Callable[..., Any]) -> Callable[..., None]:
    """The function with options --quiet and --version, and silent when the reader of its output has left."""

    @functools.wraps(function)
    def command(**options: Any) -> None:
        del options["version"]  # its callback has done the work
        _QUIET.set(bool(options.pop("quiet")))
        try:
            function(**options)
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader has left (`| head`): nothing more can be printed, not even at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    signature = inspect.signature(function, eval_str=True)
    option = typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    version = inspect.Parameter(
        "version", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, option]
    )
    option = typer.Option("--quiet", "-q", help="No progress and no notes on stderr; errors are still shown.")
    quiet = inspect.Parameter(
        "quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, option]
    )
    parameters = [*signature.parameters.values(), quiet, version]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


def is_quiet() -> bool:
    """Whether the command was called with --quiet."""
    return _QUIET.get()


def shows_bars() -> bool:
    """Whether progress bars are wanted: on a terminal, without --quiet."""
    return sys.stderr.isatty() and not is_quiet()


def _print_version(wanted: bool) -> None:
    if wanted:
        print("smartbert", smartbert_runtime.__version__)
        raise typer.Exit


@contextmanager
def require_extra(command: str, extra: str) -> Iterator[None]:
    """Imports inside turn a missing package into MissingExtraError with the pip command."""
    try:
        yield
    except ModuleNotFoundError as err:
        raise MissingExtraError(command, extra, (err.name or "").split(".")[0]) from err


def check_picture_file(file: Path) -> None:
    """InputError for a file that matplotlib could not write, before minutes are spent on what it would show."""
    if not file.absolute().parent.is_dir() or file.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"{file} cannot be drawn", hint="name a .png or .svg file in a folder that exists")


class ReportFormat(StrEnum):
    """How a report is printed."""

    text = "text"
    json = "json"


class TerminalReporter(Reporter):
    """Prints to stderr: notes as lines that stay, steps as one line that is rewritten on a terminal; nothing if quiet.

    Where stderr is not a terminal, every step is a line of its own. Leaving the `with` block clears the step.
    """

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._step = ""

    def __enter__(self) -> TerminalReporter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._step = ""
        self._print("", end="")

    def step(self, text: str) -> None:
        """Show what is being done now, instead of the step before."""
        self._step = text
        self._print(text, end="" if self._terminal else "\n")

    def note(self, text: str) -> None:
        """Print a line that stays, and the current step again below it."""
        self._print(f"note: {text}", end="\n")
        if self._terminal:
            self._print(self._step, end="")

    def _print(self, text: str, *, end: str) -> None:
        if is_quiet():
            return
        # The carriage return and the erase sequence remove the step, or the progress bar, that is on the line.
        print(f"\r\033[K{text}" if self._terminal else text, end=end, file=sys.stderr, flush=True)
