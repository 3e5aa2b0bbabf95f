"""The comparison as a text table and as an HTML page that opens from disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup
from matplotlib.figure import Figure

from training.pages import html_page
from training.pages.chart_text import as_drawn
from training.pages.text_table import text_table


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


def as_text(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """For a terminal."""
    return text_table(["tokenizer", *(c.head for c in COLUMNS)], _cells(rows))


def write_page(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write `compare.html`; `folder` holds `side_by_side.mp4`."""
    rows = result["tokenizers"]
    return html_page.write_page(
        folder / "compare.html",
        Path(__file__).with_name("compare.html"),
        **{key: result[key] for key in ("data", "where", "rfid")},
        heads=["", *(c.head + {"high": " +", "low": " -"}.get(c.better, "") for c in COLUMNS)],
        cells=_cells(rows, mark=True),
        meanings=MEANINGS,
        charts=_charts(rows),
        video=folder / "side_by_side.mp4",
        identities=[_identity(name, row) for name, row in rows.items()],
    )


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


def _charts(rows: Mapping[str, Mapping[str, Any]]) -> list[Markup]:
    """LPIPS, PSNR and flicker over bits per frame: hollow raw, filled entropy-coded."""
    charts = []
    for key, label in (("lpips", "LPIPS"), ("psnr", "PSNR (dB)"), ("flicker", "flicker")):
        chart = Figure(figsize=(4, 3), layout="constrained")
        axes = chart.subplots()
        for index, (name, row) in enumerate(rows.items()):
            bits = [row["bits_per_frame"], row["coded_bits_per_frame"]]
            colour = f"C{index % 10}"
            axes.plot(bits, [row[key]] * 2, "-", color=colour, lw=1)
            axes.plot(bits[:1], [row[key]], "o", color=colour, mfc="white")
            axes.plot(bits[1:], [row[key]], "o", color=colour, label=as_drawn(name))
        axes.set(xlabel="bits per frame (hollow: raw, filled: coded)", ylabel=label)
        axes.legend(fontsize=6)
        charts.append(html_page.svg(chart))
    return charts
