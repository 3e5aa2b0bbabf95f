"""The card `reconstruction`: how close are a tokenizer's reconstructions?"""

from collections.abc import Sequence
from pathlib import Path

from drives.drive import Drive
from tokenizer.evaluation import evaluate_tokenizer
from tokenizer.load import Tokenizer
from tokenizer.losses.lpips import PerceptualDistance
from worldmodel.evaluation.cards.config import ReconstructionCard
from worldmodel.evaluation.cards.result import Result

TOKENIZER = "tokenizer"


def measure(
    tokenizer: Tokenizer,
    drives: Sequence[Drive],
    perceptual: PerceptualDistance | None,
    device: str,
    card: ReconstructionCard,
    out: Path,
) -> Result:
    """Scores of every frame with intervals over drives, and statistics of the codes."""
    found = evaluate_tokenizer(tokenizer, drives, perceptual, device, card.max_frames, out)
    record = {
        "num": len(found.names),
        "num_drives": found.facts["num_drives"],
        "ids": found.names,
        "sha256": found.sha256,
    }
    result = Result(record, found.drives, found.names)
    for name, values in found.scores.items():
        result.score(TOKENIZER, name, values)
    result.details["means"] = found.facts
    return result
