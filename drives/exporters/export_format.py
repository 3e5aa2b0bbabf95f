"""How an exporter is entered in the registry, and what it asks of drives."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drives.drive import Drive
from drives.video.rate import describe_rate
from training.errors import BadInput


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


def refuse_varying(drives: Iterable[Drive]) -> None:
    """BadInput for a drive of a varying rate, for formats that state one rate and no times."""
    for drive in drives:
        if drive.rate_varies:
            raise BadInput(
                f"{drive.path}: {describe_rate(drive.frame_times_s)}, and the format has one rate; "
                "import its recording anew with --fps N, or leave the drive out"
            )
