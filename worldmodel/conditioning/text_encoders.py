"""Encodes captions with a frozen text encoder, each caption once.

An encoder has `width`, `key` and `encode` (see `TextEncoder`); a config names it by `_target_`.
`Texts` caches embeddings in memory and, between runs, in a folder.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.disk.hashing import file_sha256
from training.disk.judging import judged
from training.disk.leftovers import written_whole
from training.errors import BadInput
from worldmodel.conditioning.config import HashedWordsConfig, T5Config
from worldmodel.dynamics.config import DynamicsConfig
from worldmodel.dynamics.text import TextContext


@dataclass(frozen=True)
class Captions:
    """Captions of every time step of a batch; each distinct text is stored once.

    Attributes:
        index: text of every example and time step; -1 for none.
    """

    texts: tuple[str, ...]
    index: Int[Tensor, "batch time"]

    @staticmethod
    def of(rows: Sequence[Sequence[str]]) -> "Captions":
        """From the text of every time step of every example; "" is no caption."""
        texts = sorted({text for row in rows for text in row if text})
        indices = {"": -1} | {text: i for i, text in enumerate(texts)}
        return Captions(
            tuple(texts), torch.tensor([[indices[text] for text in row] for row in rows])
        )


class TextEncoder(Protocol):
    """A frozen encoder from sentences to a fixed number of vectors."""

    @property
    def width(self) -> int:
        """Channels per vector."""
        ...

    @property
    def key(self) -> str:
        """Name of the encoder and its weights: equal keys give equal embeddings."""
        ...

    def encode(self, texts: Sequence[str], num_tokens: int) -> Float[Tensor, "caption token width"]:
        """One vector per token of each text, cut or zero-padded to `num_tokens`."""
        ...


class HashedWords(HashedWordsConfig):
    """Maps every word to a fixed random vector; see `HashedWordsConfig`."""

    @property
    def key(self) -> str:
        return f"hashed_words-{self.width}"

    def encode(self, texts: Sequence[str], num_tokens: int) -> Float[Tensor, "caption token width"]:
        out = torch.zeros(len(texts), num_tokens, self.width)
        for row, text in enumerate(texts):
            for position, word in enumerate(text.lower().split()[:num_tokens]):
                seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big") >> 1
                generator = torch.Generator().manual_seed(seed)
                out[row, position] = torch.randn(self.width, generator=generator)
        return out


class T5(T5Config):
    """The encoder of a T5, opened by transformers; see `T5Config`.

    Raises:
        BadInput: transformers is not installed, or the model cannot be opened.
    """

    @property
    def width(self) -> int:
        return int(self._config.d_model)

    @property
    def key(self) -> str:
        """Contains the sha256 of the weights of a folder, or the commit of a hub model."""
        files = sorted(Path(self.name).glob("*.safetensors"))
        state = [file_sha256(file) for file in files]
        state = state or [self.name, str(self._config._commit_hash)]
        return "t5-" + hashlib.sha256(" ".join(state).encode()).hexdigest()[:16]

    @torch.no_grad()
    def encode(self, texts: Sequence[str], num_tokens: int) -> Float[Tensor, "caption token width"]:
        tokenizer, model = self._opened
        read = tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=num_tokens,
            return_tensors="pt",
        )
        state = model(input_ids=read.input_ids, attention_mask=read.attention_mask)
        return state.last_hidden_state.float() * read.attention_mask[..., None]

    @cached_property
    def _config(self) -> Any:
        return self._open("AutoConfig")

    @cached_property
    def _opened(self) -> tuple[Any, Any]:
        # Only safetensors: a pickle could run code.
        model = self._open("T5EncoderModel", use_safetensors=True)
        return self._open("AutoTokenizer"), model.eval().requires_grad_(False)

    def _open(self, kind: str, **options: Any) -> Any:
        try:
            import transformers
        except ImportError as error:
            raise BadInput(
                f"text encoder T5 {self.name!r} needs transformers: pip install dashcast[text]"
            ) from error
        try:
            return getattr(transformers, kind).from_pretrained(self.name, **options)
        except (OSError, ValueError) as error:
            raise BadInput(f"text encoder T5 {self.name!r}: cannot be opened ({error})") from error


def reading_text(network: DynamicsConfig, encoder: TextEncoder, captioned: bool) -> DynamicsConfig:
    """The config of a network that reads this encoder.

    Raises:
        BadInput: the network reads no text, or the data has no captions.
    """
    if not captioned:
        raise BadInput(
            "model.text: no drive of the data has captions; write them into drive.json "
            "(docs/drives.md) and encode again, or set model.text=null"
        )
    return network.with_text(encoder.width)


# Encoders that a checkpoint may name. Pass any other when opening one.
ENCODERS: dict[str, type[Any]] = {"hashed_words": HashedWords, "t5": T5}


class Texts:
    """Embeddings of captions by one encoder, computed once per caption.

    Args:
        num_tokens: vectors per caption.
        cache: folder for embeddings between runs, one file per caption.
    """

    def __init__(
        self, encoder: TextEncoder, num_tokens: int, cache: str | Path | None = None
    ) -> None:
        self.encoder, self.num_tokens = encoder, num_tokens
        self.folder = Path(cache) / f"{encoder.key}-{num_tokens}" if cache else None
        self._known: dict[str, Tensor] = {}

    def embed(self, captions: Captions, device: Any = None, negative: str = "") -> TextContext:
        """Captions for a network.

        Args:
            negative: negative prompt of guidance; "" for none.
        """
        texts = [*captions.texts, *([negative] if negative else [])]
        self._learn([text for text in dict.fromkeys(texts) if text not in self._known])
        blank = torch.zeros(0, self.num_tokens, self.encoder.width)
        embeddings = torch.stack([self._known[t] for t in texts]) if texts else blank
        negative_index = len(texts) - 1 if negative else -1
        return TextContext(embeddings.to(device), captions.index.to(device), negative_index)

    def caption_kwargs(
        self, captions: Captions | None, device: Any = None, negative: str = ""
    ) -> dict[str, TextContext]:
        """The keyword argument `captions` of a network; empty if the data has no captions."""
        return {} if captions is None else {"captions": self.embed(captions, device, negative)}

    def describe(self) -> dict[str, Any]:
        """The description in a checkpoint; see `ENCODERS`."""
        kinds = [name for name, kind in ENCODERS.items() if type(self.encoder) is kind]
        values = asdict(self.encoder) if kinds else {}  # type: ignore[call-overload]
        name = kinds[0] if kinds else type(self.encoder).__name__
        return {"name": name, "num_tokens": self.num_tokens, "key": self.encoder.key, **values}

    def _learn(self, texts: list[str]) -> None:
        """Read or compute missing embeddings."""
        files = {text: self._file(text) for text in texts}
        new = [text for text, file in files.items() if file is None or not file.exists()]
        embeddings = self.encoder.encode(new, self.num_tokens) if new else ()
        for text, embedding in zip(new, embeddings, strict=True):
            self._known[text] = embedding
            self._write(files[text], embedding)
        for text, file in files.items():
            if text not in self._known and file is not None:
                self._known[text] = load_file(file)["embedding"]

    def _file(self, text: str) -> Path | None:
        name = hashlib.sha256(text.encode()).hexdigest()
        return self.folder / f"{name}.safetensors" if self.folder else None

    @staticmethod
    def _write(file: Path | None, embedding: Tensor) -> None:
        """Write atomically, because other processes may read the file."""
        if file is None:
            return
        with written_whole(file) as partial:
            save_file({"embedding": embedding.contiguous().clone()}, partial)


@dataclass(frozen=True)
class Described:
    """Entries of `Texts.describe` besides the settings of the encoder."""

    name: str
    num_tokens: int
    key: str


def texts_from(description: dict[str, Any], encoder: TextEncoder | None = None) -> Texts:
    """Opens the text encoder of a checkpoint.

    Args:
        encoder: needed if the encoder of the checkpoint is not in `ENCODERS`.

    Raises:
        BadInput: the encoder cannot be opened, or is not the one of the checkpoint.
    """
    own = ("name", "num_tokens", "key")
    entry = judged(Described, {k: description[k] for k in own if k in description}, "text")
    values = {k: v for k, v in description.items() if k not in own}
    name, num_tokens, key = entry.name, entry.num_tokens, entry.key
    if encoder is None and name not in ENCODERS:
        raise BadInput(f"the text encoder {name} is none of {', '.join(ENCODERS)}; pass it along")
    encoder = encoder or judged(ENCODERS[name], values, f"text: {name}")
    if encoder.key != key:
        raise BadInput(
            f"the text encoder is {encoder.key}, but the model was trained with {key}; give that"
        )
    return Texts(encoder, num_tokens)
