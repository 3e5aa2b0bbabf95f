"""Drives the dream of a checkpoint in a local page: python -m worldmodel.drive ckpt=RUN

The page is at http://127.0.0.1:8765/; nothing leaves this machine. Ctrl-C ends it.
"""

from pathlib import Path

from omegaconf import DictConfig

from training.cli import command, plain
from training.disk.places import writable_folder
from training.machine import compute_device
from worldmodel.commands import DriveSettings
from worldmodel.decoding.config import DecodingConfig, sampling_from
from worldmodel.drive.server import DriveServer
from worldmodel.drive.session import DriveSession
from worldmodel.dynamics.gpt.model import GPT
from worldmodel.env.world import DreamWorld, open_world

# The tokens of "raster", which is a GPT's own choice, in a third of its time for one dream.
QUICK = "speculative"


def opened(cfg: DictConfig) -> DriveServer:
    """The server of a config, listening.

    Raises:
        BadInput: as of `open_world`, `Dream` and `DriveServer`, or a place that cannot be written.
    """
    values = plain(cfg)
    settings = DriveSettings(**{name: values[name] for name in DriveSettings.__dataclass_fields__})
    out, device = writable_folder("out", settings.out), compute_device(settings.device)
    given = (settings.tokenizer, settings.split, settings.prompt_steps)
    world = open_world(settings.ckpt, values["data"]["source"], *given)
    decoding = values["decoding"]
    if decoding["method"] == DecodingConfig.method and isinstance(world.model.network, GPT):
        decoding["method"] = QUICK
    dream = world.dream(sampling_from(values["sampling"]), device, **decoding)
    session = DriveSession(world, dream, settings.rate or world.fps, Path(out))
    return DriveServer(session, settings.port)


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
