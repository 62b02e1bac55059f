"""smartbert-infer in a pipe: texts are answered as they arrive, and a reader that leaves early is no error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from smartbert_runtime.cli.infer import main
from tests.cli.conftest import Call
from tests.conftest import SENTENCES

CALL = "from smartbert_runtime.cli.infer import main; main()"
LONG = "Would the fall never come to an end, and would the poor little Alice never come to the end of it at all?"
PATIENCE_S = 120


@contextmanager
def piped(package: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command with a pipe at each of its ends; killed, so that reading from it ends, if it never answers."""
    command = [sys.executable, "-c", CALL, str(package), "--file", "-", *options]
    pipe = subprocess.PIPE
    # With PYTHONUNBUFFERED, which containers like to set, a line that is never flushed would arrive all the same.
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=buffered) as process:
        timer = threading.Timer(PATIENCE_S, process.kill)
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()
            process.kill()


def send(process: subprocess.Popen[bytes], content: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(content)
    process.stdin.flush()


def receive(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode()


@pytest.mark.parametrize(("texts", "why"), [(3000, "while it prints"), (3, "when all fits into the pipe")])
def test_reader_leaves_early(package_dir: Path, tmp_path: Path, texts: int, why: str) -> None:
    file = tmp_path / "many.txt"
    file.write_text("".join(f"{SENTENCES[number % 24]}\n" for number in range(texts)), encoding="utf-8")
    command = [sys.executable, "-c", CALL, str(package_dir), "--file", str(file), "--format", "json", "--no-skip"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        if texts > 100:
            assert json.loads(process.stdout.readline())["index"] == 0
        process.stdout.close()
        errors = process.stderr.read().decode()
        code = process.wait(timeout=120)
    assert "Traceback" not in errors and "BrokenPipe" not in errors and "error" not in errors.lower(), why
    assert code == 0


@pytest.mark.parametrize(("before", "after"), [("", "\n"), ('{"text": "', '"}\n\n')], ids=["txt", "jsonl"])
def test_text_is_answered_at_once(package_dir: Path, before: str, after: str) -> None:
    with piped(package_dir, "--format", "json") as process:
        for index, text in enumerate(SENTENCES[:3]):
            send(process, f"{before}{text}{after}".encode())
            answer = json.loads(receive(process))
            assert (answer["index"], answer["text"]) == (index, text)
        send(process, f"{before}{SENTENCES[3]}{after}{before}{SENTENCES[4]}{after}".encode())
        assert [json.loads(receive(process))["index"] for _ in range(2)] == [3, 4]
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (out, err, process.returncode) == (b"", b"", 0)


@pytest.mark.parametrize("format", ["text", "csv"])
def test_output_is_flushed(package_dir: Path, format: str) -> None:
    with piped(package_dir, "--format", format) as process:
        send(process, b"Who in the world am I?\n")
        if format == "csv":
            assert receive(process).startswith("index,")
        assert "Who in the world am I?" in receive(process)


@pytest.mark.parametrize(
    ("bad", "options", "word"),
    [
        (b"  \n", [], "standard input, line 3: text is empty"),
        (b"\xff\n", [], "standard input, line 3: not UTF-8 text"),
        (
            f"{LONG}\n".encode(),
            ["--no-truncate"],
            "standard input, line 3: a text is longer than the model's 24 tokens",
        ),
    ],
    ids=["empty", "not UTF-8", "too long"],
)
def test_bad_line_ends_a_pipe(package_dir: Path, bad: bytes, options: list[str], word: str) -> None:
    with piped(package_dir, "--format", "json", *options) as process:
        out, err = process.communicate(b"one\ntwo\n" + bad + b"four\n", timeout=PATIENCE_S)
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["one", "two"]
    assert process.returncode == 1
    assert err.decode().startswith(f"error: {word}") and "\nhint: " in err.decode()


def test_bad_line_is_skipped_at_once(package_dir: Path) -> None:
    with piped(package_dir, "--format", "json", "--skip-bad-lines") as process:
        send(process, b"\xff\n")
        assert process.stderr is not None
        assert process.stderr.readline() == b"note: standard input, line 1: not UTF-8 text: skipped\n"
        send(process, b"one\n")
        assert json.loads(receive(process))["index"] == 1
        _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, b"note: 1 of 2 lines were skipped\n")


def test_redirected_file_is_checked_first(package_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(b"one\n\n")
    command = [sys.executable, "-c", CALL, str(package_dir), "--file", "-"]
    with (tmp_path / "t.txt").open("rb") as stdin:
        run = subprocess.run(command, stdin=stdin, capture_output=True, timeout=PATIENCE_S, check=False)
    assert (run.returncode, run.stdout) == (1, b"")
    assert run.stderr.startswith(b"error: standard input, line 2: text is empty")


def test_named_pipe(call: Call, package_dir: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "rows.csv"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(b'text,label\n"one\ntwo",x\nthree,x\n',))
    writer.start()
    run = call(main, package_dir, "--file", fifo, "--format", "json")
    writer.join()
    assert run.code == 0 and run.err == ""
    assert [json.loads(line)["text"] for line in run.out.splitlines()] == ["one\ntwo", "three"]
