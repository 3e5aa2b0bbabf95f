"""Copies the code into the sweep folder at submission; the jobs run this copy.

A queued job starts hours after its submission, and again after each requeue. It imports from
`<sweep folder>/code-<hash of its content>/`, so later edits of the code do not reach it.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from training.cli import fail
from training.errors import BadInput

HOME = Path(__file__).parent.parent.parent
PACKAGES = ("drives", "tokenizer", "worldmodel", "training", "configs", "hydra_plugins")
PROGRAMS = ("train.py", "eval.py")
FACTS = "snapshot.json"


def take_snapshot(into: Path, home: Path = HOME) -> Path:
    """Copy the code of `home` to `into`/code-<hash>, unless that folder exists.

    Raises:
        BadInput: the copy cannot be written.
    """
    files = list(_code(home))
    digest = content_hash(home)
    folder = into.absolute() / f"code-{digest}"
    if folder.is_dir():
        return folder
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    facts = {"hash": digest, "git": git_revision(home), "files": len(files)}
    try:
        for file in files:
            target = partial / file.relative_to(home)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        (partial / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
        if not folder.is_dir():  # another submission may have been faster
            partial.rename(folder)
    except OSError as error:
        raise BadInput(
            f"{folder}: cannot copy the code there ({error}); choose another place with "
            "paths.runs=FOLDER"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def content_hash(home: Path = HOME) -> str:
    """First ten hex digits of the sha256 over names and contents of the code below `home`."""
    digest = hashlib.sha256()
    for file in _code(home):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(home).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:10]


def git_revision(home: Path = HOME) -> str:
    """Commit of the code, with '+dirty' if the tree differs; '' if unknown.

    A snapshot stores the commit of its origin, because git would describe the repository around
    the snapshot.
    """
    if (home / FACTS).is_file():
        return str(json.loads((home / FACTS).read_text())["git"])
    git = ["git", "-C", str(home)]
    try:
        sha = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return sha.stdout.strip() + ("+dirty" if changed.stdout.strip() else "")


class CodeSnapshot(Callback):
    """Takes the snapshot before a sweep is submitted, and makes its jobs run it.

    For launchers with a `setup`; see configs/hydra/launcher/slurm.yaml.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            folder = take_snapshot(Path(config.hydra.sweep.dir))
        except BadInput as error:
            fail(str(error))  # Hydra turns an exception of a callback into a warning
        read_configs_from(folder / "configs")
        with read_write(config), open_dict(config):
            launcher = config.hydra.launcher
            launcher.setup = [*(launcher.setup or []), *setup_lines(folder)]
        print(f"jobs run the code in {folder}")


def setup_lines(folder: Path) -> list[str]:
    """Shell lines that make Python import from `folder`, before an installed dashcast."""
    path = shlex.quote(str(folder))
    return [
        f'export PYTHONPATH={path}$(test -z "$PYTHONPATH" || echo ":$PYTHONPATH")',
        # Without this, `python -m` imports from the working directory, which may have changed.
        "export PYTHONSAFEPATH=1",
    ]


def read_configs_from(folder: Path) -> None:
    """Make Hydra compose from `folder`; a job composes its config again when it starts."""
    loader = GlobalHydra.instance().config_loader()
    for entry in loader.get_search_path().get_path():
        if entry.provider == "main":
            entry.path = f"file://{folder}"
    for source in loader.get_sources():
        if source.provider == "main":
            source.path = str(folder)


def _code(home: Path) -> Iterator[Path]:
    """The files of the code in a fixed order, without Python's caches."""
    for name in (*PACKAGES, *PROGRAMS):
        top = home / name
        inside = [top] if top.is_file() else sorted(top.rglob("*"))
        for file in inside:
            if file.is_file() and "__pycache__" not in file.parts:
                yield file
