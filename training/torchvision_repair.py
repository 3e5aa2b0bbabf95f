"""Makes `import torchvision` work where its compiled operators do not match torch.

PyPI's torchvision beside a CPU build of torch cannot load its compiled operators. Its Python
code then registers shapes and gradients for operators that were never defined, and `import
torchvision` ends in `RuntimeError: operator torchvision::nms does not exist` - and with it
`import lightning`, `torchmetrics` and `lpips`, none of which call such an operator. The repair
declares the missing names and imports once more. Models and transforms then work; calling
`torchvision.ops.nms` still raises, as it should.
"""

import re
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

OPERATORS = ("nms", "qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
FAILURE = re.compile(rf"operator torchvision::({'|'.join(OPERATORS)}) does not exist")

# torch forgets the declarations of a Library that is garbage collected.
_libraries: list[Any] = []


def install() -> None:
    """Repair torchvision if its first import fails; imports nothing itself."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder:
    """Finds torchvision and gives it a loader that can repair it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torchvision":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader:
            return None
        spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        pristine = dict(vars(module))
        try:
            super().exec_module(module)
        except RuntimeError as error:
            if not FAILURE.search(str(error)):
                raise
            # The failed import leaves partial submodules; a retry must not find them.
            for name in [name for name in sys.modules if name.startswith("torchvision.")]:
                del sys.modules[name]
            vars(module).clear()
            vars(module).update(pristine)
            _declare_operators()
            super().exec_module(module)


def _declare_operators() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + SCHEMA)
    _libraries.append(library)
