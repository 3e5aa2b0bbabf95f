"""How an exporter is entered in the registry."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ExportOptions:
    """What every exporter takes; one with more settings has a subclass."""


@dataclass(frozen=True)
class ExportFormat:
    """One foreign format to write.

    Attributes:
        text: what it is, in a few words.
        takes: what the source is: "drives" (a folder of them) or "tokens" (a token store).
        export: (source, out, options) to the files or folders written; nothing is overwritten.
        options: the dataclass of its settings; each field is a flag of the command.
    """

    text: str
    takes: str
    export: Callable[[Path, Path, Any], list[Path]]
    options: type[ExportOptions] = ExportOptions
