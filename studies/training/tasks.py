"""The tasks of the tables: where their texts are, and which metric they are judged by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from smartbert.data.sources import DataSource
from smartbert_runtime.errors import InputError

TEXT_FILES = ("train.tsv", "dev.tsv")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A classification task.

    metric: accuracy, f1 or matthews, as in GLUE. dataset, config: its name on the hub, where it has one.
    """

    name: str
    metric: str
    dataset: str | None = None
    config: str | None = None

    def source(self, folder: Path | None, max_train_samples: int | None) -> DataSource:
        """FOLDER/NAME/train.tsv and dev.tsv, or the hub's data set where no folder is given."""
        if folder is None and self.dataset is None:
            raise InputError(
                f"{self.name} is not read from the hub", hint="give --data, with NAME/train.tsv and dev.tsv"
            )
        if folder is None:
            return DataSource(dataset=self.dataset, task=self.config, max_train_samples=max_train_samples)
        files = tuple(folder / self.name / name for name in TEXT_FILES)
        for file in files:
            if not file.is_file():
                raise InputError(f"{file} does not exist", hint="--data needs NAME/train.tsv and NAME/dev.tsv")
        return DataSource(train_file=files[0], dev_file=files[1], max_train_samples=max_train_samples)


TASKS = {
    task.name: task
    for task in (
        Task(name="trec6", metric="accuracy"),
        *(
            Task(name=name, metric=metric, dataset="nyu-mll/glue", config=name)
            for name, metric in (
                ("sst2", "accuracy"),
                ("mrpc", "f1"),
                ("cola", "matthews"),
                ("rte", "accuracy"),
                ("wnli", "accuracy"),
                ("qnli", "accuracy"),
                ("qqp", "f1"),
                ("mnli", "accuracy"),
            )
        ),
    )
}
