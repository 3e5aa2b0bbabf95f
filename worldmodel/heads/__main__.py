"""Trains heads that read reward, road and end from the tokens of a frozen world model.

python -m worldmodel.heads ckpt=RUN out=FOLDER data=drives \\
    data.source.carracing.rewards=true data.source.carracing.off_road=true
"""

from pathlib import Path

from omegaconf import DictConfig

from training.cli import command, plain
from training.disk.places import made_folder, refuse_existing, writable_folder
from training.disk.plain_json import finite, to_json
from training.machine import compute_device
from training.pages.text_table import text_table
from worldmodel.evaluation.evidence import evidence_of
from worldmodel.evaluation.intervals import Estimate
from worldmodel.evaluation.report.terminal import interval
from worldmodel.heads.config import HeadsSettings
from worldmodel.heads.heads import MANIFEST
from worldmodel.heads.training import scores_of, train_heads, usable
from worldmodel.load import load_world_model

RESULT = "scores.json"
HELD_OUT = "test"


def heads(cfg: DictConfig) -> dict[str, dict[str, Estimate]]:
    """Train the heads, write them into `cfg.out`, print what they score on test drives.

    Raises:
        BadInput: as `evidence_of` and `train_heads`, no drives to judge by, a place that cannot be
            written or holds heads.
    """
    values = plain(cfg)
    settings = HeadsSettings(**{name: values[name] for name in HeadsSettings.__dataclass_fields__})
    out, device = Path(writable_folder("out", settings.out)), compute_device(settings.device)
    refuse_existing("out", out / MANIFEST)
    model = load_world_model(settings.ckpt)
    store = evidence_of(model, values["data"]["source"], settings.tokenizer).store
    usable(store, HELD_OUT, settings.num_frames)
    found = train_heads(store, settings, device)
    scores = scores_of(found, store, HELD_OUT, device)
    found.save(made_folder("out", out))
    told = {head: {of: one.plain() for of, one in own.items()} for head, own in scores.items()}
    (out / RESULT).write_text(to_json(finite(told)) + "\n")
    cells = [
        [head, measure, interval(one.plain())]
        for head, own in scores.items()
        for measure, one in own.items()
    ]
    print(text_table(["head", f"on {HELD_OUT} drives", "value"], cells))
    print(out)
    return scores


@command("commands/heads")
def main(cfg: DictConfig) -> None:
    heads(cfg)


if __name__ == "__main__":
    main()
