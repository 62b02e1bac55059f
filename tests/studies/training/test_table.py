"""Tables: arms of four texts worked out by hand, and real runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from studies.training.results import ArmResult, load_arms
from studies.training.table import best_plain, table_text
from studies.training.write import write_table
from tests.studies.training.conftest import Done

CONDITIONS = {
    "device": "cpu", "threads": 1, "cores": 2, "machine": "x", "precision": "fp32", "python": "3", "torch": "2",
    "transformers": "4", "code": "abc",
}  # fmt: skip


def made(
    name: str,
    curve: str | None,
    *,
    full: str,
    at: dict[str, str] | None = None,
    share: float = 1.0,
    seed: int = 50,
    validation: float = 0.5,
    skips: tuple[float, ...] = (0.0, 0.0),
) -> ArmResult:
    """An arm of one run over four texts, digits for correct texts: at full depth and at each saving (\"2\", \"3\")."""

    def accuracy(right: str) -> float:
        return right.count("1") / 4

    points = [[0.0, accuracy(full), 0.0, 0.0, 2.0, share]]
    points += [
        [0.5 / float(saving), accuracy(right), 0.0, 0.0, 1.0, 1 / float(saving)] for saving, right in (at or {}).items()
    ]
    places = {saving: {"values": [0, 0], "right": [right, right], "share": 0.0} for saving, right in (at or {}).items()}
    curves = {} if curve is None else {curve: points}
    if curve == "both":
        curves["gates off"] = points
    run: dict[str, Any] = {
        "task": "made up", "backbone": "none", "note": "", "metric": "accuracy", "arm": name, "seed": seed,
        "texts": {"train": 8, "validation": 2, "dev": 4}, "dev_labels": {"a": 3, "b": 1}, "mean_tokens": 5.0,
        "encoder_layers": 2, "layers": 2, "validation": {"accuracy": validation},
        "full_depth": {"accuracy": accuracy(full), "mac_share": share, "skip_rate": list(skips)},
        "configured": {"accuracy": accuracy(full), "mac_share": share},
        "curves": curves, "right": {"full depth": full},
        "at": {name: places for name in curves}, "conditions": CONDITIONS, "run": {"settings": _Anything()},
    }  # fmt: skip
    return ArmResult(name=name, curve=curve, runs=(run,))


class _Anything(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """The table below a heading: first cell -> the others."""
    lines = text[text.index(heading) :].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|---"))
    found = {}
    for line in lines[first + 1 :]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found[cells[0]] = cells[1:]
    return found


def test_paired_comparison_with_rivals() -> None:
    arms = [
        made("smartbert", "both", full="1110", at={"2": "1111", "3": "0111"}),
        made("plain-mean", None, full="1110", validation=0.6),
        made("plain-first", None, full="1110"),
        made("truncated-1", None, full="1000", share=0.5),
        made("deebert", "gates off", full="1110", at={"2": "1100"}),
    ]
    found = rows(table_text({arm.name: arm for arm in arms}, "?"), "SmartBERT's accuracy minus")
    # 1111 - 1110 = 0001: one text in four, and 0111 - 1110 = -1 0 0 1.
    assert found["plain-mean (the better one on validation texts)"][0].startswith("+25.00 [+0.00, +75.00]")
    assert found["plain-mean (the better one on validation texts)"][1].startswith("+0.00 [")
    assert found["truncated-1"] == [found["truncated-1"][0], "-"]  # it is at 2x, and nowhere else
    assert found["truncated-1"][0].startswith("+75.00 [")
    assert found["deebert"][0].startswith("+50.00 [") and found["deebert"][1] == "-"  # it never gets to 3x
    assert "smartbert" not in found


def test_only_common_seeds_are_compared() -> None:
    arms = [
        made("smartbert", "both", full="1110", at={"2": "1111"}),
        made("deebert", "gates off", full="1110", at={"2": "1100"}, seed=51),
    ]
    assert rows(table_text({arm.name: arm for arm in arms}, "?"), "SmartBERT's accuracy minus")["deebert"] == ["-", "-"]


def test_gates_against_exits_and_no_gates() -> None:
    smart = made("smartbert", "both", full="1110", at={"2": "1111"}, share=0.6, skips=(0.25, 1.0))
    smart.runs[0]["at"]["gates off"] = {"2": {"values": [0, 0], "right": ["1100", "1100"], "share": 0.0}}
    without = made("no-gates", "gates off", full="1000", at={"2": "1110"})
    found = rows(table_text({arm.name: arm for arm in (smart, without)}, "?"), "What the gates bring")
    on, its_mac, _, _, skipped, at_2x, at_3x, against_2x, against_3x = found["smartbert"]
    # In brackets no-gates at 60 % of the MAC: a fifth of the way from 75 % at half of them to 25 % at all of them.
    assert (on, its_mac, skipped) == ("75.00 [65.00]", "60.0%", "25 100")
    assert at_2x.startswith("+50.00 [") and at_3x == "-"
    assert against_2x.startswith("+25.00 [") and against_3x == "-"


def test_best_plain_by_validation() -> None:
    first = made("plain-first", None, full="1110", validation=0.6)  # better on validation, worse on dev
    mean = made("plain-mean", None, full="1111", validation=0.5)
    best = best_plain({"plain-mean": mean, "plain-first": first})
    assert best is first
    assert best_plain({}) is None


def test_commonest_label_and_conditions() -> None:
    one, other = made("smartbert", "both", full="1110"), made("plain-mean", None, full="1110")
    other.runs[0]["conditions"] = {**CONDITIONS, "threads": 2}
    text = table_text({"smartbert": one, "plain-mean": other}, "?")
    assert "commonest label is right for 75.0% of the dev texts" in text
    assert "1 threads of 2 x cores" in text and "2 threads of 2 x cores" in text and "commit abc" in text


def test_real_table_has_every_section(done: Done) -> None:
    arms = load_arms(run.file(done.results) for run in done.runs)
    text = table_text(arms, "who wins")
    for words in (
        "encoder: who wins",
        "**a tiny encoder**",
        "seeds 50, 51",
        "real length",
        "heads counted",
        "torch 2.",
    ):
        assert words in text
    found = rows(text, "MAC: multiply")
    assert list(found) == ["plain-mean", "truncated-2", "deebert", "pabee", "smartbert"]
    assert found["smartbert"][1].startswith(f"{100 * arms['smartbert'].full_depth()[0]:.2f}")
    assert list(rows(text, "How deep texts go")) == ["deebert", "smartbert", "smartbert, gates off"]


def test_table_is_reproducible(done: Done) -> None:
    first = [file.read_bytes() for file in write_table(done.results, done.setup, "arms")]
    assert [file.read_bytes() for file in write_table(done.results, done.setup, "arms")] == first
    assert first[1].startswith(b"\x89PNG")


def test_study_reads_its_own_runs_only(done: Done, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(done.results / "trec6" / "encoder", tmp_path / "trec6" / "encoder"))
    found = json.loads((folder / "smartbert-seed50.json").read_text(encoding="utf-8"))

    def plant(label: str, **settings: Any) -> None:
        identity = done.setup.run(label, seed=50, **settings).identity()
        text = json.dumps({**found, "arm": label, "run": identity})
        (folder / f"{label}-seed50.json").write_text(text, encoding="utf-8")

    plant("lambda-0.2", gate_lambda=0.2)
    plant("lambda-0.1", gate_lambda=0.3)  # of other settings than the study's: somebody's quick look
    arms, gates = (write_table(tmp_path, done.setup, study)[0] for study in ("arms", "gates"))
    assert (arms.name, gates.name) == ("trec6-encoder-arms.md", "trec6-encoder-gates.md")
    assert set(rows(arms.read_text(encoding="utf-8"), "MAC: multiply")) == {
        "plain-mean", "truncated-2", "deebert", "pabee", "smartbert",
    }  # fmt: skip
    assert set(rows(gates.read_text(encoding="utf-8"), "MAC: multiply")) == {"truncated-2", "smartbert", "lambda-0.2"}
