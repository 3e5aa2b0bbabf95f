"""Reports a ladder: the score of its prediction, a table, and a plot."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from training.disk.plain_json import to_json
from training.errors import BadInput
from training.pages.chart_text import as_drawn
from training.pages.text_table import text_table
from training.scaling.fit import PowerLaw, fit_power_law
from training.scaling.ladder import Ladder
from training.scaling.points import Point

UNITS = {"compute": "compute C = 6 N x tokens (FLOP)", "parameters": "parameters N"}


def scores(
    ladder: Ladder,
    law: PowerLaw,
    points: Sequence[Point],
    prediction: dict[str, Any],
    reached: Sequence[Point],
    exact_floors: dict[str, float],
) -> dict[str, Any]:
    """The content of scaling.json: predicted and reached losses, beside trivial guesses.

    Raises:
        BadInput: a run began before its prediction was written.
    """
    everything = [*points, *reached]
    after = fit_power_law(*(np.array([getattr(p, k) for p in everything]) for k in ("x", "loss")))
    runs = zip(prediction["predictions"], reached, strict=True)
    return {
        "ladder": ladder.name,
        "x": ladder.x,
        "metric": ladder.metric,
        "confidence": ladder.confidence,
        "prediction_written": prediction["written"],
        "points": [asdict(point) for point in points],
        "law": _facts(law, ladder.confidence),
        "predictions": [_score(law, said, run, prediction["time"]) for said, run in runs],
        "law_with_the_predicted": _facts(after, ladder.confidence),
        "exact_floors": exact_floors,
    }


def table(result: dict[str, Any]) -> str:
    """The scores as text."""
    unit = "FLOP" if result["x"] == "compute" else "N"
    size = ("rung", "parameters", "tokens", "x")
    rows: list[list[Any]] = [
        [*(p[key] for key in size), p["loss"], None, None] for p in result["points"]
    ]
    for p in result["predictions"]:
        rows.append([*(p[key] for key in size), p["reached"], p["loss"], p["relative_error"]])
        for name, guess in p["guesses"].items():
            rows.append([f"  {name}", None, None, None, None, guess["loss"], guess["error"]])
    for row in rows:
        row[-1] = "" if row[-1] is None else f"{100 * row[-1]:+.2f} %"
    columns = ["run", "N", "tokens", unit, "loss", "predicted", "error"]
    share = f"{100 * result['confidence']:g} %"
    lines = [text_table(columns, rows), ""]
    for p in result["predictions"]:
        verdict = "inside" if p["inside"] else "OUTSIDE"
        band = f"{p['low']:.4g} to {p['high']:.4g}"
        lines.append(f"{p['rung']}: {p['reached']:.4g} is {verdict} its {share} band, {band}")
    for name, key in (("law", "law"), ("with the predicted", "law_with_the_predicted")):
        lines.append(f"{name}: {_sentence(result[key], share, unit)}")
    low, high = result["law"]["c_interval"]
    for name, exact in result["exact_floors"].items():
        verdict = "inside" if low <= exact <= high else "OUTSIDE"
        lines.append(f"exact floor, {name}: {exact:.4g} is {verdict} the interval of c")
    lines.append(f"the prediction was written {result['prediction_written']}, before its run began")
    return "\n".join(lines) + "\n"


def write_report(folder: Path, law: PowerLaw, result: dict[str, Any]) -> None:
    """scaling.json, scaling.txt and scaling.png."""
    (folder / "scaling.json").write_text(to_json(result) + "\n")
    (folder / "scaling.txt").write_text(table(result))
    plot(folder / "scaling.png", law, result)


def plot(file: Path, law: PowerLaw, result: dict[str, Any]) -> None:
    """Loss against x, both logarithmic: points, law, band, floors, predicted and reached."""
    larger, floors = result["predictions"], result["exact_floors"]
    far = [p["x"] for p in larger]
    xs = np.geomspace(0.8 * min([*law.x, *far]), 1.6 * max([*law.x, *far]), 60)
    low, high = np.array([law.band(x, result["confidence"]) for x in xs]).T
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axes = figure.subplots()
    share = f"{100 * result['confidence']:g} %"
    axes.fill_between(xs, low, high, alpha=0.2, label=f"{share} band of a new run")
    axes.plot(xs, [law.at(x) for x in xs], color="C0", label=f"c + (x / a)^b, b = {law.b:.2f}")
    rungs = result["points"]
    axes.plot([p["x"] for p in rungs], [p["loss"] for p in rungs], "oC0", ms=4, label="rungs")
    axes.plot(far, [p["loss"] for p in larger], "oC1", mfc="none", ms=10, label="predicted")
    axes.plot(far, [p["reached"] for p in larger], "*C3", ms=10, label="reached")
    axes.axhline(law.c, ls="--", lw=1, color="C0", label=f"fitted floor c = {law.c:.3f}")
    for style, (name, exact) in zip(((0, (1, 1)), "-."), floors.items(), strict=False):
        axes.axhline(exact, ls=style, lw=1.2, color="k", label=as_drawn(f"{name} {exact:.3f}"))
    axes.set(
        xscale="log", yscale="log", xlabel=UNITS[result["x"]], title=as_drawn(result["ladder"])
    )
    axes.set_ylabel(as_drawn(f"{result['metric']} (nats per token)"))
    bottom = min(value for value in (low.min(), law.c, *floors.values()) if value > 0)
    axes.set_ylim(0.99 * max(bottom, 0.5 * law.loss.min()), 1.02 * law.loss.max())
    axes.yaxis.set_major_formatter("{x:.3g}")
    axes.yaxis.set_minor_formatter("{x:.3g}")
    axes.legend(fontsize=8)
    figure.savefig(file, dpi=130)


def _score(law: PowerLaw, said: dict[str, Any], point: Point, written: float) -> dict[str, Any]:
    if point.began < written:
        raise BadInput(
            f"{point.run}: began before its prediction was written, so there is nothing to score; "
            "make it one of the rungs and predict a larger one"
        )
    guesses = {
        "as good as the largest rungs": float(law.loss[np.argmax(law.x)]),
        "by a power law without floor": _without_floor(law, point.x),
    }
    return {
        **said,
        "reached": point.loss,
        "inside": said["low"] <= point.loss <= said["high"],
        "relative_error": said["loss"] / point.loss - 1,
        "guesses": {k: {"loss": v, "error": v / point.loss - 1} for k, v in guesses.items()},
    }


def _facts(law: PowerLaw, confidence: float) -> dict[str, Any]:
    return {
        **{key: getattr(law, key) for key in ("a", "b", "c", "noise", "degrees_of_freedom")},
        "b_interval": law.exponent_interval(confidence),
        "c_interval": law.floor_interval(confidence),
    }


def _sentence(law: dict[str, Any], share: str, unit: str) -> str:
    (c_low, c_high), (b_low, b_high) = law["c_interval"], law["b_interval"]
    return (
        f"c {law['c']:.4g} ({share}: {c_low:.4g} to {c_high:.4g}), "
        f"b {law['b']:.3g} ({b_low:.3g} to {b_high:.3g}), a {law['a']:.3g} {unit}, "
        f"noise {100 * law['noise']:.2g} %, {law['degrees_of_freedom']} degrees of freedom"
    )


def _without_floor(law: PowerLaw, x: float) -> float:
    """A straight line in log-log, prolonged."""
    slope, offset = np.polyfit(np.log(law.x), np.log(law.loss), 1)
    return float(np.exp(offset + slope * np.log(x)))
