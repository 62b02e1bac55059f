"""What all commands share: errors as `error:` and `hint:` lines with an exit code, steps told on stderr."""

from __future__ import annotations

import functools
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from types import TracebackType
from typing import Any, NoReturn

import typer

from smartbert_runtime.errors import MissingExtraError, SmartBertError


def run_command(function: Callable[..., Any]) -> NoReturn:
    """Run a one-command program and exit: 0 good, 1 a named error, 2 usage, 3 parity failed, 130 interrupted."""
    run_commands(function)


def run_commands(*functions: Callable[..., Any]) -> NoReturn:
    """As `run_command`, for a program with one subcommand a function; a single one needs no name."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # whatever the locale: answers hold the texts they are about
    help_names = {"help_option_names": ["-h", "--help"]}
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings=help_names,
        no_args_is_help=len(functions) > 1,
    )
    for function in functions:
        app.command(context_settings=help_names)(_quiet_at_a_broken_pipe(function))
    try:
        app(standalone_mode=True)
    except SmartBertError as err:
        print(f"error: {err}", file=sys.stderr)
        if err.hint:
            print(f"hint: {err.hint}", file=sys.stderr)
        sys.exit(err.exit_code)
    sys.exit(0)


def _quiet_at_a_broken_pipe(function: Callable[..., Any]) -> Callable[..., None]:
    @functools.wraps(function)
    def quiet(**options: Any) -> None:
        try:
            function(**options)
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader has gone (`| head`): nothing is left to say, not even at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    return quiet


@contextmanager
def require_extra(command: str, extra: str) -> Iterator[None]:
    """Imports inside turn a missing package into MissingExtraError with the pip command."""
    try:
        yield
    except ModuleNotFoundError as err:
        raise MissingExtraError(command, extra, (err.name or "").split(".")[0]) from err


class ReportFormat(StrEnum):
    """How a report is printed."""

    text = "text"
    json = "json"


class Steps:
    """Says on stderr what is being done: one line that is rewritten on a terminal, a line a step elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> Steps:
        return self

    def say(self, step: str) -> None:
        """Begin a step."""
        print(
            f"\r\033[K{step}" if self._terminal else step,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
