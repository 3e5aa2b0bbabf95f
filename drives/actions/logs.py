"""Tables as people, spreadsheets and loggers write them: any spelling, units, clocks, separators.

A drive's own table is stricter: `drives.actions.table`.
"""

import codecs
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Float

from drives.actions.table import NUMBER
from drives.actions.units import is_index, is_time, normalised, to_seconds, to_si
from training.errors import BadInput

logger = logging.getLogger(__name__)

SEPARATORS = ",;\t|"
HEAD_BYTES = 1 << 16
# UTF-32's mark begins with that of UTF-16, so it comes first.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


@dataclass(frozen=True)
class Log:
    """A table with our names, in SI units, without the columns that number or time its rows.

    Attributes:
        values: float64 [row column]; empty cells are NaN.
        times_s: float64 [row], of the first clock among the columns; None: there is none.
        clock: its column, as it was written.
        left_out: indices, clocks, texts and empty columns, as they were written.
        texts: cells of the columns of text, by their names as written.
    """

    file: Path
    names: tuple[str, ...]
    values: Float[np.ndarray, "row column"] = field(repr=False)
    times_s: Float[np.ndarray, " row"] | None = field(repr=False, default=None)
    left_out: tuple[str, ...] = ()
    clock: str = ""
    texts: Mapping[str, Sequence[str]] = field(repr=False, default_factory=dict)


def read_log(file: Path, columns: Sequence[str] = ()) -> Log:
    """Read a CSV or Parquet file.

    Args:
        columns: names, where the file has no header.

    Raises:
        BadInput: it cannot be read, has no header, no rows or two columns of one name, or holds
            numbers that are written in another way ("1,000").
    """
    table = _parquet(file) if file.suffix.lower() == ".parquet" else _csv(file, columns)
    if not table.num_rows:
        raise BadInput(f"{file}: has no rows; leave it out, or record again")
    written = [str(name) for name in table.column_names]
    names = normalised(str(file), written)
    kept: dict[str, np.ndarray] = {}
    clock, times, left_out = "", None, []
    texts: dict[str, list[str]] = {}
    for old, name, column in zip(written, names, table.columns, strict=True):
        if is_index(name):
            left_out.append(old)
        elif is_time(name):
            left_out.append(old)
            if times is None:
                clock, times = old, _clock(file, old, column)
        elif pa.types.is_null(column.type):
            left_out.append(old)
        elif _is_text(file, old, column):
            left_out.append(old)
            texts[old] = [str(value or "") for value in column.to_pylist()]
        else:
            kept[name] = _numbers(file, old, column)
    if left_out:
        logger.info("%s: %s left out: no actions", file, ", ".join(map(repr, left_out)))
    rows = np.stack(list(kept.values()), axis=1) if kept else np.zeros((table.num_rows, 0))
    return Log(file, *to_si(file, tuple(kept), rows), times, tuple(left_out), clock, texts)


def _parquet(file: Path) -> pa.Table:
    try:
        return pa.parquet.read_table(file)
    except (pa.ArrowException, ValueError, OSError, MemoryError) as error:
        raise BadInput(f"{file}: cannot be read as Parquet ({error}); correct the file") from error


def _csv(file: Path, columns: Sequence[str]) -> pa.Table:
    try:
        with file.open("rb") as opened:
            head = opened.read(HEAD_BYTES)
        encoding = encoding_of(head)
        # A character that the end of the head cut is no fault.
        lines = codecs.getincrementaldecoder(encoding)("replace").decode(head).splitlines()
    except (OSError, ValueError) as error:
        raise BadInput(f"{file}: is not text ({error}); save it as CSV in UTF-8") from error
    skipped = next((i for i, s in enumerate(lines) if s.strip() and s[0] != "#"), len(lines))
    if skipped == len(lines):
        raise BadInput(f"{file}: is empty; write a header and one row of actions per frame")
    header = lines[skipped]
    separator = max(SEPARATORS, key=header.count)
    headless = _is_headless(file, header.split(separator), columns)
    body = lines[skipped + 1 :]
    decimal = "," if separator != "," and any("," in line for line in body[:100]) else "."
    try:
        # Not pyarrow's own transcoding: it takes the mark of an encoding for a letter.
        source = file if encoding == "utf-8" else _as_utf8(file, encoding)
        return pa.csv.read_csv(
            source,
            pa.csv.ReadOptions(skip_rows=skipped, column_names=list(columns) if headless else None),
            pa.csv.ParseOptions(delimiter=separator),
            pa.csv.ConvertOptions(decimal_point=decimal),
        )
    except (pa.ArrowException, ValueError, OSError, MemoryError) as error:
        raise BadInput(f"{file}: cannot be read as numbers ({error}); correct the file") from error


def encoding_of(head: bytes) -> str:
    """The encoding of a text that begins so: by its mark, UTF-8, or else Western European."""
    marked = next((name for mark, name in MARKS if head.startswith(mark)), None)
    try:
        codecs.getincrementaldecoder("utf-8")("strict").decode(head)
    except UnicodeDecodeError:
        return marked or "latin-1"
    return marked or "utf-8"


def _as_utf8(file: Path, encoding: str) -> io.BytesIO:
    return io.BytesIO(file.read_text(encoding).encode())


def _is_headless(file: Path, cells: list[str], columns: Sequence[str]) -> bool:
    """Whether `columns` name a table without a header; BadInput where nothing does."""
    if not all(NUMBER.fullmatch(cell) for cell in cells):
        return False
    if len(columns) == len(cells):
        return True
    names = f"which names {len(columns)}" if columns else "such as steering,throttle"
    raise BadInput(
        f"{file}: begins with numbers ({', '.join(cells)[:60]}) and has no header; write the names "
        f"of its {len(cells)} columns into its first line, or give --columns, {names}"
    )


def _is_text(file: Path, name: str, column: pa.ChunkedArray) -> bool:
    """Whether a column is of words; BadInput where some are numbers that are written otherwise."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return False
    texts = [str(value) for value in column.to_pylist()]
    row = next((i for i, text in enumerate(texts) if NUMBER.fullmatch(text)), None)
    if row is None:
        return True
    # Mostly numbers: then the first that is none is the fault, such as "n/a".
    odd = next((i for i, text in enumerate(texts) if not _is_float(text)), row)
    raise BadInput(
        f"{file}: row {odd}, column {name!r} holds {texts[odd]!r}; write numbers with a decimal "
        "point and without separators of thousands"
    )


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(file: Path, name: str, column: pa.ChunkedArray) -> np.ndarray:
    try:
        return column.cast(pa.float64(), safe=False).to_numpy()
    except (pa.ArrowException, ValueError) as error:
        raise BadInput(
            f"{file}: column {name!r} is {column.type}, not numbers; drop the column"
        ) from error


def _clock(file: Path, name: str, column: pa.ChunkedArray) -> np.ndarray | None:
    """Seconds of a clock in numbers or dates; None where it holds other text."""
    if pa.types.is_timestamp(column.type):
        nanoseconds = column.cast(pa.timestamp("ns", column.type.tz)).cast(pa.int64())
        return nanoseconds.to_numpy() / 1e9
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return to_seconds(name, _numbers(file, name, column))
    logger.warning("%s: the clock %r is %s, not seconds; not used", file, name, column.type)
    return None
