"""The text of `--help` and `--cfg job`: settings with types and meanings, recipes, groups."""

import re
import sys
from collections.abc import Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path
from textwrap import fill
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from training.command_line import near, typed
from training.schemas import SECTIONS, annotated

CONFIGS = Path(__file__).parent.parent / "configs"
HELP = ({"--help"}, {"-h"}, {"--cfg", "job"}, {"-c", "job"})  # Hydra answers other flags


def asked_help(arguments: list[str], config_name: str) -> str:
    """The answer to a command line that asks for help; "" for others."""
    overrides = [a for a in arguments if "=" in a]
    flags = set(arguments) - set(overrides)
    if flags not in HELP:
        return ""
    folder, name = found_from(config_name)
    cfg = composed(config_name, overrides, hydra_config=True)
    choices = cfg.hydra.runtime.choices
    settings: Any = OmegaConf.to_container(cfg, resolve=False)
    del settings["hydra"]
    sections = SECTIONS.get(config_name, {})
    told = annotated(settings, sections.get(""), sections=sections)
    if "job" in flags:
        return told
    parts = [_about(folder / f"{name}.yaml")]
    if "stage" in choices:
        parts.append(f"== Recipes (+experiment=...) ==\n{_list(options_of('experiment'))}")
    parts += [f"== Groups (group=option) ==\n{_groups(choices)}" if _groups(choices) else ""]
    return "\n\n".join(part for part in [*parts, f"== Settings (setting=value) ==\n{told}"] if part)


def explain(error: BaseException, config_name: str) -> str:
    """Hydra's message in one line, with what to type if known."""
    message = str(error).strip()
    plus = re.search(r"default list use \+([\w@/]+)=(\S+)", message)
    if plus and (CONFIGS / plus[1]).is_dir():
        group, options, wanted = plus[1], options_of(plus[1]), plus[2].strip("[]'")
        if wanted in options:
            return f"{group}={plus[2]}: write +{group}={wanted}, with the plus"
        told = near(wanted, options)
        return f"{group}={plus[2]}: no such {group}; {told}; write +{group}=NAME, with the plus"
    option = re.search(r"Could not find '([\w@/]+)/(\S*?)'", message)
    if option:
        group, wrong = option.groups()
        options = options_of(group)
        return f"{group}={wrong}: no such {group}; {near(wrong, options)}"
    key = re.search(r"(?:Key|Could not override) '([\w./@]+)'", message)
    if key:
        asked = re.search(r"Could not override '([\w./@]+)'", message)
        wrong = (asked or key).group(1)
        return f"{wrong}: no such setting; {near(wrong, _known_keys(config_name))}"
    if isinstance(error, OverrideParseException):
        name, equals, value = error.override.partition("=")
        right = f"{typed(name, value)}, with the quotes" if equals else f"{name}=VALUE"
        return f"{error.override}: cannot be read; write {right}"
    lines = [line.strip() for line in message.splitlines()]
    return "; ".join(line for line in lines if line and not line.startswith("See https"))


def _known_keys(config_name: str) -> list[str]:
    """All settings of the config, without overrides that fail to compose."""
    keep = [a for a in sys.argv[1:] if re.match(r"\+?(experiment|data|model)=", a)]
    try:
        cfg = composed(config_name, keep)
    except (HydraException, OmegaConfBaseException):  # this override is the faulty one
        cfg = composed(config_name, [])
    keys: list[str] = []

    def walk(node: Any, prefix: str) -> None:
        for key in node:
            path = f"{prefix}{key}"
            keys.append(path)
            child = node._get_node(key)
            if isinstance(child, DictConfig) and not child._is_none():
                walk(child, f"{path}.")

    walk(cfg, "")
    return keys


def near_miss(arguments: Sequence[str]) -> str:
    """Remedy for an argument of train.py that Hydra misreads or ignores; "" if none.

    That is: a recipe's bare name, a group after dashes, a number as an option, a plan file of
    another command.
    """
    for argument in arguments:
        group, equals, option = argument.lstrip("+-").partition("=")
        if not equals and group in options_of("experiment"):
            return f"{group}: write +experiment={group}"
        if not group or not (CONFIGS / group).is_dir() or not re.fullmatch(r"\w+", group):
            continue
        if argument.startswith("-"):
            plus = "+" if group in ("experiment", "debug") else ""
            return f"{argument}: takes no dashes; write {plus}{group}={option or 'NAME'}"
        if re.fullmatch(r"[-+.\d]+(e[-+]?\d+)?|true|false|nan|inf", option, flags=re.I):
            return f"{group}={option}: no such {group}; {near(option, options_of(group))}"
        files = sorted((CONFIGS / group).glob("*.yaml"), key=lambda file: file.stem != option)
        for file in files:
            other = re.search(rf"python -m \S+ configs/{group}/\S+\.yaml", file.read_text())
            if other:
                return f"{argument}: no such setting; the file is for: {other[0]}"
    return ""


def found_from(config_name: str) -> tuple[Path, str]:
    """The folder whose groups the config of a command sees, and the config's name from there.

    That is `configs/`; a config in a folder below `configs/commands/` sees that folder alone, so
    that its settings may have the names of groups.
    """
    path = CONFIGS / config_name
    alone = path.parent.parent == CONFIGS / "commands"
    return (path.parent, path.name) if alone else (CONFIGS, config_name)


def composed(config_name: str, overrides: Sequence[str], hydra_config: bool = False) -> DictConfig:
    """The config of a command, given these overrides."""
    folder, name = found_from(config_name)
    overrides = sized(overrides) if config_name == "train" else list(overrides)
    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        return hydra.compose(name, overrides, return_hydra_config=hydra_config)


def sized(overrides: Sequence[str]) -> list[str]:
    """The overrides, and with `+debug=...` the option of `debug/sizes` for the kind of the model.

    Defaults lists cannot choose it: Hydra reads what is appended before it knows the model.
    """
    asked = [i for i, word in enumerate(overrides) if word.startswith("+debug=")]
    if not asked or any("debug/sizes=" in word for word in overrides):
        return list(overrides)
    model = _model_of(*(w for w in overrides if re.match(r"\+?(experiment|stage|model)=", w)))
    before = [f"+debug/sizes={model}"] if model in options_of("debug/sizes") else []
    return [*overrides[: asked[0]], *before, *overrides[asked[0] :]]


@cache
def _model_of(*overrides: str) -> str:
    """The option of `model` that these overrides choose; "" where they cannot be composed."""
    try:
        return str(composed("train", overrides, hydra_config=True).hydra.runtime.choices.model)
    except HydraException:  # said where all of them are composed
        return ""


def options_of(group: str) -> list[str]:
    """Options of a config group: files, and registered dataclasses."""
    registered: Any = ConfigStore.instance().repo
    for part in group.split("/"):
        registered = registered.get(part, {})
    names = {Path(name).stem for name in registered if name.endswith(".yaml")}
    return sorted(names | {file.stem for file in (CONFIGS / group).glob("*.yaml")})


def _about(file: Path) -> str:
    lines = file.read_text().splitlines()
    lines = [line for line in lines if not line.startswith("# @package")]
    return "\n".join(line[2:] for line in takewhile(lambda line: line.startswith("# "), lines))


def _groups(choices: DictConfig) -> str:
    """The groups that this command composes, and so takes; those of Hydra are left out."""
    chosen = sorted(str(group) for group in choices if not {*"@/"} & {*str(group)})
    options = {group: options_of(group) for group in chosen}
    return "\n".join(_list(names, f"{group}: ") for group, names in options.items())


def _list(words: list[str], before: str = "") -> str:
    return fill(before + ", ".join(words), 100, subsequent_indent="  ", break_on_hyphens=False)
