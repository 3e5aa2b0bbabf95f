"""Do dreams of this model rank policies as CarRacing does?

python -m worldmodel.proving_ground ckpt=carracing heads=FOLDER out=FOLDER [setting=value ...]
"""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from training.cli import command, plain
from training.disk.places import made_folder, writable_folder
from training.errors import BadInput
from training.loading.pools import usable_cores
from training.machine import compute_device
from worldmodel.decoding.config import sampling_from
from worldmodel.env.starts import Starts
from worldmodel.env.world import DreamWorld, open_world
from worldmodel.evaluation.evidence import evidence_of, trained_on
from worldmodel.heads.heads import load_heads, read_manifest
from worldmodel.proving_ground.cloning import clone
from worldmodel.proving_ground.config import (
    CloningConfig,
    DreamTrainingConfig,
    ProvingGroundSettings,
)
from worldmodel.proving_ground.dream_training import train_in_dreams
from worldmodel.proving_ground.dreamed import Dreamed, DreamGround, start_of
from worldmodel.proving_ground.policies import Policy, graded
from worldmodel.proving_ground.report import Races, write
from worldmodel.proving_ground.simulated import Course, on_road


def proving_ground(cfg: DictConfig, say: Callable[[str], None] = print) -> Races:
    """Train the policies, drive them on the road and in dreams, compare, write.

    Raises:
        BadInput: as `open_world`, `load_heads`, `DreamGround` and `clone`.
    """
    values = plain(cfg)
    own = {field.name: values[field.name] for field in fields(ProvingGroundSettings)}
    settings = ProvingGroundSettings(**own)
    cloning = CloningConfig(**values["cloning"])
    dreaming = DreamTrainingConfig(**values["dream_training"])
    out, device = Path(writable_folder("out", settings.out)), compute_device(settings.device)
    data = values["data"]["source"]
    read_manifest(settings.heads)  # before drives are encoded
    world = open_world(settings.ckpt, data, settings.tokenizer)
    names = world.controls.names if world.controls else ()
    heads = load_heads(settings.heads, world.model.spec, names)
    dream = world.dream(sampling_from(values["sampling"]), device, **values["decoding"])
    ground = DreamGround(world, heads, dream, settings.most_dreams)
    store = evidence_of(world.model, data, settings.tokenizer).store
    policies: list[Policy] = [*graded(settings.num_graded)]
    if cloning.steps:
        policies.append(clone(store, cloning, device))
        say("cloned")
    if dreaming.rounds:
        clips = Starts(store.drives("train"), world.starts.prompt_steps)
        starts = [clips[number] for number in clips.spread(dreaming.num_starts)]
        policies.append(train_in_dreams(ground, starts, dreaming, say))
    races = race(ground, policies, settings, say)
    say(write(races, made_folder("out", out)))
    return races


def race(
    ground: DreamGround,
    policies: list[Policy],
    settings: ProvingGroundSettings,
    say: Callable[[str], None] = print,
) -> Races:
    """Every policy from every track's start, on the road and in dreams."""
    world = ground.world
    steps = max(1, round(max(settings.horizons_s) * world.fps))
    tracks = range(settings.first_track, settings.first_track + settings.num_tracks)
    courses = [
        Course(track, steps, world.fps, world.starts.prompt_steps, _tokenizer(world, settings))
        for track in tracks
    ]
    workers = settings.num_workers or len(usable_cores())
    driven = on_road(courses, policies, settings.seed, workers)
    say("driven on the road")
    starts = [start_of(one, track) for one, track in zip(driven, tracks, strict=True)]
    dreams = [
        ground.drive(policies, starts, steps, settings.seed + number)
        for number in range(settings.samples)
    ]
    say("driven in dreams")
    mean = {
        field.name: np.mean([getattr(one, field.name) for one in dreams], 0)
        for field in fields(Dreamed)
    }
    spread = np.std([one.rewards.cumsum(-1) for one in dreams], 0)
    real, off_road = (
        np.stack([getattr(one, name) for one in driven], 1) for name in ("rewards", "off_road")
    )
    names = [policy.name for policy in policies]
    return Races(names, real, off_road, Dreamed(**mean), spread, world.fps, settings.horizons_s)


def _tokenizer(world: DreamWorld, settings: ProvingGroundSettings) -> str:
    """The name by which other processes open the tokenizer."""
    model = world.model
    name = settings.tokenizer or trained_on(model.manifest, model.path).tokenizer
    if not name:
        raise BadInput(f"ckpt={model.path}: names no tokenizer; give tokenizer=FOLDER")
    return str(name)


@command("commands/proving_ground")
def main(cfg: DictConfig) -> None:
    proving_ground(cfg)


if __name__ == "__main__":
    main()
