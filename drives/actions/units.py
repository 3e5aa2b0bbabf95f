"""Names of columns as people write them -> our names, and values in SI units."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from training.errors import BadInput

MPS_PER_MPH = 0.44704


class Unit(NamedTuple):
    """A column's ending, what it becomes, and the factor."""

    ending: str
    si: str
    factor: float


# The longest ending counts: "_deg_s" before "_s".
UNITS = (
    Unit("_mph", "_mps", MPS_PER_MPH),
    Unit("_kmh", "_mps", 1 / 3.6),
    Unit("_kph", "_mps", 1 / 3.6),
    Unit("_knots", "_mps", 1852 / 3600),
    Unit("_deg", "_rad", math.pi / 180),
    Unit("_degrees", "_rad", math.pi / 180),
    Unit("_deg_s", "_rad_s", math.pi / 180),
    Unit("_dps", "_rad_s", math.pi / 180),
    Unit("_percent", "", 0.01),
    Unit("_km", "_m", 1000.0),
    Unit("_ft", "_m", 0.3048),
)
# A unit as it stands behind a name or in brackets, and our ending.
SPELLINGS = {
    **dict.fromkeys(("km/h", "kmh", "km_h", "kph", "kmph"), "kmh"),
    **dict.fromkeys(("mph", "mi/h", "miles/h"), "mph"),
    **dict.fromkeys(("m/s", "mps", "m_s", "ms-1", "m/sec"), "mps"),
    **dict.fromkeys(("m/s2", "m/s^2", "m/s/s", "mps2"), "mps2"),
    **dict.fromkeys(("deg/s", "degrees/s", "dps", "deg_s"), "deg_s"),
    **dict.fromkeys(("rad/s", "rad_s", "radians/s", "rad/sec"), "rad_s"),
    **dict.fromkeys(("deg", "degree", "degrees", "\N{DEGREE SIGN}"), "deg"),
    **dict.fromkeys(("rad", "radian", "radians"), "rad"),
    **dict.fromkeys(("1/m", "m^-1", "per_m"), "per_m"),
    **dict.fromkeys(("%", "percent", "pct"), "percent"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("ms", "msec", "millis", "milliseconds"), "ms"),
    **dict.fromkeys(("us", "usec", "micros", "microseconds"), "us"),
    **dict.fromkeys(("ns", "nsec", "nanos", "nanoseconds"), "ns"),
    **{unit: unit for unit in ("m", "km", "g", "knots", "ft")},
}
INDEX_NAMES = {"", "index", "idx", "id", "row", "frame", "frames", "level_0"}
INDEX_NAMES |= {
    f"frame_{of}" for of in ("id", "idx", "index", "no", "nr", "num", "number", "count")
}
INDEX_NAMES |= {"frameid", "frameidx", "frameindex", "framenumber", "row_id", "row_index"}
TIME_STEMS = r"(unix|gps|utc|epoch|log|system|capture|video|frame|camera|image|sensor)?_?"
TIME = re.compile(
    TIME_STEMS + r"(time|timestamp|time_stamp|datetime|date_time|date)(_(s|ms|us|ns))?"
)
# What an environment says of a step: no action, for a model would read the next frame from it.
REWARD, OFF_ROAD, DONE = "reward", "off_road", "done"
OUTCOMES = (REWARD, "discount", OFF_ROAD, DONE)
SECONDS = {"_s": 1.0, "_ms": 1e-3, "_us": 1e-6, "_ns": 1e-9}


def normal_name(name: str) -> str:
    """Our spelling of a column: `Speed (km/h)`, `speed [km/h]`, ` speedKmh` -> `speed_kmh`."""
    text = name.replace("\ufeff", "").strip().strip("\"'").strip()
    bracket = re.fullmatch(r"(.*?)\s*[\(\[\{]\s*([^\)\]\}]*?)\s*[\)\]\}]", text)
    stem, unit = (bracket[1], bracket[2].lower()) if bracket else (text, "")
    slashed = re.fullmatch(r"(.*\S)[\s_]+(\S*[/%^]\S*)", stem)
    if slashed and slashed[2].lower() in SPELLINGS:
        stem, unit = slashed[1], slashed[2].lower()
    # "steeringAngle" is two words, "RPM" is one.
    stem = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", stem)
    stem = re.sub(r"[^0-9a-z]+", "_", stem.lower()).strip("_")
    if not unit:
        return stem
    ending = SPELLINGS.get(unit, re.sub(r"[^0-9a-z]+", "_", unit).strip("_"))
    done = not ending or stem.endswith(f"_{ending}")
    return stem if done else f"{stem}_{ending}"


def is_index(name: str) -> bool:
    """Whether a column numbers the rows: pandas' index, a frame number."""
    name = normal_name(name)
    return name in INDEX_NAMES or re.fullmatch(r"unnamed_\d+|index_level_\d+", name) is not None


def is_time(name: str) -> bool:
    """Whether a column is a clock."""
    name = normal_name(name)
    return name in ("t", "t_s", "ts", "stamp") or TIME.fullmatch(name) is not None


def is_action(name: str) -> bool:
    """Whether a column may explain a frame: not an index, not a clock, not what came of it."""
    return not is_index(name) and not is_time(name) and name not in OUTCOMES


def to_seconds(name: str, values: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """A clock in seconds, by the unit in its name; unnamed ones by their size since 1970.

    Larger than 1e11 are milliseconds, than 1e14 microseconds, than 1e17 nanoseconds: seconds since
    1970 reach 1e11 in the year 5138.
    """
    name = normal_name(name)
    factor = next((f for ending, f in SECONDS.items() if name.endswith(ending)), None)
    if factor is None:
        largest = float(np.max(np.abs(values), initial=0.0))
        factor = next(
            (f for low, f in ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3)) if largest > low), 1
        )
    return values * factor


def normalised(where: str, names: Sequence[str]) -> tuple[str, ...]:
    """All names in our spelling; those of index columns may be equal.

    Raises:
        BadInput: two columns get one name.
    """
    new = tuple(normal_name(name) for name in names)
    for name, ours in zip(names, new, strict=True):
        if new.count(ours) > 1 and not is_index(ours):
            others = [n for n, o in zip(names, new, strict=True) if o == ours]
            raise BadInput(
                f"{where}: columns {', '.join(map(repr, others))} are all {ours!r}; drop or "
                f"rename one of them (here {name!r})"
            )
    return new


def to_si(
    where: object, names: Sequence[str], values: Float[np.ndarray, "row column"]
) -> tuple[tuple[str, ...], Float[np.ndarray, "row column"]]:
    """Convert columns in known foreign units (`speed_mph` to `speed_mps`, ...).

    Raises:
        BadInput: a converted column would have the name of another one.
    """
    new_names, factors = [], []
    for name in names:
        unit = next((u for u in _BY_LENGTH if name.endswith(u.ending)), Unit("", "", 1.0))
        new_names.append(name.removesuffix(unit.ending) + unit.si)
        factors.append(unit.factor)
    for name, new_name in zip(names, new_names, strict=True):
        if new_names.count(new_name) > 1:
            raise BadInput(f"{where}: column {name!r} is there twice as {new_name!r}; drop one")
    return tuple(new_names), values * np.array(factors)


_BY_LENGTH = sorted(UNITS, key=lambda unit: -len(unit.ending))
