"""Drives the dream of a checkpoint in a local page: python -m worldmodel.drive ckpt=RUN

The page is at http://127.0.0.1:8765/; nothing leaves this machine. Ctrl-C ends it. With export=FILE
the page becomes one file that dreams by itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from training.cli import command, plain
from training.disk.places import writable_folder
from training.errors import BadInput
from training.machine import compute_device
from training.ranges import one_of
from worldmodel.commands import DriveSettings
from worldmodel.decoding.config import DecodingConfig, sampling_from
from worldmodel.drive.export.write import check_export, export_place, write_export
from worldmodel.drive.server import DriveServer
from worldmodel.drive.session import DriveSession
from worldmodel.dynamics.gpt.model import GPT
from worldmodel.env.world import DreamWorld, open_world

# The tokens of "raster", which is a GPT's own choice, in a third of its time for one dream.
QUICK = "speculative"
PORTABLE = "portable"


def settings_of(values: Mapping[str, Any]) -> DriveSettings:
    return DriveSettings(**{name: values[name] for name in DriveSettings.__dataclass_fields__})


def world_of(values: Mapping[str, Any]) -> DreamWorld:
    settings = settings_of(values)
    given = (settings.tokenizer, settings.split, settings.prompt_steps)
    video = {"video_decoder": settings.video_decoder, "video": values["video"]}
    return open_world(settings.ckpt, values["data"]["source"], *given, **video)


def session_of(values: Mapping[str, Any], world: DreamWorld, method: str) -> DriveSession:
    """The session of a GPT decoded by `method` unless another is asked for."""
    settings, decoding = settings_of(values), dict(values["decoding"])
    out, device = writable_folder("out", settings.out), compute_device(settings.device)
    if decoding["method"] == DecodingConfig.method and isinstance(world.model.network, GPT):
        decoding["method"] = method
    dream = world.dream(sampling_from(values["sampling"]), device, **decoding)
    return DriveSession(world, dream, settings.rate or world.fps, Path(out))


def opened(cfg: DictConfig) -> DriveServer:
    """The server of a config, listening.

    Raises:
        BadInput: as of `open_world`, `Dream` and `DriveServer`, or a place that cannot be written.
    """
    values = plain(cfg)
    session = session_of(values, world_of(values), QUICK)
    return DriveServer(session, settings_of(values).port)


def exported(cfg: DictConfig) -> str:
    """Write the file of a config; what to say of it.

    Raises:
        BadInput: as of `opened`, `export_place`, `check_export` and `write_export`.
    """
    values = plain(cfg)
    file, decoding = values["export"], values["decoding"]
    one_of((DecodingConfig.method, PORTABLE), "export: decoding.", method=decoding["method"])
    one_of((None, "slide"), "export: decoding.", window=decoding["window"])
    place = export_place(file)
    if values["video_decoder"] is not None:
        raise BadInput(
            f"export: video_decoder={values['video_decoder']}: a file decodes by the tokenizer's "
            "own decoder; leave it out"
        )
    world = world_of(values)
    check_export(world)
    size = write_export(session_of({**values, "device": "cpu"}, world, PORTABLE), place)
    return f"{place}: {size / 1e6:.1f} MB; open it in a browser, it needs no server"


def missing(world: DreamWorld) -> list[str]:
    """What the page cannot do with this model, and why."""
    said = []
    if world.controls is None:
        said.append("reads no actions: the page plays its dream as a video")
    if world.tokenizer is None:
        said.append("has no tokenizer with pixels at hand (tokenizer=FOLDER): tokens are shown")
    return said


@command("commands/drive")
def main(cfg: DictConfig) -> None:
    if cfg.export is not None:
        print(exported(cfg))
        return
    server = opened(cfg)
    print(f"{server.url}  drives {cfg.ckpt}; Ctrl-C ends it", flush=True)
    for sentence in missing(server.session.world):
        print(f"note: the model {sentence}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()


if __name__ == "__main__":
    main()
