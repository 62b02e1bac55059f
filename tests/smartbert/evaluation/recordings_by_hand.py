"""Recordings small enough to decide by hand: what the tests of decisions, curves and thresholds share."""

from __future__ import annotations

import math

import numpy as np

from smartbert.evaluation.decisions import Recording

RUN, SKIP = -2.0, 2.0  # skip logits either side of threshold 0.5
# Logits of a two-class head, and its normalized entropy:
SURE_0, SURE_1 = (10.0, -10.0), (-10.0, 10.0)  # 6e-8
LIKELY_1 = (0.0, math.log(9.0))  # p 0.9: (0.9 ln 1/0.9 + 0.1 ln 1/0.1) / ln 2 = 0.469
TOSS_1 = (0.0, math.log(1.5))  # p 0.6: 0.971
NO_HEAD = (math.nan, math.nan)

# text, label: layer 1              layer 2                    layer 3
#    A, 0      run, sure 0          skip (but A is gone)       run, sure 0
#    B, 1      skip, sure 0         run, likely 1 (0.469)      run, sure 0
#    C, 0      run, toss-up 1       skip, sure 1               skip, sure 0 (the last head, asked in any case)
RECORDING = Recording(
    skip_logits_rl=np.array([[RUN, SKIP, RUN], [SKIP, RUN, RUN], [RUN, SKIP, SKIP]], dtype=np.float32),
    logits_rlc=np.array(
        [[SURE_0, SURE_0, SURE_0], [SURE_0, LIKELY_1, SURE_0], [TOSS_1, SURE_1, SURE_0]], dtype=np.float32
    ),
    label_ids_r=np.array([0, 1, 0]),
)


def changing(count: int, of: int) -> Recording:
    """`of` texts of two layers, all sure of class 0 at layer 1; for `count` of them the last head says class 1.

    Entropy 6e-8 at layer 1: every threshold from 0.01 on changes exactly `count` answers.
    """
    last = [SURE_1] * count + [SURE_0] * (of - count)
    return Recording(
        skip_logits_rl=np.full((of, 2), RUN, dtype=np.float32),
        logits_rlc=np.array([[SURE_0, answer] for answer in last], dtype=np.float32),
        label_ids_r=np.zeros(of, dtype=np.int64),
    )


def answering(answers: list[str], skips: list[str] | None = None) -> Recording:
    """One row a string: each layer's head answers this class ("ABBB"), and its gate skips ("-") or runs ("#")."""
    skips = skips or ["#" * len(answers[0])] * len(answers)
    classes = np.array([[ord(answer) - ord("A") for answer in row] for row in answers])
    logits_rlc = np.where(np.arange(3) == classes[:, :, None], 1.0, 0.0)
    return Recording(
        skip_logits_rl=np.array([[SKIP if mark == "-" else RUN for mark in row] for row in skips], dtype=np.float32),
        logits_rlc=logits_rlc.astype(np.float32),
        label_ids_r=np.zeros(len(answers), dtype=np.int64),
    )
