"""Published weights -> our checkpoint format.

python -m worldmodel.convert model=commavq_gpt ckpt=pytorch_model.bin,config.json out=FOLDER
"""

import re
from collections import Counter

from omegaconf import DictConfig

from training.cli import command, plain
from training.disk.places import writable_folder
from training.foreign.adapters import paths
from worldmodel.load import load_world_model
from worldmodel.published import convert


@command("commands/world_model/convert", files="ckpt")
def main(cfg: DictConfig) -> None:
    values, out = plain(cfg), writable_folder("out", cfg.out)
    left_out = convert(cfg.model, paths(values["ckpt"]), out, **values["options"])
    for group, count in sorted(Counter(re.sub(r"\d+", "N", key) for key in left_out).items()):
        print(f"left out: {count} tensors of {group} (named in the manifest)")
    model = load_world_model(out)
    spec, network = model.spec, model.network
    grid = f"{spec.grid[1]}x{spec.grid[2]}"
    print(
        f"{out}: {cfg.model}, {network.num_parameters():,} parameters, "
        f"{network.config.context_steps} steps of {grid} tokens of {spec.vocab_size}"
    )


if __name__ == "__main__":
    main()
