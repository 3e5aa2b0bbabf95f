"""The card `teacher_forced`: how well is the next token predicted from the real past?"""

import math
from collections import defaultdict
from typing import Any

import numpy as np

from worldmodel.evaluation.cards.config import TeacherForcedCard
from worldmodel.evaluation.cards.floors import floors_into
from worldmodel.evaluation.cards.result import Result
from worldmodel.evaluation.scores import WindowScores
from worldmodel.evaluation.subject import JudgedModel


def measure(subject: JudgedModel, card: TeacherForcedCard) -> Result:
    """Cross entropy in nats and bits per real token, accuracy and calibration, beside floors."""
    network = subject.network
    chosen = subject.windows(network.config.context_steps, card.num_windows)
    scores = subject.scores(chosen)
    result = Result(chosen.record(), chosen.drives, chosen.names)
    bits = scores.nats.mean(1).numpy() / math.log(2)
    result.score("world model", "nats_per_token", scores.nats.mean(1).numpy())
    result.score("world model", "bits_per_token", bits)
    result.score("world model", "accuracy", scores.correct.mean(1).numpy())
    for k, shares in scores.top.items():
        result.score("world model", f"top_{k}_accuracy", shares.numpy())
    floors_into(result, subject, chosen)
    result.details |= _details(scores, chosen.drives, bits)
    result.details["regime"] = (
        "temporally teacher-forced: the cells of a frame are predicted independently"
        if network.independent_cells
        else "fully teacher-forced: every real token is predicted from all real tokens before it"
    )
    return result


def _details(scores: WindowScores, drives: list[str], bits: np.ndarray) -> dict[str, Any]:
    by_drive: dict[str, list[float]] = defaultdict(list)
    for drive, value in zip(drives, bits.tolist(), strict=True):
        by_drive[drive].append(value)
    num, confidence, correct = (row.tolist() for row in scores.calibration)
    return {
        "bits_by_step": (scores.nats.mean(0) / math.log(2)).tolist(),
        "accuracy_by_step": scores.correct.mean(0).tolist(),
        "bits_by_cell": (scores.by_cell / math.log(2)).tolist(),
        "bits_by_drive": {drive: float(np.mean(values)) for drive, values in by_drive.items()},
        "calibration": [
            {"num": n, "confidence": c / n, "accuracy": a / n}
            for n, c, a in zip(num, confidence, correct, strict=True)
            if n
        ],
        "calibration_error": scores.calibration_error,
    }
