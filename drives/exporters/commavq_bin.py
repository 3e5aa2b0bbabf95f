"""Token stores as nanoGPT reads them: one stream of uint16 per split.

The layout is that of commaVQ's nanogpt/prepare.py: each frame is BOS and its tokens, EOT ends a
drive. BOS is the size of the vocabulary, EOT one more.
"""

from pathlib import Path

import numpy as np

from drives.exporters.export_format import ExportFormat, ExportOptions
from drives.splits.base import SPLITS
from drives.tokens.store import TokenStore
from training.disk.leftovers import written_whole
from training.disk.places import refuse_existing
from training.errors import BadInput

KIND = np.dtype("<u2")


def export(root: Path, out: Path, options: ExportOptions) -> list[Path]:
    """Write `train.bin`, `val.bin`, `test.bin`, as far as there are drives of a split.

    Raises:
        BadInput: no store is there, its vocabulary does not fit into 16 bits with BOS and EOT, or a
            file exists.
    """
    store = TokenStore(root)
    bos = store.spec.vocab_size
    if bos + 1 > np.iinfo(KIND).max:
        raise BadInput(f"{root}: has {bos} tokens; BOS and EOT leave room for 65534 in 16 bits")
    drives = store.all
    paths = [out / f"{s}.bin" for s in SPLITS if any(drive.split == s for drive in drives)]
    for path in paths:
        refuse_existing("out", path)
    for path in paths:
        with written_whole(path) as partial, partial.open("wb") as file:
            for drive in drives:
                if drive.split != path.stem:
                    continue
                frames = np.asarray(drive.tokens).reshape(len(drive.tokens), -1)
                begun = np.full((len(frames), 1), bos, KIND)
                np.concatenate([begun, frames.astype(KIND)], axis=1).tofile(file)
                np.array([bos + 1], KIND).tofile(file)
    return paths


FORMAT = ExportFormat("train.bin of commaVQ's nanoGPT, of any token store", "tokens", export)
