"""Total size, model included, against minutes of driving: where a model begins to pay for itself.

A packed model costs its bytes once, then its bits per token; a general compressor costs nothing
first, and learns from what it has read. Its bits are measured on the first eighth, quarter, half
and all of the tokens, and go on by the power law A n^-a that fits them best. A model's bits are
those of the tokens that it is given, at any length: which assumes that other drives are as hard.
"""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer
from matplotlib.figure import Figure

from training.disk.leftovers import written_whole
from training.disk.places import refuse_existing, writable_file
from training.errors import BadInput
from training.pages.html_page import svg
from training.pages.text_table import text_table
from worldmodel.codec.compress import compress, measured
from worldmodel.codec.distributions.models import open_models
from worldmodel.codec.options import CodecOptions
from worldmodel.codec.packed import is_packed
from worldmodel.codec.rivals import rivals
from worldmodel.codec.tokens import open_tokens

PARTS = (8, 4, 2, 1)  # the shares of the tokens that a rival is measured on
LONGEST = 1e7  # minutes
PROJECTED = 5000.0  # minutes: the size of commaVQ's challenge


@dataclass(frozen=True)
class Cost:
    """What a codec needs: bytes at first, and bits per token that fall as n^-slope.

    Attributes:
        bits: of a token, after `tokens` of them.
    """

    name: str
    bytes: float
    bits: float
    slope: float = 0.0
    tokens: float = 1.0

    def total(self, tokens: float) -> float:
        """Bytes of so many tokens, with the model."""
        return self.bytes + tokens * self.bits * (tokens / self.tokens) ** -self.slope / 8


def crossing(ours: Cost, theirs: Cost, per_minute: float) -> tuple[float, float] | None:
    """Minutes between which ours is smaller, up to `LONGEST`; None: nowhere.

    A rival that goes on learning comes back: the model's bits do not fall.
    """
    minutes = np.geomspace(1e-2, LONGEST, 4000)
    wins = [ours.total(m * per_minute) < theirs.total(m * per_minute) for m in minutes]
    if True not in wins:
        return None
    first = wins.index(True)
    last = wins.index(False, first) if False in wins[first:] else len(wins) - 1
    return float(minutes[first]), float(minutes[last])


def falling(tokens: Integer[np.ndarray, "step *grid"], vocab_size: int) -> Cost:
    """The best general compressor here, and its power law."""
    if len(tokens) < 2 * PARTS[0]:
        raise BadInput(f"{len(tokens)} time steps tell no power law; give {2 * PARTS[0]} or more")
    sizes = [rivals(tokens[: len(tokens) // part], vocab_size) for part in PARTS]
    whole = {name: size for name, size in sizes[-1].items() if size is not None}
    if not whole:
        raise BadInput("too many tokens for other codecs; give some minutes of them")
    name = min(whole, key=lambda name: whole[name])
    counts = [tokens[: len(tokens) // part].size for part in PARTS]
    bits = [8 * (own[name] or 0) / count for own, count in zip(sizes, counts, strict=True)]
    slope = -float(np.polyfit(np.log(counts), np.log(bits), 1)[0])
    return Cost(name, 0.0, bits[-1], max(0.0, slope), counts[-1])


def budget(source: Path, ckpts: Sequence[str], out: Path, cache: str = "data") -> str:
    """Code the tokens by each packed model; write the chart `out`, return the table.

    Raises:
        BadInput: as `compress`; or a model that is not packed.
    """
    out = writable_file("out", out)
    refuse_existing("out", out)
    if loose := [ckpt for ckpt in ckpts if not is_packed(Path(ckpt))]:
        raise BadInput(f"ckpt={loose[0]}: its bytes are counted; pack it first")
    models = open_models(ckpts)
    given = open_tokens(source, models[0].spec, None, cache)
    tokens = np.concatenate([drive.tokens for drive in given.drives])
    rival = falling(tokens, given.spec.vocab_size)
    costs = []
    for ckpt in ckpts:
        with tempfile.TemporaryDirectory() as folder:
            compress(source, path := Path(folder, "a.codec"), CodecOptions(ckpt=ckpt), cache)
            coded = measured(path)
        bits = 8 * coded.code_bytes / coded.num_tokens
        costs.append(Cost(Path(ckpt).name, Path(ckpt).stat().st_size, bits))
    per_minute = 60 / models[0].spec.step_s * models[0].spec.tokens_per_step
    with written_whole(out) as partial:
        partial.write_text(_chart([*costs, rival], per_minute))
    return _table(costs, rival, per_minute, math.log2(given.spec.vocab_size))


def _table(costs: Sequence[Cost], rival: Cost, per_minute: float, raw: float) -> str:
    far = PROJECTED * per_minute
    rows = [
        (
            cost.name,
            int(cost.bytes),
            cost.bits,
            _span(crossing(cost, rival, per_minute)),
            raw * far / 8 / cost.total(far),
            raw / cost.bits,
        )
        for cost in (*costs, rival)
    ]
    smaller = f"smaller than {rival.name}, minutes"
    heads = [
        "codec",
        "bytes",
        "bits per token",
        smaller,
        f"rate at {PROJECTED:g} min",
        "rate, free",
    ]
    law = f"{rival.name}: {rival.bits:.3f} bits (n / {rival.tokens:.0f} tokens)^-{rival.slope:.4f}"
    return f"{text_table(heads, rows)}\n{law}"


def _span(minutes: tuple[float, float] | None) -> str:
    if minutes is None:
        return "never"
    first, last = minutes
    return f"from {first:.3g}" if last == LONGEST else f"{first:.3g} to {last:.3g}"


def _chart(costs: Sequence[Cost], per_minute: float) -> str:
    chart = Figure(figsize=(6, 4), layout="constrained")
    axes = chart.subplots()
    minutes = np.geomspace(0.1, PROJECTED, 200)
    for cost in costs:
        bits = [8 * cost.total(m * per_minute) / (m * per_minute) for m in minutes]
        axes.plot(minutes, bits, label=cost.name)
    axes.set(xscale="log", yscale="log", xlabel="minutes of driving")
    axes.set(ylabel="bits per token, model included")
    chart.legend(fontsize=7, loc="outside lower center", ncols=2)
    return str(svg(chart))
