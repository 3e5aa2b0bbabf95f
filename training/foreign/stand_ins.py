"""Stand-ins for foreign objects in a pickle: containers of values without behaviour.

Lightning checkpoints name the classes of callbacks; others hold arguments of scripts or settings
as OmegaConf objects. None of those classes is imported: the unpickler builds stand-ins, and plain
values are read from their state.
"""

import re
from typing import Any

from torch import Tensor


class LeftAside(dict):
    """Replaces an object that the weights do not need."""

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __setstate__(self, _: Any) -> None:
        """Drop the state."""


class Holder:
    """Replaces an object whose attributes hold values."""

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
    """OmegaConf's dict or list; `_parent` (a cycle) is not read."""


class ConfigNode(Holder):
    """A value in an OmegaConf container."""


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
    """The stand-in for a class by its full name; None: refuse it."""
    return next((kind for pattern, kind in STAND_INS if pattern.fullmatch(name)), None)


def plain(value: Any) -> Any:
    """A value with stand-ins replaced by the dicts, lists and values that they hold.

    An interpolation stays text, because its target may be missing.

    Raises:
        RecursionError: a container holds itself.
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
