"""Published weights -> our checkpoint format.

python -m tokenizer.convert tokenizer=commavq ckpt=encoder.bin,decoder.bin out=FOLDER
"""

import re
from collections import Counter

from omegaconf import DictConfig

from tokenizer.load import load_tokenizer
from tokenizer.published import convert
from training.cli import command, plain
from training.disk.places import writable_folder
from training.foreign.adapters import paths


@command("commands/convert", files="ckpt")
def main(cfg: DictConfig) -> None:
    values, out = plain(cfg), writable_folder("out", cfg.out)
    left_out = convert(cfg.tokenizer, paths(values["ckpt"]), out, **values["options"])
    groups = Counter(re.split(r"[. ]", key)[0] for key in left_out)
    for group, count in sorted(groups.items()):
        print(f"left out: {count} tensors of {group} (named in the manifest)")
    opened = load_tokenizer(out)
    spec = opened.spec(fps=1.0)
    print(
        f"{out}: {cfg.tokenizer}, {spec.image_size[0]}x{spec.image_size[1]} pixels to "
        f"{spec.grid[1]}x{spec.grid[2]} tokens of {spec.vocab_size}, hash {opened.hash[:12]}"
    )


if __name__ == "__main__":
    main()
