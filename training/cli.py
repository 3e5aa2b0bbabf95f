"""Command lines: Hydra composes; bad input ends in one message and exit code 2.

Imports nothing heavy, so `--help` is fast.
"""

import errno
import hashlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from training.command_line import near
from training.disk.status import slurm_job, write_status
from training.errors import BadInput, TrainingFault
from training.help import asked_help, explain, found_from, near_miss, sized
from training.schemas import (
    SECTIONS,
    TARGET,
    judged_section,
    judged_settings,
    know,
    node_at,
    node_of,
)

BAD_INPUT, FAULT = 2, 1
# System errors about paths, not bugs.
UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG)
FULL = (errno.ENOSPC, errno.EDQUOT)


def command(
    config_name: str, files: str = ""
) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Turn `task(cfg)` into a command with the config `configs/<config_name>.yaml`.

    Args:
        config_name: where it lies below `configs/` (`training.help.found_from`).
        files: a setting in which a comma separates files; elsewhere Hydra sees a choice in it.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        def checked(cfg: DictConfig) -> Any:
            try:
                judge(cfg, config_name)
                return task(cfg)
            except BadInput as error:
                fail(str(error), cfg)
            except MissingMandatoryValue as error:
                fail(f"{error.full_key}: has no default; give {error.full_key}=...", cfg)
            except TrainingFault as error:
                fail(str(error), cfg, FAULT)
            except InterpolationResolutionError as error:
                fail(explain(error, config_name), cfg)
            except InstantiationException as error:
                if message := said_by(error, cfg):
                    fail(message, cfg)
                raise
            except OSError as error:
                if not error.filename or error.errno not in {*UNUSABLE, *FULL}:
                    raise
                fail(
                    f"{error.filename}: {error.strerror}; see to it, or choose another place",
                    cfg,
                    FAULT if error.errno in FULL else BAD_INPUT,
                )
            except Exception as error:
                if not is_sweep():
                    raise
                # Hydra would log the exception and exit with 0.
                traceback.print_exc()
                fail(f"{type(error).__name__}: {error}", cfg, FAULT)

        folder, name = found_from(config_name)
        entry = hydra.main(version_base="1.3", config_path=str(folder), config_name=name)

        def run() -> None:
            # Hydra shortens tracebacks and exits with 1 for everything; we need
            # composition errors here, and full tracebacks of bugs.
            os.environ.setdefault("HYDRA_FULL_ERROR", "1")
            if files:
                sys.argv[1:] = [_as_list(argument, files) for argument in sys.argv[1:]]
            try:
                if answer := asked_help(sys.argv[1:], config_name):
                    print(answer)
                    return
                if config_name == "train":
                    if missed := near_miss(sys.argv[1:]):
                        fail(missed)
                    sys.argv[1:] = sized(sys.argv[1:])
                entry(checked)()
            except InstantiationException:
                raise
            except (HydraException, OmegaConfBaseException) as error:
                fail(explain(error, config_name))

        return run

    return decorate


def _as_list(argument: str, setting: str) -> str:
    """`ckpt=a,b` in Hydra's list syntax; other arguments unchanged."""
    key, _, value = argument.partition("=")
    plain = key == setting and "," in value and value[0] not in "['\""
    return f"{key}=[{value}]" if plain else argument


def register(
    group: str, name: str, settings: type, package: str | None = None, **different: Any
) -> None:
    """Make a dataclass the option `name` of a config group.

    Args:
        package: where the option lands in the config; None: where its group lies.
        different: values that this option has instead of the defaults. With a `_target_`, a class
            is built from the settings, which takes them by their names.
    """
    node = built_as(settings, **different)
    store = ConfigStore.instance()
    store.store(name=name, group=group or None, node=node, package=package, provider="dashcast")


def built_as(settings: type, target: str = "", **different: Any) -> dict[str, Any]:
    """The node of a dataclass of whose settings the class `target` is built; `judge` knows it."""
    node = node_of(settings) | ({TARGET: target} if target else {}) | different
    know(settings, node[TARGET])
    return node


def register_sections(
    command: str, sections: Mapping[str, type], given: Mapping[str, type] | None = None
) -> None:
    """Make dataclasses the settings of a command that nothing is built from.

    The config `settings/NAME` has all their defaults; the one of the command begins with it.

    Args:
        command: the name of its config, such as "commands/encode".
        sections: dataclasses by where they lie; "" is the root.
        given: those of another command, whose whole config comes before `settings/NAME`: their
            defaults would undo what was chosen there.
    """
    node: dict[str, Any] = {}
    for where, settings in sections.items():
        if where in (given or {}):
            continue
        own = {name: value for name, value in node_of(settings).items() if name != TARGET}
        section = node
        for part in where.split(".") if where else ():
            section = section.setdefault(part, {})
        section.update(own)
    SECTIONS[command] = sections
    name = command.removeprefix("commands/").replace("/", "_")
    store = ConfigStore.instance()
    store.store(name=name, group="settings", node=node, package="_global_", provider="dashcast")


def bad_input_behind(error: BaseException | None) -> BadInput | None:
    """The BadInput behind an error: Hydra wraps exceptions of constructors."""
    while error is not None and not isinstance(error, BadInput):
        error = error.__cause__
    return error


def said_by(error: InstantiationException, cfg: DictConfig) -> str:
    """Why settings cannot build a class; "" for a bug."""
    if cause := bad_input_behind(error):
        return str(cause)
    where = re.search(r"full_key: (\S+)", str(error))
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if not where or not unknown:
        return ""
    group, wrong = where[1], unknown[1]
    known = [str(key) for key in OmegaConf.select(cfg, group) if key not in (wrong, "_target_")]
    return f"{group}.{wrong}: no such setting; {near(wrong, known)}"


@contextmanager
def bad_input_fails() -> Iterator[None]:
    """For commands without Hydra: bad input ends in one message; other errors pass."""
    try:
        yield
    except TrainingFault as error:
        fail(str(error), code=FAULT)
    except Exception as error:
        if (cause := bad_input_behind(error)) is None:
            raise
        fail(str(cause))


def fail(message: str, cfg: DictConfig | None = None, code: int = BAD_INPUT) -> NoReturn:
    """Print the message and exit with a code; a job of a sweep also writes it to its folder.

    SystemExit is the only exception that Hydra passes on from a job.
    """
    print(f"error: {message}", file=sys.stderr)
    if cfg is not None and "run" in cfg and is_sweep():
        write_status(
            run_folder(cfg), state="failed", reason=message, exit_code=code, job=slurm_job()
        )
    raise SystemExit(code)


def is_sweep() -> bool:
    """Whether this is a job of `-m`."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def run_folder(cfg: DictConfig) -> Path:
    """The run folder: `run`; for a job of a sweep a folder named after its overrides.

    A restarted job has the same name, so that it continues.
    """
    if not is_sweep():
        return Path(cfg.run)
    overrides = [o.lstrip("+~") for o in HydraConfig.get().overrides.task]
    if any(o.startswith("run=") for o in overrides):
        return Path(cfg.run)
    own = [o for o in overrides if not re.match(r"experiment=|debug[=/]|paths\.|logger", o)]
    name = ",".join(own).replace("/", "-") or "job"
    if len(name) > 120:
        name = f"{name[:100]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return Path(cfg.paths.runs) / "sweeps" / str(cfg.name) / name


def judge(cfg: DictConfig, command: str) -> None:
    """Judge types and ranges of a composed config, before anything is done with it.

    Args:
        command: the name of the command's config, such as "train".

    Raises:
        BadInput: names the setting and what it takes.
        MissingMandatoryValue: a setting without a default is not given.
    """
    values = plain(cfg)
    for where, settings in SECTIONS.get(command, {}).items():
        judged_section(settings, node_at(values, where), where)
    judged_settings(values)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The resolved config as plain Python values."""
    values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
