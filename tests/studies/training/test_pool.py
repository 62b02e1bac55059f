"""Pool: parallel runs share the cores, and at most OMP_NUM_THREADS of them."""

from __future__ import annotations

import os

import pytest

from studies.training.pool import threads_a_run

CORES = 8


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(CORES)))


@pytest.mark.parametrize(
    ("limit", "jobs", "threads"),
    [("", 1, 8), ("", 2, 4), ("", 16, 1), ("1", 1, 1), ("2", 3, 2), ("4", 4, 2), ("0", 2, 4), ("many", 2, 4)],
)
def test_threads_of_a_run(monkeypatch: pytest.MonkeyPatch, limit: str, jobs: int, threads: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    assert threads_a_run(jobs) == threads
