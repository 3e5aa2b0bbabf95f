"""Features of a LeRobotDataset -> columns of actions, captions and a track."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from drives.actions.units import normalised, to_si
from drives.captions import Caption
from drives.importers.recordings.lerobot.info import BOOKKEEPING, Feature, Info
from training.errors import BadInput

PARTS = ("action", "observation.state")  # features that become columns of actions
SENTENCES = ("task.instructions", "language_instruction")  # text features that say what is done
NUMBERS = ("float16", "float32", "float64", "bool")
# yaak-ai/L2D names no units: its speed is in km/h and its heading in degrees (meta/stats.json).
L2D = "hp_loc_latitude"
L2D_NAMES = {
    "speed": "speed_kmh",
    "heading": "heading_deg",
    "heading_error": "heading_error_deg",
    "acceleration_x": "acceleration_x_mps2",
    "acceleration_y": "acceleration_y_mps2",
    "gas_pedal_normalized": "throttle",
    "brake_pedal_normalized": "brake",
    "hp_loc_latitude": "lat_deg",
    "hp_loc_longitude": "lon_deg",
    "hp_loc_altitude": "altitude_m",
}
PLACES = ("lat_deg", "lon_deg")


def action_features(info: Info) -> dict[str, Feature]:
    """Features with one row of numbers per frame that act on the car or say how it moves."""
    return {
        key: feature
        for key, feature in info.features.items()
        if any(key == part or key.startswith(f"{part}.") for part in PARTS)
        and (feature.dtype in NUMBERS or feature.dtype.lstrip("u").startswith("int"))
        and len(feature.shape) == 1
        and key not in BOOKKEEPING
        and not key.endswith(".timestamp")
    }


def sentence_feature(info: Info) -> str | None:
    """The text feature that says what the driver is told, if there is one."""
    texts = (k for k in SENTENCES if k in info.features and info.features[k].dtype == "string")
    return next(texts, None)


def actions_of(
    rows: pa.Table, info: Info, where: str
) -> tuple[tuple[str, ...], Float[np.ndarray, "frame action"], Float[np.ndarray, "frame 2"] | None]:
    """Names and rows of actions, and a track where latitude and longitude are among them.

    A state that is called like an action gets `state_` before its name.

    Raises:
        BadInput: a value has another shape than its feature says, or two columns one name.
    """
    names: list[str] = []
    columns: list[np.ndarray] = []
    features = action_features(info)
    is_l2d = any(L2D in feature.number_names(key) for key, feature in features.items())
    for key, feature in sorted(features.items(), key=lambda entry: entry[0] != "action"):
        own = feature.number_names(key)
        if is_l2d:
            own = [L2D_NAMES.get(name, name) for name in own]
        values = _numbers(rows[key], len(own), f"{where}: {key}")
        taken = [name in names for name in own]
        names += [f"state_{n}" if is_taken else n for n, is_taken in zip(own, taken, strict=True)]
        columns.append(values)
    if not columns:
        return (), np.zeros((len(rows), 0)), None
    named, actions = normalised(where, names), np.concatenate(columns, axis=1)
    track = None
    if set(PLACES) <= set(named):
        # Places say nothing of how the car moves, and float32 holds them to a metre only.
        track = actions[:, [named.index(name) for name in PLACES]]
        kept = [i for i, name in enumerate(named) if name not in (*PLACES, "altitude_m")]
        named, actions = tuple(named[i] for i in kept), actions[:, kept]
    return *to_si(where, named, actions), track


def captions_of(rows: pa.Table, tasks: dict[int, str], sentence: str | None) -> list[Caption]:
    """Runs of frames with the same task, or the same sentence where the rows have one."""
    if sentence is not None:
        texts = [str(text or "") for text in rows[sentence].to_pylist()]
    else:
        texts = [tasks.get(index, "") for index in rows["task_index"].to_pylist()]
    edges = [0, *(i for i in range(1, len(texts)) if texts[i] != texts[i - 1]), len(texts)]
    runs = [(a, b) for a, b in pairwise(edges) if a < b]
    return [Caption(texts[a], a, b) for a, b in runs if texts[a].strip()]


def _numbers(column: pa.ChunkedArray, count: int, where: str) -> np.ndarray:
    """float64 [frame number] of a column of numbers, or of lists of `count` numbers."""
    if pa.types.is_nested(column.type):
        lengths = {None if value is None else len(value) for value in column.to_pylist()}
        if lengths - {count}:
            raise BadInput(f"{where}: rows have {lengths} numbers, {count} are named in info.json")
        column = column.combine_chunks().flatten()
    try:
        values = column.cast(pa.float64(), safe=False).to_numpy()
    except pa.ArrowException as error:
        raise BadInput(f"{where}: holds no numbers ({error})") from error
    return values.reshape(-1, count)
