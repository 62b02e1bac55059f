"""A contender's process, as smartbert-bench holds it: started, asked through pipes, stopped while others are asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

from smartbert_bench.workers.protocol import (
    Answered,
    Ask,
    Open,
    Opened,
    Question,
    Reply,
    Weigh,
    Weight,
    read_reply,
    write_question,
)
from smartbert_runtime.errors import BenchError

R = TypeVar("R", Opened, Answered, Weight)


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """How a process is started: `python -m module`, which is then told `spec`, in JSON."""

    name: str
    module: str
    spec: dict[str, object]


class Worker:
    """One running process; leaving a `with` block ends it, also when it is stopped.

    Every method raises BenchError, with the last line of the process's standard error, when it has died.
    """

    def __init__(self, spec: WorkerSpec, *, threads: int) -> None:
        self.spec = spec
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process; a pipe would fill up
        # -P: what lies in the working directory is no part of what is measured.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", spec.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={
                **os.environ,
                "RAYON_NUM_THREADS": str(threads),  # the tokenizers library's pool
                "HF_HUB_OFFLINE": "1",  # all is on the disk: nobody's start waits for a network
                "PYTHONWARNINGS": "ignore",
            },
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def open(self, *, preload: bool) -> Opened:
        """Load what the spec says, anew if it was loaded before."""
        return self._ask(Open(spec=self.spec.spec, preload=preload), Opened)

    def answer(self, asked: Ask) -> Answered:
        """Answer texts."""
        return self._ask(asked, Answered)

    def weigh(self) -> Weight:
        """The process's memory."""
        return self._ask(Weigh(), Weight)

    def stop(self) -> None:
        """Stop every thread of it, and return once they stand."""
        os.kill(self.pid, signal.SIGSTOP)
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self._process.returncode = os.waitstatus_to_exitcode(status)
            raise self._died()

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it now; it has nothing to save."""
        self._process.kill()
        self._process.communicate()
        self._stderr.close()

    def _ask(self, question: Question, expected: type[R]) -> R:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(write_question(question))
            self._process.stdin.flush()
        except BrokenPipeError as err:
            raise self._died() from err
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        try:
            reply: Reply = read_reply(line)
        except BenchError as err:
            raise BenchError(f"{self.spec.name}: {err}", hint=err.hint) from err
        assert isinstance(reply, expected)
        return reply

    def _died(self) -> BenchError:
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return BenchError(
            f"{self.spec.name}: its process {how}" + (f": {lines[-1]}" if lines else ""),
            hint="ask it alone with smartbert-infer, or leave it out",
        )
