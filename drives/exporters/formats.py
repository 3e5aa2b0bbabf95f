"""The registry: every foreign format by the name that `python -m drives.exporters` takes."""

from collections.abc import Mapping

from drives.exporters import commavq_bin, dmc, lerobot
from drives.exporters.export_format import ExportFormat

EXPORT_FORMATS: Mapping[str, ExportFormat] = {
    "commavq_bin": commavq_bin.FORMAT,
    "dmc": dmc.FORMAT,
    "lerobot": lerobot.FORMAT,
}
