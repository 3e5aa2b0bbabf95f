"""commaVQ: minutes of highway driving, published as tokens (MIT, github.com/commaai/commavq)."""

from pathlib import Path

import numpy as np

from tokenizer.token_store import TokenSpec, TokenStore, TokenStoreWriter, check_tokens
from training.errors import BadInput

SPEC = TokenSpec(
    grid=(1, 8, 16),
    vocab_size=1024,
    fps=20,
    frames_per_step=1,
    image_size=(128, 256),
    tokenizer="commavq",
)


def import_commavq(
    source: Path, out: Path, num_train: int = 1000, num_test: int = 200
) -> TokenStore:
    """Make a token store of one recording's tokens; a store that has them already is kept.

    Args:
        source: integers [frame 8 16] or [frame 128] in a .npy file, or a folder with tokens.npy.
        num_train: the first frames, drive `<name>-train`.
        num_test: the last frames, drive `<name>-test`. Neither drive has actions.

    Raises:
        BadInput: the tokens cannot be used, or `out` holds something else.
    """
    source = Path(source)
    file = source / "tokens.npy" if source.is_dir() else source
    tokens = read_tokens(file)
    if min(num_train, num_test) < 1 or num_train + num_test > len(tokens):
        raise BadInput(
            f"{file}: {num_train} frames to train and {num_test} to test asked of {len(tokens)}; "
            "give numbers from 1 on that fit in"
        )
    name = file.resolve().parent.name if file.stem in ("tokens", "token") else file.stem
    wanted = {
        f"{name}-train": ("train", 0, num_train),
        f"{name}-test": ("test", len(tokens) - num_test, len(tokens)),
    }
    writer = TokenStoreWriter(out, SPEC, ())
    for drive_id, (split, start, stop) in wanted.items():
        if writer.has(drive_id):
            continue
        actions = np.zeros((stop - start, 0), np.float32)
        meta = {"source": f"commaVQ, {file.name}", "source_frames": [start, stop]}
        writer.write(drive_id, split, tokens[start:stop], actions, meta)
    store = TokenStore(out)
    for split, start, stop in wanted.values():
        found = {drive.id: drive.tokens for drive in store.drives(split)}
        if not np.array_equal(found[f"{name}-{split}"], tokens[start:stop]):
            raise BadInput(
                f"{out}: holds other frames as {name}-{split}; nothing is overwritten, "
                "choose another folder"
            )
    return store


def read_tokens(file: Path) -> np.ndarray:
    """Tokens [frame 8 16] of a .npy file; BadInput where they are not commaVQ's."""
    try:
        tokens = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(
            f"{file}: is not a NumPy array file ({error}); give commaVQ's tokens.npy"
        ) from error
    if not isinstance(tokens, np.ndarray) or not np.issubdtype(tokens.dtype, np.integer):
        raise BadInput(f"{file}: holds no array of integers; give commaVQ's tokens.npy")
    if tokens.ndim == 2 and tokens.shape[1] == SPEC.tokens_per_step:
        tokens = tokens.reshape(-1, *SPEC.grid[1:])
    check_tokens(tokens, SPEC, str(file))
    return tokens
