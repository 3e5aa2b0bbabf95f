"""Tokens -> MP4: python -m tokenizer.decode store=tokens/mine drive=lake-test out=lake.mp4"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Integer, UInt8
from omegaconf import DictConfig

from drives import video
from drives.clips.preprocessing import to_uint8
from drives.tokens.store import TokenStore
from tokenizer.load import Tokenizer, load_tokenizer
from tokenizer.published import opened_name
from training.cli import command, plain
from training.disk.places import refuse_existing, writable_file
from training.errors import BadInput


def decode_frames(
    tokens: Integer[np.ndarray, "step gh gw"], tokenizer: Tokenizer, batch_size: int = 64
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yield the RGB frames of a drive's token grids."""
    chunks = (
        torch.from_numpy(tokens[start : start + batch_size].astype(np.int64)).to(tokenizer.device)
        for start in range(0, len(tokens), batch_size)
    )
    for pixels in tokenizer.decode_stream(chunks):
        yield from rearrange(to_uint8(pixels), "n c h w -> n h w c").cpu().numpy()


def check_pair(store: TokenStore, tokenizer: Tokenizer) -> None:
    """BadInput unless this tokenizer made the store's tokens or was published with them."""
    spec, own = store.spec, tokenizer.spec(store.spec.fps)
    if spec.tokenizer not in tokenizer.known_as:
        raise BadInput(
            f"{store.root}: made by tokenizer {spec.tokenizer[:12]}, "
            f"not by this one ({tokenizer.hash[:12]}); give the tokenizer that encoded it"
        )
    for name in ("grid", "vocab_size", "bit_order"):
        if getattr(spec, name) != getattr(own, name):
            raise BadInput(
                f"{store.root}: its {name} is {getattr(spec, name)}, this tokenizer's "
                f"{getattr(own, name)}; give the tokenizer with the options that encoded it"
            )


@command("commands/decode", files="ckpt")
def main(cfg: DictConfig) -> None:
    values, out = plain(cfg), writable_file("out", cfg.out)
    refuse_existing("out", out)
    store = TokenStore(Path(cfg.store))
    tokenizer = load_tokenizer(opened_name(cfg.tokenizer, values["ckpt"], values["options"]))
    check_pair(store, tokenizer)
    drive = store.find(cfg.drive)
    if drive is None:
        there = ", ".join(store.catalog.ids)
        raise BadInput(f"drive={cfg.drive}: not in {cfg.store}; there: {there}")
    out.parent.mkdir(parents=True, exist_ok=True)
    count = video.write_video(out, decode_frames(drive.tokens, tokenizer), store.spec.fps)
    print(f"{out}: {count} frames at {store.spec.fps:g} fps")


if __name__ == "__main__":
    main()
