"""An inspection for people: text for a terminal, a contact sheet, and one HTML page."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from drives.inspect.findings import BINS, Findings
from drives.inspect.lag import OFFSETS
from drives.inspect.takes import Take, evenly
from training.errors import BadInput
from training.pages import html_page
from training.pages.chart_text import as_drawn
from training.pages.text_table import text_table
from training.pages.wording import counted

LEVELS = " .:-=+*#%@"
PICTURES, COLUMNS, WIDTH, LINE = 12, 4, 240, 16  # of the contact sheet; pixels
HEADS = ("action", "least", "1 %", "median", "99 %", "most", "mean", "std")


def as_text(found: Findings) -> str:
    """For a terminal."""
    lines = [f"{found.path}: {found.kind} ({found.text})", _amount(found)]
    for what, counts in _facts(found):
        lines.append(f"  {what}: " + ", ".join(f"{value} ({n})" for value, n in counts.items()))
    if found.actions.names:
        table = text_table([*HEADS, "how they are spread"], _rows(found, with_bars=True))
        lines += ["", *(f"  {line}" for line in table.splitlines())]
    lines += [f"gap: {name}: {gap}" for name, gap in found.gaps]
    lines += [
        f"lag of {lag.column}: {lag.offset} rows (95 % interval {lag.low} to {lag.high}, "
        f"correlation {max(lag.correlations):.2f}, {counted(lag.num_frames, 'frame')})"
        for lag in found.lags
        if lag.is_sure
    ]
    lines += [f"warning: {text}" for text in found.warnings]
    lines += [f"problem: {text}" for text in found.problems]
    return "\n".join(lines)


def write_page(file: Path, found: Findings, takes: Sequence[Take]) -> Path:
    """One page that opens from disk."""
    with TemporaryDirectory() as folder:
        sheet = contact_sheet(Path(folder) / "contact sheet.png", takes)
        return html_page.write_page(
            file,
            Path(__file__).with_name("page.html"),
            found=found,
            amount=_amount(found),
            facts=[[what, _joined(counts)] for what, counts in _facts(found)],
            heads=HEADS,
            rows=_rows(found),
            charts=[_histogram(name, found) for name in found.histograms],
            lags=[
                html_page.curves(
                    f"{lag.column}: best at {lag.offset}",
                    "rows by which the column is moved",
                    {"correlation with the motion of the scene": lag.correlations},
                    OFFSETS,
                )
                for lag in found.lags
                if lag.is_sure
            ],
            sheet=sheet,
        )


def contact_sheet(file: Path, takes: Sequence[Take]) -> Path | None:
    """Write a picture of frames from all recordings, evenly chosen; None where there is none."""
    chosen = [(take, 0.5) for take in evenly(takes, PICTURES) if take.num_frames]
    each = PICTURES // len(chosen) if chosen else 0
    places = [(take, (i + 0.5) / each) for take, _ in chosen for i in range(each)]
    pictures = [picture for place in places if (picture := _picture(*place)) is not None]
    if not pictures:
        return None
    height = max(picture.height for picture in pictures)
    num_rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * WIDTH, num_rows * height), "white")
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index % COLUMNS * WIDTH, index // COLUMNS * height))
    sheet.save(file)
    return file


def _picture(take: Take, share: float) -> Image.Image | None:
    number = int(share * take.num_frames)
    try:
        frame = next(islice(take.read(number, number + 1), 1))
    except BadInput:  # named among the problems when it is imported or trained on
        return None
    image = Image.fromarray(frame)
    height = max(1, round(WIDTH * image.height / image.width))
    picture = Image.new("RGB", (WIDTH, height + LINE), "white")
    way = Image.Resampling.BILINEAR if image.width > WIDTH else Image.Resampling.NEAREST
    picture.paste(image.resize((WIDTH, height), way))
    said = f"{take.id[-24:]} {number}".encode("ascii", "replace").decode()  # Pillow's own font
    ImageDraw.Draw(picture).text((2, height + 2), said, fill="black")
    return picture


def _amount(found: Findings) -> str:
    if not found.num_found:
        return "  not opened: python -m drives.importers makes it a token store, or data= takes it"
    read = "" if found.num_read == found.num_found else f", of which {found.num_read} were read"
    return f"  {counted(found.num_found, 'recording')}{read}: {found.hours:.3g} hours"


def _facts(found: Findings) -> list[tuple[str, dict[str, int]]]:
    facts = [("splits", found.splits), ("fps", found.rates)]
    return [*facts, ("height x width", found.sizes)] if found.num_read else []


def _joined(counts: dict[str, int]) -> str:
    return ", ".join(f"{value} ({number})" for value, number in counts.items())


def _rows(found: Findings, with_bars: bool = False) -> list[list[str | float]]:
    rows: list[list[str | float]] = []
    for index, name in enumerate(found.histograms):
        low, first, _, middle, _, last, high = found.actions.quantiles[index]
        row: list[str | float] = [name, low, first, middle, last, high]
        row += [found.actions.mean[index], found.actions.std[index]]
        rows.append([*row, _bars(found.histograms[name])] if with_bars else row)
    return rows


def _bars(counts: Sequence[int]) -> str:
    """A histogram in one line; a bin that is not empty has at least a dot."""
    most = max(1, *counts)
    return "|" + "".join(LEVELS[-(-count * (len(LEVELS) - 1) // most)] for count in counts) + "|"


def _histogram(name: str, found: Findings) -> Markup:
    index = found.actions.names.index(name)
    low, high = found.actions.quantiles[index][0], found.actions.quantiles[index][-1]
    chart = Figure(figsize=(4, 2.2), layout="constrained")
    axes = chart.subplots()
    step = (high - low) / BINS or 1.0
    axes.bar([low + (i + 0.5) * step for i in range(BINS)], found.histograms[name], step)
    axes.set(title=as_drawn(name), ylabel="rows")
    return html_page.svg(chart)
