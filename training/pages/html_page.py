"""Self-contained HTML pages that open from disk: Jinja templates and charts.

`base.html` is the frame of every page, `parts.html` has tables and figures. A page's template lies
beside the module that fills it.
"""

import base64
import io
import json
import math
import mimetypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from training.disk.plain_json import number
from training.pages.chart_text import as_drawn
from training.pages.wording import counted

Line = Sequence[float | None]


def write_page(file: Path, template: Path, **values: Any) -> Path:
    """Fill a template with escaped values and write the page."""
    file.write_text(environment(template.parent).get_template(template.name).render(values))
    return file


def environment(*folders: Path) -> Environment:
    """The templates of some folders and the shared ones."""
    jinja = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {"embedded": embedded, "shown": shown, "counted": counted, "json": _json}
    return jinja


def embedded(file: Path) -> str:
    """A picture or video as a data URI."""
    kind = mimetypes.guess_type(file.name)[0]
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


def shown(value: Any, form: str = ".4g") -> str:
    """A number for people, "-" for none; text stays."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    return f"{value:{form}}" if isinstance(value, float) else str(value)


WIDE = 36  # letters of a legend


def curves(
    title: str,
    xlabel: str,
    lines: Mapping[str, Line],
    x: Sequence[float] | None = None,
    bands: Mapping[str, tuple[Line, Line]] | None = None,
) -> Markup:
    """A chart of some lines over `x`, or over 1, 2, ...

    Args:
        bands: ends of the intervals of some lines.
    """
    chart = Figure(figsize=(4, 3), layout="constrained")
    axes = chart.subplots()
    for name, values in lines.items():
        at = x or range(1, 1 + len(values))
        (line,) = axes.plot(at, [number(v) for v in values], label=as_drawn(name), marker=".")
        if bands and name in bands:
            low, high = ([number(v) for v in end] for end in bands[name])
            axes.fill_between(at, low, high, color=line.get_color(), alpha=0.15, lw=0)
    axes.set(title=as_drawn(title), xlabel=as_drawn(xlabel))
    if len(lines) > 1:
        wide = max(map(len, lines)) > WIDE  # two such columns are wider than the chart
        chart.legend(fontsize=6, loc="outside lower center", ncols=1 if wide else 2)
    return svg(chart)


def svg(chart: Figure) -> Markup:
    """A chart as an element of the page."""
    for axes in chart.axes:
        axes.grid(alpha=0.3)
    buffer = io.StringIO()
    chart.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])


def _json(value: Any) -> str:
    return json.dumps(value, indent=1)
