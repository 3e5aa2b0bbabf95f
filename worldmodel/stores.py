"""The token store that a source of data stands for."""

from collections.abc import Sequence
from pathlib import Path

from drives.drive import Drive
from drives.sources import DriveSource, TokenSource
from drives.tokens.store import TokenStore
from tokenizer.config import EncodeConfig
from tokenizer.encode import encode_drives, encoded_versions, store_spec
from tokenizer.load import Tokenizer, load_tokenizer
from tokenizer.store_key import store_folder


def open_store(
    source: DriveSource | TokenSource,
    tokenizer: str,
    encode: EncodeConfig,
    on_corrupt: str = "stop",
    opened: Tokenizer | None = None,
    drives: Sequence[Drive] | None = None,
) -> TokenStore:
    """The token store of a source; drives are encoded on first use.

    Args:
        opened: the tokenizer of this name, where it is open.
        drives: those of the source, where they are open.
    """
    if isinstance(source, TokenSource):
        return source.open(on_corrupt)
    opened = opened or load_tokenizer(tokenizer)
    drives = source.open() if drives is None else drives
    names = source.columns(drives)
    if not source.embedded and tokenizer == "carracing":
        print(
            "warning: the shipped tokenizer knows only the embedded drives; train one on yours "
            "(+experiment=tokenizer_tiny data.root=...) and pass data.tokenizer=runs/NAME"
        )
    spec = store_spec(drives, opened, encode.every)
    folder, name = Path(source.cache) / "tokens", source.folder.name
    taken = encoded_versions(drives, names, encode)
    out = store_folder(folder, name, spec, taken, names, encode.inference, encode.every)
    where = "data.encode."
    return encode_drives(drives, opened, out, names, encode, on_corrupt, settings=where)
