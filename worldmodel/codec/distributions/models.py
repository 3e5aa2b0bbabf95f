"""The predictors that the options, or a container's header, name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drives.tokens.spec import TokenSpec
from training.errors import BadInput
from worldmodel.codec.distributions.mixing import Mixed
from worldmodel.codec.distributions.network import NetworkPredictor, network_hash
from worldmodel.codec.distributions.predictors import FLOORS, Predictor
from worldmodel.codec.packing.packed import is_packed, open_packed
from worldmodel.dynamics.gpt.model import GPT
from worldmodel.load import WorldModel, load_world_model


def open_model(ckpt: str) -> WorldModel:
    """The world model of a run, a checkpoint folder, or a file of `pack`."""
    path = Path(ckpt)
    return open_packed(path) if is_packed(path) else load_world_model(ckpt)


def open_models(ckpts: Sequence[str]) -> list[WorldModel]:
    """The world models of some runs; BadInput unless all read the same tokens."""
    models = [open_model(ckpt) for ckpt in ckpts]
    for model in models[1:]:
        if (model.spec, model.action_names) != (models[0].spec, models[0].action_names):
            raise BadInput(
                f"{model.path}: reads other tokens or actions than {models[0].path}; mix models of "
                "one token store"
            )
    return models


def slides_of(models: Sequence[WorldModel], asked: int | None) -> list[int | None]:
    """Frames that leave each model's full context at once; None: as its decoder chooses."""
    return [
        max(1, model.network.config.context_steps // 2)
        if asked is None and isinstance(model.network, GPT)
        else asked
        for model in models
    ]


def describe_all(
    models: Sequence[WorldModel], floors: Sequence[str], slides: Sequence[int | None]
) -> tuple[dict[str, Any], ...]:
    """The header's entries of models, and of floors."""
    own = [
        {
            "name": "model",
            "hash": network_hash(model.network),
            "ckpt": str(model.path),
            "slide_steps": slide,
        }
        for model, slide in zip(models, slides, strict=True)
    ]
    return (*own, *({"name": name} for name in floors))


def predictor_of(
    models: Sequence[WorldModel],
    floors: Sequence[str],
    spec: TokenSpec,
    arithmetic: str,
    slides: Sequence[int | None],
) -> Predictor:
    """The predictor; a mixture where there are several."""
    parts: list[Predictor] = [
        NetworkPredictor(model.network, arithmetic, slide)
        for model, slide in zip(models, slides, strict=True)
    ]
    parts += [FLOORS[name](spec.vocab_size) for name in floors]
    return parts[0] if len(parts) == 1 else Mixed(parts)


def models_of(
    entries: Sequence[dict[str, Any]], ckpts: Sequence[str], where: str
) -> tuple[list[WorldModel], list[str], list[int | None]]:
    """The models and floors of a header, in its order, and the `slides_of` the models.

    Raises:
        BadInput: a model is missing, or is another one than that which coded.
    """
    wanted = [entry for entry in entries if entry.get("name") == "model"]
    floors = [str(entry.get("name")) for entry in entries if entry.get("name") != "model"]
    if unknown := [name for name in floors if name not in FLOORS]:
        raise BadInput(f"{where}: was coded by {unknown[0]!r}, which this release does not know")
    if len(ckpts) != len(wanted):
        names = ", ".join(str(entry.get("ckpt")) for entry in wanted) or "no model"
        raise BadInput(
            f"ckpt={','.join(ckpts)}: {where} was coded by {names}; give the same with --ckpt"
        )
    models = [open_model(ckpt) for ckpt in ckpts]
    hashes = {network_hash(model.network): model for model in models}
    for entry in wanted:
        if entry.get("hash") not in hashes:
            raise BadInput(
                f"ckpt={','.join(ckpts)}: {where} was coded by {entry.get('ckpt')} with network "
                f"{str(entry.get('hash'))[:12]}, not by {', '.join(h[:12] for h in hashes)}; give "
                "that checkpoint"
            )
    slides = [entry.get("slide_steps") for entry in wanted]  # an older release wrote none
    if wrong := [slide for slide in slides if slide is not None and type(slide) is not int]:
        raise BadInput(f"{where}: says slide_steps={wrong[0]!r}; use another copy")
    return [hashes[entry["hash"]] for entry in wanted], floors, slides
