"""The registry: every foreign format by the name that `python -m drives.exporters` takes."""

from collections.abc import Mapping

from drives.exporters import dmc, lerobot
from drives.exporters.export_format import ExportFormat

EXPORT_FORMATS: Mapping[str, ExportFormat] = {
    "dmc": dmc.FORMAT,
    "lerobot": lerobot.FORMAT,
}
