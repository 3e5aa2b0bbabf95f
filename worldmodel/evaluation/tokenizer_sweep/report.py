"""Rate, distortion and predictability: a table and a plot."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from training.disk.plain_json import number
from training.pages.chart_text import as_drawn
from training.pages.text_table import text_table

RATES = ("raw", "coded", "predicted")
COLUMNS = ("tokenizer", "LPIPS", "PSNR dB", *(f"{rate} bits" for rate in RATES), "tokens", "usage")

SHOWN = ("lpips", "psnr", "tokens_per_frame", "usage")


def table(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows by bits after prediction; `<` marks those that another one beats in bits and LPIPS."""
    ordered = sorted(entries.items(), key=lambda item: item[1]["predicted_bits_per_frame"])
    rows, best = [], float("inf")
    for name, entry in ordered:
        scores = {name: number(entry["scores"][name]) for name in SHOWN}
        values = [f"{bits:.0f}" for bits in rates(entry)]
        worse = scores["lpips"] >= best
        best = min(best, scores["lpips"])
        rows.append(
            [
                name,
                f"{scores['lpips']:.4f}{' <' if worse else ''}",
                f"{scores['psnr']:.2f}",
                *values,
                f"{scores['tokens_per_frame']:g}",
                f"{scores['usage']:.1%}",
            ]
        )
    any_entry = ordered[0][1]
    lines = [
        text_table(COLUMNS, rows),
        "",
        "bits per frame: raw, every code equally long; coded, by its frequency; predicted, the "
        "probe's teacher-forced cross entropy",
        "<: another one has fewer bits after prediction and a better LPIPS",
        f"every probe: {any_entry['probe_steps']} steps, {any_entry['probe_windows']} windows",
    ]
    return "\n".join(lines) + "\n"


def rates(entry: Mapping[str, Any]) -> tuple[float, float, float]:
    """Bits per frame: raw, coded, predicted."""
    scores = entry["scores"]
    predicted = entry["predicted_bits_per_frame"]
    return scores["bits_per_frame"], scores["coded_bits_per_frame"], predicted


def plot(file: Path, title: str, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Plot LPIPS over bits per frame: raw (hollow), coded (small), predicted (full)."""
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axes = figure.subplots()
    for index, (name, entry) in enumerate(entries.items()):
        colour, lpips = f"C{index % 10}", entry["scores"]["lpips"]
        raw, coded, predicted = rates(entry)
        axes.plot([raw, coded, predicted], [lpips] * 3, "-", color=colour, lw=1, alpha=0.6)
        axes.plot([raw], [lpips], "o", color=colour, mfc="white", ms=7)
        axes.plot([coded], [lpips], ".", color=colour, ms=6)
        axes.plot([predicted], [lpips], "o", color=colour, ms=9, label=as_drawn(name))
        axes.annotate(
            as_drawn(name), (predicted, lpips), (0, 7), textcoords="offset points", fontsize=8
        )
    axes.set(
        xscale="log", xlabel="bits per frame (hollow: raw, dot: coded, full: after prediction)"
    )
    axes.set(ylabel="LPIPS (alex), lower is better", title=as_drawn(title))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.set_minor_formatter("{x:.0f}")
    axes.grid(alpha=0.3, which="both")
    figure.savefig(file, dpi=130)
