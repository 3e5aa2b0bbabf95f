"""The comparison as a text table and as an HTML page that opens from disk."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt

from training.pages.chart_text import as_drawn
from training.pages.html_page import page, svg, table, video
from training.sweeps.table import render


class Column(NamedTuple):
    """A column: key of `Scores`, heading, number format, and which end is better."""

    key: str
    head: str
    form: str
    better: str = ""  # "high", "low", or neither


COLUMNS = (
    Column("psnr", "PSNR dB", ".2f", "high"),
    Column("ssim", "SSIM", ".4f", "high"),
    Column("lpips", "LPIPS", ".4f", "low"),
    Column("rfid", "rFID", ".2f", "low"),
    Column("flicker", "flicker", ".3f", "low"),
    Column("still_flicker", "still", ".3f", "low"),
    Column("usage", "usage", ".1%"),
    Column("entropy_bits", "entropy", ".2f"),
    Column("tokens_per_frame", "tokens", "g"),
    Column("bits_per_frame", "bits", ".0f"),
    Column("coded_bits_per_frame", "coded", ".0f"),
    Column("encode_fps", "enc. f/s", ".0f"),
    Column("decode_fps", "dec. f/s", ".0f"),
    Column("num_parameters", "params", ",d"),
)
MEANINGS = (
    ("PSNR, SSIM, LPIPS", "means over frames, against what the camera saw"),
    ("flicker", "mean error of the change from frame to frame, in 8-bit levels; still: mean "
     "change where the recording stands still (it changes by at most 2 levels)"),
    ("usage, entropy", "share of the codes that occur, and bits per token of their frequencies"),
    ("bits, coded", "bits per frame: every code equally long, and written by an adaptive "
     "arithmetic coder that knows nothing in advance"),
    ("f/s", "frames per second of encode and decode, in batches of 33, on this machine"),
)  # fmt: skip


def text_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """For a terminal."""
    return render(["tokenizer", *(c.head for c in COLUMNS)], _cells(rows))


def write_page(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write `compare.html`; `folder` holds `side_by_side.mp4`."""
    rows = result["tokenizers"]
    heads = ["", *(c.head + {"high": " +", "low": " -"}.get(c.better, "") for c in COLUMNS)]
    data = result["data"]
    facts = f"{data['num_frames']} frames, drives: {data['num_drives']} ({data['split']} split of "
    facts += (
        f"{data['drives']}), compared at {data['size'][0]}x{data['size'][1]}; {result['where']}"
    )
    meanings = "".join(
        f"<li><b>{html.escape(what)}</b>: {html.escape(means)}</li>" for what, means in MEANINGS
    )
    body = [
        "<style>body{max-width:1400px} td,th{padding:.25em .6em}</style>",
        "<h1>Tokenizers compared</h1>",
        f"<p><small>{html.escape(facts)}</small></p>",
        table(heads, _cells(rows, mark=True)),
        f"<p><small>+ more is better, - less is better; * the best. rFID: "
        f"{html.escape(result['rfid'])}.</small></p><ul><small>{meanings}</small></ul>",
        f"<h2>Quality against bits</h2><div class=charts>{_charts(rows)}</div>",
        f"<h2>Side by side</h2><figure>{video(folder / 'side_by_side.mp4')}<figcaption>Left: what "
        f"the camera saw. {data['fps']:g} frames per second.</figcaption></figure>",
        "<h2>What they are</h2>",
        table(
            ["", "opened from", "sha256", "frames", "vocabulary"],
            [_identity(name, row) for name, row in rows.items()],
        ),
    ]
    path = folder / "compare.html"
    path.write_text(page("Tokenizers compared", body))
    return path


def _cells(rows: Mapping[str, Mapping[str, Any]], mark: bool = False) -> list[list[str]]:
    """Names and formatted values; a star marks the best of several."""
    lines = [[name] for name in rows]
    for column in COLUMNS:
        values = [row[column.key] for row in rows.values()]
        known = [value for value in values if value is not None]
        best = None
        if mark and column.better and len(known) > 1:
            best = max(known) if column.better == "high" else min(known)
        for line, value in zip(lines, values, strict=True):
            star = " *" if best is not None and value == best else ""
            line.append("-" if value is None else f"{value:{column.form}}{star}")
    return lines


def _identity(name: str, row: Mapping[str, Any]) -> Sequence[str]:
    height, width = row["image_size"]
    return [name, row["path"], row["hash"][:16], f"{height}x{width}", str(row["vocab_size"])]


def _charts(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """LPIPS, PSNR and flicker over bits per frame: hollow raw, filled entropy-coded."""
    charts = []
    for key, label in (("lpips", "LPIPS"), ("psnr", "PSNR (dB)"), ("flicker", "flicker")):
        figure, axes = plt.subplots(figsize=(4, 3))
        for index, (name, row) in enumerate(rows.items()):
            bits = [row["bits_per_frame"], row["coded_bits_per_frame"]]
            colour = f"C{index % 10}"
            axes.plot(bits, [row[key]] * 2, "-", color=colour, lw=1)
            axes.plot(bits[:1], [row[key]], "o", color=colour, mfc="white")
            axes.plot(bits[1:], [row[key]], "o", color=colour, label=as_drawn(name))
        axes.set(xlabel="bits per frame (hollow: raw, filled: coded)", ylabel=label)
        axes.legend(fontsize=6)
        charts.append(svg(figure))
    return "".join(charts)
