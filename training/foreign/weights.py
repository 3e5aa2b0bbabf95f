"""Reads foreign weight files without running their code; every key is used or named."""

import pickletools
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from training.errors import BadInput
from training.foreign.stand_ins import plain, stand_in

Tensors = dict[str, Tensor]
INSIDE = ("state_dict", "model_state")  # where Lightning, and Driving_Simulator, keep the weights


def read_file(
    file: Path, option: str = "ckpt", remedy: str = "give the published file"
) -> dict[str, Any]:
    """The content of a safetensors or `torch.save` file; only tensors and plain values.

    OmegaConf objects become dicts and lists (`training.foreign.stand_ins`).

    Args:
        option: command-line option of the file, for messages.
        remedy: what to give instead, for messages.

    Raises:
        BadInput: the file is missing, damaged, a TorchScript archive, or holds other objects.
    """
    if not file.is_file():
        raise BadInput(f"{option}={file}: no such file; {remedy}")
    try:
        found = load_file(file) if file.suffix == ".safetensors" else plain(_unpickle(file))
    except BadInput as error:
        raise BadInput(f"{option}={file}: {error}") from error
    except Exception as error:  # of many kinds; torch's message advises to run the file
        raise BadInput(
            f"{option}={file}: cannot be read, or refused because it holds more than tensors and "
            f"plain values ({type(error).__name__}); {remedy}"
        ) from error
    if not isinstance(found, dict):
        raise BadInput(f"{option}={file}: is no state dict but {type(found).__name__}; {remedy}")
    return found


def _unpickle(file: Path) -> Any:
    named = [(stand_in(name), name) for name in _globals(file)]
    harmless: list[Any] = [(kind, name) for kind, name in named if kind is not None]
    with torch.serialization.safe_globals(harmless):
        return torch.load(file, map_location="cpu", weights_only=True)


def _globals(file: Path) -> set[str]:
    """Dotted names of the classes in a file's pickle, without importing them."""
    if _is_zip(file):
        check_stored(file)
        return set(torch.serialization.get_unsafe_globals_in_checkpoint(str(file)))
    # Before torch 1.6 a file was a series of pickles: number, version, machine, object.
    with file.open("rb") as stream:
        ops = [op for _ in range(4) for op in pickletools.genops(stream)]
    return {str(name).replace(" ", ".") for op, name, _ in ops if op.name == "GLOBAL"}


def _is_zip(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(2) == b"PK"


def check_stored(file: Path) -> None:
    """BadInput where an archive's data are compressed: torch never does that; it may be a bomb.

    TorchScript compresses only its code, which is not read.

    Raises:
        zipfile.BadZipFile: the file is no archive.
    """
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
    packed = [part.filename for part in parts if part.compress_type != zipfile.ZIP_STORED]
    packed = [name for name in packed if "code" not in name.split("/")[:2]]
    if packed:
        raise BadInput(
            f"{packed[0]} is compressed, which no file of torch.save is; give the published one"
        )


def state_dict(values: dict[str, Any], file: Path, inside: Sequence[str] = INSIDE) -> Tensors:
    """The tensors of a file: its own values, or those under the first key of `inside`.

    Raises:
        BadInput: there are no tensors.
    """
    for key in inside:
        if isinstance(values.get(key), dict):
            values = values[key]
            break
    tensors = {str(k): v for k, v in values.items() if isinstance(v, Tensor)}
    if not tensors or len(tensors) != len(values):
        odd = sorted(str(k) for k, v in values.items() if not isinstance(v, Tensor))
        raise BadInput(f"{file}: is no state dict; not tensors are: {', '.join(odd) or 'nothing'}")
    check_kind(tensors, file)
    return tensors


def check_kind(tensors: Tensors, file: Path) -> None:
    """BadInput unless all are dense, real, and no larger than the file."""
    for key, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized:
            raise BadInput(f"{file}: {key} is no dense tensor of real numbers; give the weights")
        if tensor.numel() * tensor.element_size() > file.stat().st_size:
            raise BadInput(
                f"{file}: {key} is {tuple(tensor.shape)}, more than the file holds; is it damaged?"
            )


def shape_of(tensors: Tensors, key: str, where: str, sides: int) -> tuple[int, ...]:
    """The shape of a tensor that determines sizes of a network.

    Raises:
        BadInput: the tensor is missing, has another number of dimensions, or an empty one.
    """
    if key not in tensors:
        raise BadInput(f"{where}: lacks {key}; give the whole checkpoint")
    shape = tuple(tensors[key].shape)
    if len(shape) != sides or 0 in shape:
        raise BadInput(
            f"{where}: {key} is {shape}, and {sides} sides of at least 1 are needed; is the file "
            "damaged?"
        )
    return shape


def fill(
    targets: Tensors, sources: dict[str, str], tensors: Tensors, left_out: Iterable[str], where: str
) -> tuple[Tensors, list[str]]:
    """Weights under our names in float32, and the names of unused tensors.

    Args:
        targets: the network's own tensors, for their shapes.
        sources: the foreign name of each target; all different.
        tensors: the foreign tensors; each must be used or left out.
        left_out: name prefixes of tensors that may be left out.
        where: the file, for messages.

    Raises:
        BadInput: a weight is missing, has another shape, is not finite, or is left over.
    """
    assert set(sources) == set(targets)
    assert len(set(sources.values())) == len(sources)
    missing = sorted(set(sources.values()) - set(tensors))
    if missing:
        raise BadInput(f"{where}: lacks {', '.join(missing)}; give the whole checkpoint")
    unused = set(tensors) - set(sources.values())
    ignored = {key for key in unused if key.startswith(tuple(left_out))}
    if unused - ignored:
        raise BadInput(
            f"{where}: holds what this network has no place for: "
            f"{', '.join(sorted(unused - ignored))}; is it of another family?"
        )
    weights = {}
    for key, target in targets.items():
        tensor = tensors[sources[key]]
        if tensor.shape != target.shape:
            raise BadInput(
                f"{where}: {sources[key]} is {tuple(tensor.shape)}, {tuple(target.shape)} is "
                "needed beside the other weights; do the parts belong together?"
            )
        if not tensor.isfinite().all():
            raise BadInput(f"{where}: {sources[key]} is not finite; download the file again")
        weights[key] = tensor.float()
    return weights, sorted(ignored)


def fill_same(
    targets: Tensors, values: dict[str, Any], left_out: Iterable[str], where: str
) -> Tensors:
    """The weights of a network whose file has our names; raises as `fill`."""
    tensors = {key: value for key, value in values.items() if isinstance(value, Tensor)}
    return fill(targets, {key: key for key in targets}, tensors, left_out, where)[0]
