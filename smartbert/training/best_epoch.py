"""How the best epoch is chosen: each epoch's figures on the validation texts, and the one that counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from transformers import EvalPrediction

from smartbert.evaluation.curves import summarize
from smartbert.evaluation.decisions import Recording
from smartbert.training.objectives import Objective, Phase, Stage1
from smartbert.training.settings import TrainingSettings
from smartbert_runtime.decisions.policy import Policy

# The name of the figure that the Trainer compares epochs by; the first of equal ones is kept.
BEST_BY = "choice"


def epoch_figures(objective: Objective, settings: TrainingSettings) -> Callable[[EvalPrediction], dict[str, float]]:
    """Figures of one epoch without early exits (gates on): quality and layers run; skip rate and head accuracy a layer.

    BEST_BY is the one by which epochs are compared: the metric that the settings name.
    """
    policy = Policy(skip_threshold=settings.skip_threshold, no_exit=True)

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        skip_logits_rl, logits_rlc = cast(tuple[Any, Any], prediction.predictions)
        recording = Recording(
            skip_logits_rl=skip_logits_rl, logits_rlc=logits_rlc, label_ids_r=np.asarray(prediction.label_ids)
        )
        summary = summarize(recording, policy, ())
        # An epoch before the gates were trained is not a candidate for the best one, unless there is no other.
        ungated = isinstance(objective, Stage1) and objective.phase is Phase.UNGATED and len(objective.model.gates) > 0
        return {
            "accuracy": summary.accuracy,
            "f1": summary.f1,
            "matthews": summary.matthews,
            BEST_BY: float(getattr(summary, settings.metric)) - 2.0 * ungated,
            "layers_run": summary.mean_layers_run,
            **{f"skip_rate_{layer:02d}": rate for layer, rate in enumerate(summary.skip_rate, start=1)},
            **{
                f"exit_accuracy_{layer:02d}": right
                for layer, right in enumerate(summary.exit_accuracy, start=1)
                if right is not None
            },
        }

    return compute
