"""Cards as tables for the terminal."""

from collections.abc import Mapping
from typing import Any

from training.pages.html_page import shown
from training.pages.text_table import text_table
from training.pages.wording import counted


def table_of(cards: Mapping[str, Mapping[str, Any]]) -> str:
    """Every card as a table: systems as rows, scores with intervals as columns."""
    return "\n\n".join(_card(name, card) for name, card in cards.items())


def table_rows(card: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a card's scores; the first cell of a row names the system."""
    scores = card.get("scores", {})
    columns = list(dict.fromkeys(name for found in scores.values() for name in found))
    rows = [
        [system, *(interval(found.get(column)) for column in columns)]
        for system, found in scores.items()
    ]
    return ["", *columns], rows


def interval(estimate: Mapping[str, Any] | None) -> str:
    """ "2.314 [2.290, 2.341]"; "-" where there is nothing."""
    if estimate is None:
        return "-"
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    return shown(value) if low is None else f"{shown(value)} [{shown(low)}, {shown(high)}]"


def _card(name: str, card: Mapping[str, Any]) -> str:
    title = f"{name} (version {card['version']}, {card['hash']})"
    if "skipped" in card:
        return f"{title}\n  not measured: {card['skipped']}"
    lines = [title]
    if "clips" in card:
        clips = card["clips"]
        num = counted(clips["num"], "clip"), counted(clips["num_drives"], "drive")
        lines[0] += f": {num[0]} of {num[1]}, 95 % intervals"
    if card.get("scores"):
        columns, rows = table_rows(card)
        named = [
            [f"floor: {system}" if system in card["floors"] else system, *cells]
            for system, *cells in rows
        ]
        lines += [f"  {line}" for line in text_table(columns, named).splitlines()]
    lines += [f"  {key:24} {shown(value)}" for key, value in card.get("means", {}).items()]
    for direction in ("left", "straight", "right") if "steering" in card else ():
        motion = card["steering"][direction]["motion_px_per_frame"]
        lines.append(f"  steer {direction:9} scene moves {shown(motion, '+.2f')} px per frame")
    lines += [f"  {line}" for line in card.get("lines", ())]
    return "\n".join(lines)
