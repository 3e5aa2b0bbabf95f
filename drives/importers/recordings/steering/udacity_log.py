"""Rows of a `driving_log.csv` as users have it: any code page, headers, decimal commas."""

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from drives.actions.logs import encoding_of
from training.errors import BadInput

COLUMNS = ("center", "left", "right", "steering", "throttle", "brake", "speed")
NUMBERS = COLUMNS[3:]
OTHER_NAMES = {
    "reverse": "brake",
    "brakes": "brake",
    "steering_angle": "steering",
    "centre": "center",
}
MOST_MPH = 200.0  # beyond any car of the simulator


class SimulatorRow(NamedTuple):
    """Path of the camera's image on the recording machine; steering, throttle, brake, speed."""

    image: str
    numbers: tuple[float, ...]


def read_rows(log: Path, camera: str) -> list[SimulatorRow]:
    """Every row of a log; BadInput where one cannot be read."""
    try:
        data = log.read_bytes()
        text = data.decode(encoding_of(data))
    except (OSError, ValueError) as error:
        raise BadInput(f"{log}: cannot be read ({error}); correct the file") from error
    lines = [line for line in text.splitlines() if line.strip()]
    delimiter = ";" if lines and lines[0].count(";") >= 3 else ","
    try:
        rows = [[c.strip() for c in row] for row in csv.reader(lines, delimiter=delimiter)]
    except csv.Error as error:
        raise BadInput(f"{log}: cannot be read ({error}); correct the file") from error
    columns = list(COLUMNS)
    if rows and _is_header(rows[0]):
        columns = [OTHER_NAMES.get(name.lower(), name.lower()) for name in rows[0]]
        missing = [name for name in (camera, *NUMBERS) if name not in columns]
        if missing:
            raise BadInput(
                f"{log}: columns are {','.join(rows[0])}; expected {','.join(COLUMNS)}, and there "
                f"is no {missing[0]}"
            )
    rows = [row for row in rows if not _is_header(row)]  # one per session, where logs were joined
    if not rows:
        raise BadInput(f"{log}: holds no rows; record something")
    return [_row(log, number, row, columns, camera) for number, row in enumerate(rows)]


def _is_header(row: Sequence[str]) -> bool:
    return bool({"center", "centre", "steering"} & {cell.lower() for cell in row})


def _row(log: Path, number: int, row: list[str], columns: list[str], camera: str) -> SimulatorRow:
    if len(row) > len(columns) and columns == list(COLUMNS):
        row = [*row[:3], *with_decimal_commas(log, number, row[3:])]
    if len(row) != len(columns):
        raise BadInput(f"{log}: row {number} has {len(row)} fields; {len(columns)} expected")
    cells = dict(zip(columns, row, strict=True))
    if not cells[camera]:
        raise BadInput(f"{log}: row {number} has no image of the {camera} camera; give --camera")
    try:
        numbers = tuple(float(cells[name].replace(",", ".")) for name in NUMBERS)
    except ValueError as error:
        raise BadInput(f"{log}: row {number}: {error}; correct or delete the row") from error
    return SimulatorRow(cells[camera], numbers)


def with_decimal_commas(log: Path, number: int, cells: Sequence[str]) -> list[str]:
    """Four numbers of cells that decimal commas tore apart.

    The simulator never presses both pedals, and .NET writes no zeros at a fraction's end: that
    leaves one reading of nearly every row.

    Raises:
        BadInput: no reading or several.
    """
    readings = _readings(cells)
    # What was no simulator may have written zeros at the end.
    strict = [parts for parts in readings if not any(_ends_in_zero(part) for part in parts)]
    found = strict or readings
    if len(found) != 1:
        text = ",".join(cells)
        raise BadInput(
            f"{log}: row {number}: {text!r} can be read in {len(found)} ways, for its decimal "
            "commas are its separators too; save the log with semicolons or decimal points"
        )
    return found[0]


def _readings(cells: Sequence[str]) -> list[list[str]]:
    """Every way to join neighbours that gives four possible numbers."""
    found = []
    for torn in itertools.combinations(range(len(NUMBERS)), len(cells) - len(NUMBERS)):
        widths = [2 if column in torn else 1 for column in range(len(NUMBERS))]
        ends = list(itertools.accumulate(widths))
        parts = [
            ",".join(cells[end - width : end]) for end, width in zip(ends, widths, strict=True)
        ]
        if ends[-1] == len(cells) and _is_possible(parts):
            found.append(parts)
    return found


def _ends_in_zero(part: str) -> bool:
    return "," in part and part.endswith("0")


def _is_possible(parts: Sequence[str]) -> bool:
    for part in parts:
        whole, comma, fraction = part.removeprefix("-").partition(",")
        torn = not comma or fraction.isdigit()
        if not whole.isdigit() or (len(whole) > 1 and whole[0] == "0") or not torn:
            return False
    steering, throttle, brake, speed = (float(part.replace(",", ".")) for part in parts)
    pedals = 0 <= throttle <= 1 and 0 <= brake <= 1 and throttle * brake == 0
    return abs(steering) <= 1 and pedals and 0 <= speed <= MOST_MPH


def name_of(image: str) -> str:
    """The file's name in a path of the recording machine, Windows or not."""
    return PureWindowsPath(image).name
