"""How many bits per frame could actions tell of this data?

python -m worldmodel.evaluation.attainable data=tokens data.root=STORE [setting=value ...]
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from training.cli import command
from training.disk.places import writable_folder
from training.disk.plain_json import finite, to_json
from training.machine import compute_device
from training.pages.text_table import text_table
from worldmodel.evaluation.attainable.config import ProbeConfig
from worldmodel.evaluation.attainable.estimate import Attainable, Probing, advice
from worldmodel.evaluation.report.terminal import interval
from worldmodel.stores import open_store

RESULT = "attainable.json"


def attainable(cfg: DictConfig) -> dict[str, Any]:
    """Train the probes, print the table, write `attainable.json` into `cfg.out`.

    Raises:
        BadInput: as `open_store` and `Probing`, or settings that cannot be.
    """
    config: ProbeConfig = instantiate(cfg.probe, _convert_="all")
    out, device = writable_folder("out", cfg.out), compute_device(cfg.device)
    encode = instantiate(cfg.encode, _convert_="all")
    store = open_store(instantiate(cfg.data.source, _convert_="all"), cfg.tokenizer, encode)
    found = Probing(store, config, Path(out), device).estimates()
    spec = store.spec
    per_frame = spec.tokens_per_step
    lines = advice(found, per_frame, 1 / spec.step_s)
    result = {
        "store": store.hash,
        "tokenizer": spec.tokenizer,
        "fps": spec.fps,
        "step_s": spec.step_s,
        "tokens_per_frame": per_frame,
        "probe": asdict(config),
        "answers": [asdict(answer) for answer in found],
        "advice": lines,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / RESULT).write_text(to_json(finite(result)) + "\n")
    print("\n".join([table(found, per_frame), "", *lines, str(out / RESULT)]))
    return result


def table(found: list[Attainable], tokens_per_frame: int) -> str:
    kinds = list(dict.fromkeys(name for answer in found for name in answer.by_situation))
    columns = ["horizon", "lag", "bits per frame", "per token", "seeds", "of a row's", *kinds]
    cells = []
    for answer in found:
        value = answer.bits_per_frame.value or 0.0
        seeds = " ".join(f"{bits:.2f}" for bits in answer.by_seed)
        line = [str(answer.horizon), f"{answer.lag:+d}" if answer.lag else "0"]
        line += [interval(answer.bits_per_frame.plain()), f"{value / tokens_per_frame:.4f}", seeds]
        line.append(f"{answer.before.value or 0.0:.2f}")
        told = [answer.by_situation.get(kind) for kind in kinds]
        cells.append(line + [interval(t.plain()) if t else "-" for t in told])
    return text_table(columns, cells)


@command("commands/attainable")
def main(cfg: DictConfig) -> None:
    attainable(cfg)


if __name__ == "__main__":
    main()
