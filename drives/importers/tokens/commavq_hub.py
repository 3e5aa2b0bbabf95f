"""commaVQ from the hub: one tar after the other, each checked and written as it arrives.

The next tar is fetched while the one before is written. They are kept in the hub's cache, which
resumes and checks downloads; with `stream` each is deleted once it is in the store.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from drives.importers.damage import errors_named
from drives.importers.tokens.commavq import planned_actions, whole_drives
from drives.importers.tokens.commavq_segments import SPEC, list_segments
from drives.importers.tokens.tar_archive import SUFFIXES
from drives.importers.tokens.token_import import import_tokens
from drives.splits.base import default_split
from drives.tokens.store import TokenStore
from drives.tokens.writer import NewDrive
from training.errors import BadInput
from training.ranges import at_least

Fetch = Callable[[str], Path]


@dataclass(frozen=True)
class HubOptions:
    """Settings of the download.

    Attributes:
        num_tars: how many tars, from the first on (each has 2,500 minutes); all by default.
        revision: branch, tag or commit of the dataset.
        stream: delete each tar once it is in the store; else the hub's cache keeps it.
        endpoint: another server than huggingface.co.
    """

    num_tars: int | None = None
    revision: str = "main"
    stream: bool = False
    endpoint: str | None = None


def import_hub(source: Path, out: Path, options: HubOptions) -> TokenStore:
    """Write the tars of a dataset (`commaai/commavq`) into a store; its drives are kept.

    The split of a segment comes from its name.

    Raises:
        BadInput: no such dataset, no connection, no tars; or a tar cannot be used.
    """
    at_least(1, "--", num_tars=1 if options.num_tars is None else options.num_tars)
    repo = source.as_posix()
    with _fetching(repo):
        from huggingface_hub import HfApi

        info = HfApi(endpoint=options.endpoint).dataset_info(repo, revision=options.revision)
    commit, files = str(info.sha), sorted(entry.rfilename for entry in info.siblings or ())
    tars = [name for name in files if name.endswith(SUFFIXES)][: options.num_tars]
    if not tars:
        raise BadInput(f"{repo}: holds no {' or '.join(SUFFIXES)}; give commaai/commavq")
    with tempfile.TemporaryDirectory(prefix="commavq-") as folder:

        def fetch(name: str) -> Path:
            with _fetching(f"{repo}: {name}"):
                from huggingface_hub import hf_hub_download

                return Path(
                    hf_hub_download(
                        repo,
                        name,
                        repo_type="dataset",
                        revision=commit,
                        endpoint=options.endpoint,
                        local_dir=folder if options.stream else None,
                    )
                )

        names = planned_actions(fetch(tars[0]))
        key = f"commavq_hub-{repo}-{commit}-{len(tars)}"
        return import_tokens(out, key, SPEC, names, lambda: _drives(tars, fetch, options.stream))


def _drives(tars: Sequence[str], fetch: Fetch, drop: bool) -> Iterator[NewDrive]:
    seen: set[str] = set()
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(fetch, tars[0])
        for index, _ in enumerate(tars):
            tar = ahead.result()
            if index + 1 < len(tars):
                ahead = pool.submit(fetch, tars[index + 1])
            splits = {name: default_split(name, 0, None) for name in list_segments([tar])}
            if twice := seen & splits.keys():
                raise BadInput(f"{tar}: segment {min(twice)} is in another tar as well")
            seen |= splits.keys()
            yield from whole_drives([tar], splits)
            if drop:
                tar.unlink()


def _fetching(where: str) -> AbstractContextManager[None]:
    """BadInput for what the hub's client raises: its own errors, httpx's, the system's."""
    remedy = "check its name, the connection and `hf auth login`"
    return errors_named(where, "cannot be fetched", remedy)
