"""The working folder `OUTPUT.partial` of a run: begun, resumed by the same run only, and removed at the end."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from smartbert.data.splits import TaskData
from smartbert.digest import encoder_digest
from smartbert.training.processes import processes
from smartbert.training.settings import TrainingSettings
from smartbert_runtime.errors import InputError

IDENTITY_FILE = "run.json"
_UNFINISHED_IDENTITY_FILE = "run.partial"


def working_folder(output: Path) -> Path:
    """Where the run that makes `output` keeps its saved epochs."""
    return output.parent / f"{output.name}.partial"


def run_identity(model: str, data: TaskData, settings: TrainingSettings) -> dict[str, Any]:
    """Everything that must be unchanged for a run to be resumed."""
    texts = hashlib.sha256(repr((data.train, data.validation, data.dev)).encode("utf-8", "surrogatepass")).hexdigest()
    return {
        "model": encoder_digest(model),
        "labels": list(data.labels),
        "texts": texts,
        "settings": asdict(settings),
        # Another number of them makes steps of another size, and the epochs done would be counted wrongly.
        "processes": processes(),
    }


def identity_digest(identity: Mapping[str, Any]) -> str:
    """The identity as one string, for the training report."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def open_working_folder(work: Path, identity: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Begin `work` anew, or, with `resume`, check that it belongs to the same run.

    Raises InputError where there is nothing to resume, where another run or a foreign folder is in the way, and where
    `work` cannot be written.
    """
    noted = work / IDENTITY_FILE
    if resume and noted.exists():
        _check_identity(work, identity)
        return
    just_begun = work.is_dir() and {file.name for file in work.iterdir()} <= {_UNFINISHED_IDENTITY_FILE}
    if resume and not just_begun:
        raise InputError(f"there is nothing to resume in {work}", hint="start without --resume")
    if work.exists() and not noted.exists() and not just_begun:
        raise InputError(f"{work} is in the way", hint="move it: the run keeps its working files there")
    if noted.exists() and not overwrite:
        raise InputError(f"{work} holds an interrupted run", hint="--resume goes on with it, --overwrite begins anew")
    try:
        remove_working_folder(work)
        work.mkdir(parents=True)
        staged = work / _UNFINISHED_IDENTITY_FILE
        staged.write_text(json.dumps(identity), encoding="utf-8")
        staged.replace(noted)
    except OSError as err:
        raise InputError(f"{work} cannot be written: {err.strerror}", hint="check the path and its rights") from err


def remove_working_folder(work: Path) -> None:
    """Move the folder aside in one step, then delete it: what a kill leaves behind is never taken for a run."""
    for left in work.parent.glob(f".{work.name}.removed*"):
        shutil.rmtree(left, ignore_errors=True)
    if work.exists():
        aside = Path(tempfile.mkdtemp(prefix=f".{work.name}.removed", dir=work.parent))
        work.rename(aside / work.name)
        shutil.rmtree(aside, ignore_errors=True)


def _check_identity(work: Path, identity: Mapping[str, Any]) -> None:
    noted = work / IDENTITY_FILE
    try:
        begun = json.loads(noted.read_text(encoding="utf-8"))
    except ValueError as err:
        raise InputError(f"{noted} is damaged", hint="begin anew with --overwrite") from err
    if begun != json.loads(json.dumps(identity)):
        raise InputError(
            f"{work} was begun with another model, other texts, other settings or another number of processes",
            hint="repeat the first command with --resume added, or begin anew with --overwrite",
        )
