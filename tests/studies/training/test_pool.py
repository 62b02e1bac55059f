"""pool: runs side by side share the cores, and leave alone what OMP_NUM_THREADS keeps for others."""

from __future__ import annotations

import os

import pytest

from studies.training.pool import threads_a_run

CORES = 8


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(CORES)))


@pytest.mark.parametrize(
    ("wanted", "jobs", "threads"),
    [("", 1, 8), ("", 2, 4), ("", 16, 1), ("1", 1, 1), ("2", 3, 2), ("4", 4, 2), ("0", 2, 4), ("many", 2, 4)],
)
def test_a_run_gets_its_share_of_the_cores_and_no_more_than_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, wanted: str, jobs: int, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert threads_a_run(jobs) == threads
