"""What stands in for foreign objects in a pickle: containers that hold values and do nothing.

Checkpoints of Lightning name the classes of their callbacks, those of scripts hold their arguments,
and some the settings of a run as OmegaConf's objects. None of those classes is imported: the
unpickler gets these in their place, and the plain values are read out of what they were given.
"""

import re
from typing import Any

from torch import Tensor


class LeftAside(dict):
    """In place of an object that has nothing to do with the weights."""

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __setstate__(self, _: Any) -> None:
        """Its state is not kept."""


class Holder:
    """In place of an object whose attributes hold values."""

    state: dict[Any, Any]

    def __new__(cls, *_: Any) -> "Holder":
        made = super().__new__(cls)
        made.state = {}
        return made

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


class ConfigContainer(Holder):
    """OmegaConf's dict or list: its content may refer to the whole through `_parent`, not read."""


class ConfigNode(Holder):
    """A value in OmegaConf's containers."""


# By full name, what takes the place of it; whatever else a file names is refused. The types among
# them are what OmegaConf notes of its values.
STAND_INS: tuple[tuple[re.Pattern[str], type[Any]], ...] = (
    (re.compile(r"(pytorch_lightning|lightning)\.[\w.]+|argparse\.Namespace"), LeftAside),
    (re.compile(r"omegaconf\.(dictconfig\.DictConfig|listconfig\.ListConfig)"), ConfigContainer),
    (re.compile(r"omegaconf\.nodes\.\w+Node"), ConfigNode),
    (re.compile(r"omegaconf\.base\.(Container)?Metadata|collections\.defaultdict"), LeftAside),
    (re.compile(r"typing\.(Any|Union|Optional|List|Dict)"), LeftAside),
    (re.compile(r"builtins\.(dict|list|tuple|str|int|float|bool|bytes|object)"), LeftAside),
    (re.compile(r"pathlib\.(Posix|Windows)?Path"), LeftAside),
)


def stand_in(name: str) -> type[Any] | None:
    """What takes the place of the class of this full name; None for what is refused."""
    return next((kind for pattern, kind in STAND_INS if pattern.fullmatch(name)), None)


def plain(value: Any) -> Any:
    """A value with its stand-ins replaced by the dicts, lists and values that they hold.

    An interpolation stays the text that it is, for the config it refers to may be elsewhere.

    Raises:
        RecursionError: a container that holds itself.
    """
    if isinstance(value, ConfigContainer):
        return plain(value.state.get("_content"))
    if isinstance(value, ConfigNode):
        return plain(value.state.get("_val"))
    if isinstance(value, Tensor | LeftAside):
        return value
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value
