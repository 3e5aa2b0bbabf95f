"""Total size, model included, against minutes of driving: where models pay for their bytes."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.disk.leftovers import written_whole
from training.disk.places import refuse_existing, writable_file
from training.errors import BadInput
from training.pages.html_page import svg
from training.pages.text_table import text_table
from worldmodel.codec.compress import compress, measured
from worldmodel.codec.crossing import LONGEST, Cost, Costs, along, crossing, falling, law_over
from worldmodel.codec.distributions.models import open_models
from worldmodel.codec.options import CodecOptions
from worldmodel.codec.packing.packed import is_packed
from worldmodel.codec.tokens import open_tokens

PROJECTED = 5000.0  # minutes: the size of commaVQ's challenge


@dataclass(frozen=True)
class PackedCost:
    """A packed model and its training.

    Attributes:
        steps: optimizer steps; None where the file does not say.
        frames: of the drives that it was trained on.
    """

    cost: Cost
    steps: int | None
    frames: int | None


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
    found = []
    for ckpt, model in zip(ckpts, models, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            compress(source, path := Path(folder, "a.codec"), CodecOptions(ckpt=ckpt), cache)
            coded = measured(path)
        bits = 8 * coded.code_bytes / coded.num_tokens
        cost = Cost(Path(ckpt).name, Path(ckpt).stat().st_size, bits)
        told = model.manifest.get("trained", {})
        found.append(PackedCost(cost, told.get("steps"), told.get("frames")))
    per_minute = 60 / models[0].spec.step_s * models[0].spec.tokens_per_step
    with written_whole(out) as partial:
        partial.write_text(_chart(found, rival, per_minute, tokens.size))
    return _table(found, rival, per_minute, tokens.size, math.log2(given.spec.vocab_size))


def _table(
    found: Sequence[PackedCost], rival: Cost, per_minute: float, tokens: int, raw: float
) -> str:
    far = PROJECTED * per_minute
    rows = [
        (
            own.cost.name,
            own.steps,
            own.frames,
            int(own.cost.bytes),
            own.cost.bits,
            int(own.cost.total(tokens)),
            _span(crossing(own.cost, rival, per_minute)),
            raw * far / 8 / own.cost.total(far),
            raw / own.cost.bits,
        )
        for own in (*found, PackedCost(rival, None, None))
    ]
    heads = [
        "codec",
        "steps",
        "frames",
        "bytes",
        "bits per token",
        "bytes in all, here",
        f"smaller than {rival.name}, minutes",
        f"rate at {PROJECTED:g} min",
        "rate, free",
    ]
    law = f"{rival.name}: {rival.bits:.3f} bits (n / {rival.tokens:.0f} tokens)^-{rival.slope:.4f}"
    return "\n".join([text_table(heads, rows), law, *_over_sizes(found, rival, per_minute)])


def _over_sizes(found: Sequence[PackedCost], rival: Cost, per_minute: float) -> list[str]:
    """The law over the sizes of the longest training, and where it crosses the rival."""
    longest = max((own.frames or 0, own.steps or 0) for own in found)
    alike = [own.cost for own in found if (own.frames or 0, own.steps or 0) == longest]
    law = law_over(alike)
    if law is None:
        return []
    fit, low, high = along(law)
    spans = [crossing(costs, rival, per_minute) for costs in (fit, low, high)]
    begins = [f"{span[0]:.3g}" if span else "never" for span in spans]
    size = f" with {fit.best(spans[0][0] * per_minute):.0f} bytes" if spans[0] else ""
    return [
        f"over {len(alike)} sizes: {law.c:.3f} + (bytes / {law.a:.3g})^{law.b:.3f} bits; smaller "
        f"than {rival.name} from {begins[0]} minutes [{begins[1]}, {begins[2]}]{size}"
    ]


def _span(minutes: tuple[float, float] | None) -> str:
    if minutes is None:
        return "never"
    first, last = minutes
    return f"from {first:.3g}" if last == LONGEST else f"{first:.3g} to {last:.3g}"


def _chart(found: Sequence[PackedCost], rival: Cost, per_minute: float, tokens: int) -> str:
    chart = Figure(figsize=(6, 4), layout="constrained")
    told = [own for own in found if own.steps is not None and own.frames is not None]
    axes = list(chart.subplots(1, 2 if told else 1, squeeze=False)[0])
    minutes = np.geomspace(0.1, PROJECTED, 200)
    costs: list[tuple[str, Costs]] = [(cost.name, cost) for cost in (*_costs(found), rival)]
    for name, cost in costs:
        bits = [8 * cost.total(m * per_minute) / (m * per_minute) for m in minutes]
        axes[0].plot(minutes, bits, label=name)
    axes[0].set(xscale="log", yscale="log", xlabel="minutes of driving")
    axes[0].set(ylabel="bits per token, model included")
    if told:
        chart.set_size_inches(10, 4)
        _by_training(axes[1], told, tokens)
    chart.legend(fontsize=7, loc="outside lower center", ncols=2)
    return str(svg(chart))


def _costs(found: Sequence[PackedCost]) -> list[Cost]:
    return [own.cost for own in found]


def _by_training(axes: Axes, told: Sequence[PackedCost], tokens: int) -> None:
    """Bytes in all of these tokens against optimizer steps; a line for every size of the data."""
    for frames in sorted({own.frames for own in told}, key=lambda frames: frames or 0):
        own = [each for each in told if each.frames == frames]
        best = {
            steps: min(each.cost.total(tokens) for each in own if each.steps == steps)
            for steps in sorted({each.steps or 0 for each in own})
        }
        axes.plot(list(best), list(best.values()), "o-", label=f"best of {frames} train frames")
    axes.set(xscale="log", xlabel="optimizer steps", ylabel="bytes in all of these tokens")
