"""A handle on a contender's process: started, sent requests through pipes, stopped while other processes run."""

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
    ClassifyReply,
    ClassifyRequest,
    LoadReply,
    LoadRequest,
    MemoryReply,
    MemoryRequest,
    Reply,
    Request,
    read_reply,
    write_request,
)
from smartbert_runtime.errors import BenchError

R = TypeVar("R", LoadReply, ClassifyReply, MemoryReply)


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """How a process is started: `python -m module`, which then gets `spec` in its LoadRequest."""

    name: str
    module: str
    spec: dict[str, object]


class Worker:
    """One running process; leaving a `with` block kills it, even while it is stopped.

    Every method raises BenchError, with the last line of the process's standard error, when it has died.
    """

    def __init__(self, spec: WorkerSpec, *, threads: int) -> None:
        self.spec = spec
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process; a pipe would fill up
        # -P: modules in the working directory must not become part of what is measured.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", spec.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={
                **os.environ,
                "RAYON_NUM_THREADS": str(threads),  # the tokenizers library's pool
                "HF_HUB_OFFLINE": "1",  # everything is on the disk: no start waits for a network
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
        """The process id."""
        return self._process.pid

    def load(self, *, preload: bool) -> LoadReply:
        """Load what the spec names, again if it was loaded before."""
        return self._send(LoadRequest(spec=self.spec.spec, preload=preload), LoadReply)

    def classify(self, request: ClassifyRequest) -> ClassifyReply:
        """Classify texts."""
        return self._send(request, ClassifyReply)

    def memory(self) -> MemoryReply:
        """The process's memory."""
        return self._send(MemoryRequest(), MemoryReply)

    def stop(self) -> None:
        """Stop all of its threads; returns once they are stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self._process.returncode = os.waitstatus_to_exitcode(status)
            raise self._died()

    def resume(self) -> None:
        """Let it continue."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Kill it; it has nothing to save."""
        self._process.kill()
        self._process.communicate()
        self._stderr.close()

    def _send(self, request: Request, expected: type[R]) -> R:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(write_request(request))
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
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        return BenchError(
            f"{self.spec.name}: its process {how}" + (f": {lines[-1]}" if lines else ""),
            hint="try it with smartbert-infer, or leave it out",
        )
