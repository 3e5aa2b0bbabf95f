"""Exports EMA weights in half precision: python -m tokenizer.export ckpt=RUN out=FOLDER"""

from pathlib import Path

from omegaconf import DictConfig

from tokenizer.load import export_tokenizer
from training.cli import command
from training.disk.places import writable_folder


@command("commands/export")
def main(cfg: DictConfig) -> None:
    out = writable_folder("out", cfg.out)
    export_tokenizer(Path(cfg.ckpt), out)
    size = sum(f.stat().st_size for f in out.iterdir())
    print(f"{out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
