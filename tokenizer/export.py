"""Averaged weights alone, in half precision: python -m tokenizer.export ckpt=RUN out=FOLDER"""

from pathlib import Path

from omegaconf import DictConfig

from tokenizer.load import KIND, export_tokenizer
from training.checkpoints import find_checkpoint, read_manifest
from training.cli import command
from training.errors import BadInput


@command("export")
def main(cfg: DictConfig) -> None:
    checkpoint, out = find_checkpoint(Path(cfg.ckpt)), Path(cfg.out)
    kind = read_manifest(checkpoint).get("kind")
    if kind != KIND:
        raise BadInput(f"{checkpoint}: is a {kind} checkpoint, a tokenizer is needed")
    export_tokenizer(checkpoint, out)
    size = sum(f.stat().st_size for f in out.iterdir())
    print(f"{out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
