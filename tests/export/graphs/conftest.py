"""Exports that several test files of this folder read."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
import torch

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_export.options import ExportOptions, GraphOptions
from smartbert_export.package import export_package
from smartbert_export.parts.signatures import LAYOUTS


@pytest.fixture(scope="session")
def fixed_layouts_dir(
    tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path, model: SmartBertForSequenceClassification
) -> Path:
    """The tiny model's layouts, made for one text of 16 tokens.

    Its position table is longer than necessary: at a fixed length, the tracer folds one of up to 8192 numbers.
    """
    folder = tmp_path_factory.mktemp("fixed_layouts")
    checkpoint = Path(shutil.copytree(checkpoint_dir, folder / "ckpt"))
    config, state = copy.deepcopy(model.config), model.state_dict()
    config.backbone_config = {**config.backbone_config, "max_position_embeddings": 300}
    name = "backbone.embeddings.position_embeddings.weight"
    longer = SmartBertForSequenceClassification(config)
    longer.load_state_dict(state | {name: torch.cat([state[name], torch.ones(300 - len(state[name]), 32)])})
    longer.save_pretrained(checkpoint)
    export_package(checkpoint, folder / "out", ExportOptions(graphs=GraphOptions(layouts=LAYOUTS, fixed_shape=(1, 16))))
    return folder / "out"
