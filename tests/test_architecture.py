"""The architecture, as far as sources show it; the rules are read off the tree."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Each may import those behind it: worldmodel -> tokenizer -> drives -> training.
PACKAGES = ("worldmodel", "tokenizer", "drives", "training")
FRAMEWORKS = {"lightning", "pytorch_lightning", "lightning_fabric", "hydra"}
MOST_FILES = 15
DOTTED = r"[a-z_]\w*(\.\w+)+(?<!\.py)"


def sources(root: Path = ROOT) -> dict[str, ast.Module]:
    """Every module of our packages by its dotted name."""
    found = {}
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(file.read_text())
    return found


TREE = sources()


def mentioned(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a source imports, at its top, in functions, or by a string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "no relative imports"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and re.fullmatch(DOTTED, str(node.value)):
            yield str(node.value)  # importlib, _target_


def packages_of(tree: ast.AST) -> set[str]:
    return {name.split(".")[0] for name in mentioned(tree)}


@cache
def graph() -> dict[str, set[str]]:
    """Which of our modules every module of ours imports."""
    return {name: imports(name, tree) - {name} for name, tree in TREE.items()}


def imports(name: str, tree: ast.AST) -> set[str]:
    found = set()
    for target in mentioned(tree):
        while target and target not in TREE:
            target = target.rpartition(".")[0]
        found.add(target)
    return found - {""}


def classes(tree: ast.Module) -> dict[str, list[str]]:
    """Classes at the top of a source, and the last names of what each derives from."""
    return {
        node.name: [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases]
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }


BASES = {name: bases for tree in TREE.values() for name, bases in classes(tree).items()}


def derives(name: str, ancestor: str, known: dict[str, list[str]]) -> bool:
    return name == ancestor or any(derives(base, ancestor, known) for base in known.get(name, ()))


def is_entry_point(tree: ast.Module) -> bool:
    return "'__main__'" in ast.unparse(tree)


def framework_violations(name: str, tree: ast.Module) -> Iterator[str]:
    """A network imports no framework; outside training/ only what is part of one does."""
    frameworks = packages_of(tree) & FRAMEWORKS
    if not frameworks or name.startswith("training"):
        return
    own = classes(tree)
    known = BASES | own
    for cls in own:
        if derives(cls, "Module", known) and not derives(cls, "LightningModule", known):
            yield f"{name}: {cls} is a network; it imports no {frameworks}"
    bases = {base for bases in own.values() for base in bases}
    steers = any(base.startswith("Lightning") or base == "Callback" for base in bases)
    steers |= "trainer: L.Trainer" in ast.unparse(tree)
    if "hydra" in frameworks and not is_entry_point(tree):
        yield f"{name}: is no command; it imports no hydra"
    if frameworks - {"hydra"} and not steers:
        yield f"{name}: is no module, data module or callback; it imports no {frameworks}"


def test_imports_run_one_way() -> None:
    wrong = []
    for name, tree in TREE.items():
        package = name.split(".")[0]
        above = set(PACKAGES[: PACKAGES.index(package)])
        above |= {"train", "eval", "tests", "benchmarks", "configs"}
        wrong += [f"{name} must not import {other}" for other in packages_of(tree) & above]
    assert not wrong, "\n".join(wrong)


def test_no_import_goes_in_a_circle() -> None:
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_networks_know_no_framework() -> None:
    wrong = [v for name, tree in TREE.items() for v in framework_violations(name, tree)]
    assert not wrong, "\n".join(wrong)


def test_settings_are_read_without_torch() -> None:
    configs = [name for name in TREE if name.endswith(".config")]
    heavy = {"torch", "lightning", "datasets"}
    code = f"import sys, {', '.join(configs)}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


ONLY_USE = (  # networks that others trained
    "tokenizer.encode",
    "tokenizer.decode",
    "worldmodel.codec.__main__",
    "worldmodel.drive.__main__",
    "worldmodel.evaluation.judge",
    "worldmodel.heads.__main__",
    "worldmodel.rollout",
)
SLOW_TO_LOAD = {"lightning", "wandb", "lpips", "datasets"}
SLOW_TO_LOAD |= {"torch.distributed.tensor", "torch.distributed.checkpoint"}


def at_import(name: str) -> set[str]:
    """Dotted names that a module of ours and all that it needs import when it is imported."""
    found, left = set(), [name]
    while left:
        module = left.pop()
        top = [n for n in TREE[module].body if isinstance(n, ast.Import | ast.ImportFrom)]
        named = set(mentioned(ast.Module(top, []))) - found
        found |= named
        left += {part for target in named for part in parents(target) if part in TREE}
    return found


def parents(name: str) -> list[str]:
    """The name itself and every package around it."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


@pytest.mark.parametrize("command", ONLY_USE)
def test_what_only_uses_a_network_starts_without_what_trains_it(command: str) -> None:
    """Lightning alone, with torchmetrics behind it, takes three seconds."""
    slow = {part for name in at_import(command) for part in parents(name)} & SLOW_TO_LOAD
    assert not slow, f"import it where it is used: {slow}"


def test_folders_are_rooms() -> None:
    """`__init__.py` names a room and is no piece of it."""
    rooms: dict[Path, int] = defaultdict(int)
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            rooms[file.parent] += file.name != "__init__.py"
    full = {str(room): count for room, count in rooms.items() if count > MOST_FILES}
    assert not full


def test_a_class_has_its_name_alone() -> None:
    where = defaultdict(list)
    for name, tree in TREE.items():
        for cls in classes(tree):
            where[cls].append(name)
    twice = {cls: names for cls, names in where.items() if len(names) > 1}
    assert not twice


def test_no_function_stands_twice() -> None:
    """Same name and same body; a body is what remains without its docstring."""
    where = defaultdict(list)
    for name, tree in TREE.items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                where[node.name, ast.unparse(ast.Module(body, []))].append(name)
    twice = {key[0]: names for key, names in where.items() if len(names) > 1}
    assert not twice


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_pages_name_files_that_exist(page: str) -> None:
    """In full, or by the end of their path."""
    named = set(re.findall(r"`([\w/]+(?:\.py|/))`", (ROOT / page).read_text()))
    files = [f for folder in (*PACKAGES, "tests", "configs") for f in (ROOT / folder).rglob("*")]
    known = [f"{file}/" if file.is_dir() else str(file) for file in files]
    gone = {name for name in named if not any(path.endswith(f"/{name}") for path in known)}
    assert named
    assert not {name for name in gone if not (ROOT / name).exists()}


@pytest.mark.parametrize("package", PACKAGES[:-1])
def test_packages_import_training_first(package: str) -> None:
    """It repairs torchvision, which has to come before lightning."""
    body = TREE[package].body
    first = next(node for node in body if isinstance(node, ast.Import | ast.ImportFrom))
    assert packages_of(first) == {"training"}


NETWORK = "from torch import nn\nclass Net(nn.Module): ...\n"


@pytest.mark.parametrize(
    ("source", "count"),
    [
        (NETWORK, 0),
        (f"import lightning as L\n{NETWORK}class Mine(L.LightningModule): ...", 1),
        (f"{NETWORK}def f():\n    import hydra", 2),
        ("from lightning import LightningModule\nclass Mine(LightningModule): ...", 0),
        ("import lightning", 1),
        ("import hydra\nif __name__ == '__main__':\n    hydra.compose('train')", 0),
    ],
)
def test_framework_violations_are_found(source: str, count: int) -> None:
    assert len(list(framework_violations("tokenizer.mine", ast.parse(source)))) == count


@pytest.mark.parametrize(
    "source",
    [
        "from worldmodel.dynamics.gpt import model",
        "def f():\n    import worldmodel.dynamics.gpt.model",
        "importlib.import_module('worldmodel.dynamics.gpt.model')",
        "{'_target_': 'worldmodel.dynamics.gpt.model.GPT'}",
    ],
)
def test_every_way_to_import_is_seen(source: str) -> None:
    assert imports("training.mine", ast.parse(source)) == {"worldmodel.dynamics.gpt.model"}
