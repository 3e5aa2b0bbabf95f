"""Parts of a self-contained HTML page: tables, charts, pictures, videos. Opens from disk."""

import base64
import html
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from training.disk.plain_json import number
from training.pages.chart_text import as_drawn

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1060px;margin:2em auto;padding:0 1em;color:#222}
h1{font-size:1.5em} h2{font-size:1.15em;margin-top:2em;border-bottom:1px solid #ddd}
table{border-collapse:collapse;margin:.6em 0} td,th{padding:.25em .9em;text-align:right;
border-bottom:1px solid #eee} td:first-child,th:first-child{text-align:left}
.model td{font-weight:600;background:#eef7f0} video,img{max-width:100%;image-rendering:pixelated}
figure{margin:.8em 0} figcaption{color:#666;font-size:.9em} pre{background:#f6f6f6;padding:1em;
overflow:auto;font-size:12px} .charts svg{width:32%;height:auto} small{color:#666}
"""


def page(title: str, body: Sequence[str]) -> str:
    """A whole page of HTML elements."""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<style>{STYLE}</style><body>{''.join(body)}</body></html>"
    )


def picture(path: Path, alt: str) -> str:
    """A PNG within the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f"<img src='data:image/png;base64,{data}' alt='{html.escape(alt)}'>"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], highlight: int = 0) -> str:
    """Rows of numbers and text (escaped); the first `highlight` rows stand out."""

    def cell(value: Any) -> str:
        if value is None or isinstance(value, float):
            return figure(value)
        return html.escape(str(value))

    lines = [f"<tr>{''.join(f'<th>{html.escape(h)}</th>' for h in head)}</tr>"]
    for index, row in enumerate(rows):
        mark = " class=model" if index < highlight else ""
        lines.append(f"<tr{mark}>{''.join(f'<td>{cell(v)}</td>' for v in row)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def figure(value: float | None, form: str = ".4g") -> str:
    """A number as people read it; "-" where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:{form}}"


def video(path: Path) -> str:
    """An MP4 that plays from within the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f"<video controls autoplay loop muted src='data:video/mp4;base64,{data}'></video>"


def curves(
    title: str,
    xlabel: str,
    lines: dict[str, Sequence[float | None]],
    x: Sequence[float] | None = None,
    start: int = 1,
) -> str:
    """A chart of some lines over `x`, or over 1, 2, ..."""
    chart, axes = plt.subplots(figsize=(4, 3))
    for name, values in lines.items():
        heights = [number(value) for value in values]
        axes.plot(x or range(start, start + len(values)), heights, label=as_drawn(name), marker=".")
    axes.set(title=as_drawn(title), xlabel=as_drawn(xlabel))
    if len(lines) > 1:
        axes.legend(fontsize=6)
    return svg(chart)


def svg(chart: Figure) -> str:
    """A chart as an element of the page; it is closed."""
    for axes in chart.axes:
        axes.grid(alpha=0.3)
    chart.tight_layout()
    buffer = io.StringIO()
    chart.savefig(buffer, format="svg")
    plt.close(chart)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
