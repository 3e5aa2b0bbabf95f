"""Tables as plain text for terminals, and as markdown."""

from collections.abc import Iterable, Sequence
from typing import Any

MAX_WIDTH = 60


def text_table(columns: Sequence[str], cells: Sequence[Sequence[Any]]) -> str:
    """Numbers to the right, words to the left, two spaces between columns; None is a dash."""
    texts = [list(columns), *([_short(value) for value in row] for row in cells)]
    padded = []
    for index, column in enumerate(zip(*texts, strict=True)):
        numeric = all(isinstance(row[index], int | float | None) for row in cells)
        right, width = numeric or columns[index] == "step", max(map(len, column))
        padded.append([text.rjust(width) if right else text.ljust(width) for text in column])
    return "\n".join("  ".join(line).rstrip() for line in zip(*padded, strict=True))


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def _short(value: Any) -> str:
    if value is None or value == "":
        return "-"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= MAX_WIDTH else text[: MAX_WIDTH - 3] + "..."
