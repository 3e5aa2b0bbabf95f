"""Where a dataset lies: a folder here, or a repository of the Hugging Face hub."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from training.errors import BadInput

# A Path has one slash where a URL has two.
HUB = re.compile(r"hf:/{1,2}(datasets/)?(?P<name>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+))?/?")


class Place(Protocol):
    """Files below one root, by their paths there."""

    def file(self, name: str) -> Path:
        """The file on this machine; BadInput where it is missing."""

    def files(self, pattern: str) -> list[Path]:
        """Files of `meta/` that fit, sorted."""


@dataclass(frozen=True)
class LocalFolder:
    """A dataset on this machine."""

    root: Path

    def file(self, name: str) -> Path:
        path = self.root / name
        if not path.is_file():
            raise BadInput(f"{path}: missing; copy the whole dataset")
        return path

    def files(self, pattern: str) -> list[Path]:
        return sorted(self.root.glob(pattern))


@dataclass(frozen=True)
class HubRepository:
    """A dataset of the hub: `meta/` is downloaded at once, other files when they are asked for.

    They stay in the cache of huggingface_hub; a file that is there is not loaded again.
    """

    name: str
    revision: str
    meta: Path

    def file(self, name: str) -> Path:
        try:
            path = hf_hub_download(self.name, name, repo_type="dataset", revision=self.revision)
        except (OSError, ValueError, HfHubHTTPError) as error:
            raise _unreachable(f"{self.name}/{name}", error) from error
        return Path(path)

    def files(self, pattern: str) -> list[Path]:
        return sorted(self.meta.glob(pattern))


def open_place(root: Path) -> Place:
    """A folder, or `hf://datasets/OWNER/NAME@REVISION` (the revision may be left out).

    Raises:
        BadInput: the hub does not answer, or has no such dataset.
    """
    found = HUB.fullmatch(str(root))
    if found is None:
        return LocalFolder(root)
    name = found["name"]
    try:
        folder = snapshot_download(
            name, repo_type="dataset", revision=found["revision"], allow_patterns=["meta/*"]
        )
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise _unreachable(name, error) from error
    # A snapshot's folder is called by its commit: later files are of the same one.
    return HubRepository(name, Path(folder).name, Path(folder))


def _unreachable(name: str, error: Exception) -> BadInput:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return BadInput(
        f"hf://datasets/{name}: cannot be loaded ({reason}); check name, revision and network, and "
        "for a private set `hf auth login`"
    )
