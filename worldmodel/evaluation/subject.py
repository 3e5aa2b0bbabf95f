"""The model and the clips of an evaluation, opened and decoded once for all cards."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8
from torch import Tensor
from torch.utils.data import DataLoader

from drives.tokens.store import TokenDrive
from drives.versions import recording_of
from tokenizer.losses.lpips import load_lpips
from training.errors import BadInput
from training.loading.loader import listed_loader
from training.loading.spread import spread
from worldmodel.conditioning.text_encoders import Texts
from worldmodel.decoding import Sampling
from worldmodel.evaluation.cards.config import ControlCard, DistanceCard, DriftCard, RolloutCard
from worldmodel.evaluation.cards.result import VIDEO
from worldmodel.evaluation.clip_decoder import ClipDecoder, leads_of, places_of
from worldmodel.evaluation.evidence import Evidence
from worldmodel.evaluation.floors.predictors import floors
from worldmodel.evaluation.pixels import PixelJudge
from worldmodel.evaluation.scores import WindowScores, score_windows
from worldmodel.load import WorldModel
from worldmodel.windows import TokenClip, TokenWindows, collate


@dataclass(frozen=True)
class Chosen:
    """Some windows of a split.

    Attributes:
        ids: indices in `windows`.
    """

    windows: TokenWindows
    ids: list[int]

    @cached_property
    def names(self) -> list[str]:
        """drive@first time step, of every window."""
        return [f"{drive}@{start}" for drive, start in places_of(self.windows, self.ids)]

    @cached_property
    def drives(self) -> list[str]:
        """The drive of every window; versions of one drive are one, for they are no two samples."""
        return [recording_of(drive) for drive, _ in places_of(self.windows, self.ids)]

    def clip(self) -> TokenClip:
        return collate([self.windows[index] for index in self.ids])

    def tokens(self) -> Integer[np.ndarray, "window time *grid"]:
        """Tokens as the store holds them."""
        return np.stack([self.windows[index][0] for index in self.ids])

    def loader(self, batch_size: int) -> DataLoader:
        return listed_loader(self.windows, self.ids, batch_size, collate)

    def record(self) -> dict[str, Any]:
        """Ids of the clips, and the hash of their tokens and actions."""
        digest = hashlib.sha256()
        for name, index in zip(self.names, self.ids, strict=True):
            tokens, actions = self.windows[index][:2]
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(tokens, np.int64).tobytes())
            digest.update(np.ascontiguousarray(actions, np.float32).tobytes())
        return {
            "num": len(self.ids),
            "num_drives": len(set(self.drives)),
            "steps": self.windows.num_steps,
            "ids": self.names,
            "sha256": digest.hexdigest(),
        }


@dataclass(frozen=True)
class JudgedClips:
    """Clips as tokens, their decoder, and the camera's frames.

    Attributes:
        decoder: makes the frames that are shown.
        own: the tokenizer's own, where a video decoder makes them.
        frames: from `decoder.first_step` on.
        seen: frames of the prompt.
    """

    chosen: Chosen
    tokens: TokenClip
    decoder: ClipDecoder
    frames: UInt8[Tensor, "clip frame 3 h w"]
    prompt_steps: int
    own: ClipDecoder | None = None

    @property
    def decoders(self) -> dict[str, ClipDecoder]:
        """The tokenizer's own under "", and the video decoder if there is one."""
        return {"": self.decoder} if self.own is None else {"": self.own, VIDEO: self.decoder}

    @property
    def seen(self) -> int:
        return self.decoder.prompt.shape[1]

    @property
    def drives(self) -> list[str]:
        return self.chosen.drives

    def with_prompt(
        self, future: UInt8[Tensor, "clip horizon 3 h w"]
    ) -> UInt8[Tensor, "clip frame 3 h w"]:
        """Frames after the decoded prompt."""
        return torch.cat([self.decoder.prompt, future], dim=1)

    @property
    def reconstruction(self) -> UInt8[Tensor, "clip frame 3 h w"]:
        return self.decoder.real()


# Clips by hash of their store, video decoder, split, lengths and number; several checkpoints share
# them.
Decoded = dict[tuple[str, str, str, int, int, int], JudgedClips]


@dataclass
class JudgedModel:
    """A world model, its evaluation data, and how it decodes.

    Attributes:
        out: folder for pictures and videos.
        decoding: the method and its options, as `open_decoder` takes them.
        batch_size: windows scored at once; changes memory and time alone.
        attainable: file of what actions can tell of these tokens, if known.
        lpips_weights, i3d_weights, inception_weights: files; None: the usual sources.
        decoded: clips that are decoded already.
    """

    model: WorldModel
    evidence: Evidence
    split: str
    device: str
    sampling: Sampling
    decoding: Mapping[str, Any]
    batch_size: int = 16
    attainable: Path | None = None
    lpips_weights: Path | None = None
    i3d_weights: Path | None = None
    inception_weights: Path | None = None
    decoded: Decoded = field(default_factory=dict)
    out: Path = field(init=False)
    _floors: dict[tuple[str, ...], dict[str, Float[np.ndarray, "window step"]]] = field(
        default_factory=dict, init=False
    )
    _scores: dict[tuple[str, ...], WindowScores] = field(default_factory=dict, init=False)
    _judges: dict[str, PixelJudge] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.network = self.model.network.to(self.device)

    @cached_property
    def texts(self) -> Texts | None:
        return self.model.texts()

    @cached_property
    def held(self) -> list[TokenDrive]:
        """Drives of the split; BadInput where there are none."""
        return list(self.evidence.store.drives(self.split))

    @cached_property
    def train(self) -> list[TokenDrive]:
        """The train drives, which floors are fitted on; empty where the store has none."""
        splits = {drive.split for drive in self.evidence.store.all}
        return list(self.evidence.store.drives("train")) if "train" in splits else []

    @property
    def steps_per_second(self) -> float:
        return self.model.spec.fps / self.model.spec.frames_per_step

    def why_no_pixels(self, net: str) -> str:
        """Why frames cannot be compared; "" where they can."""
        if self.evidence.tokenizer is None or not self.evidence.drives:
            return "no drives and tokenizer at hand: tokens only"
        height, width = self.evidence.store.spec.image_size
        if min(height, width) < self.judge(net).perceptual.min_side:
            return f"frames of {height}x{width} pixels are too small for LPIPS"
        return ""

    def judge(self, net: str) -> PixelJudge:
        """The judge of frames with LPIPS over `net`."""
        if net not in self._judges:
            perceptual = load_lpips(net, self.lpips_weights).to(self.device)
            self._judges[net] = PixelJudge(perceptual)
        return self._judges[net]

    def lengths(
        self, card: RolloutCard | ControlCard | DistanceCard | DriftCard
    ) -> tuple[int, int]:
        """Time steps of prompt and horizon; the default prompt is half of the context.

        Raises:
            BadInput: the prompt exceeds the context; or, with pixels, every drive is too short
                for the horizon.
        """
        context, where = self.network.config.context_steps, f"cards.{card.name}"
        prompt = card.prompt_steps or max(2, context // 2)
        video = self.evidence.video
        if not 2 <= prompt < context:
            raise BadInput(
                f"{where}.prompt_steps={prompt}: the context of {self.model.path} is {context} "
                f"steps; choose 2 .. {context - 1}"
            )
        if isinstance(card, DistanceCard):
            asked, horizon = f"clip_frames={card.clip_frames}", self.steps_of(card.clip_frames)
        else:
            asked = f"horizon_s={card.horizon_s}"
            horizon = max(1, round(card.horizon_s * self.steps_per_second))
        if video is not None and prompt + horizon < video.window_frames:
            raise BadInput(
                f"{where}.{asked}: {prompt + horizon} steps of prompt and horizon are less than "
                f"the {video.window_frames} that the video decoder reads at once; raise it"
            )
        longest = max(len(drive.tokens) for drive in self.held)
        if longest < prompt + horizon and self.evidence.tokenizer and self.evidence.drives:
            raise BadInput(
                f"{where}.{asked}: {horizon} steps after a prompt of {prompt} are more than any "
                f"drive of the {self.split} split has (longest: {longest}); lower it"
            )
        return prompt, horizon

    def steps_of(self, num_frames: int) -> int:
        """Time steps that hold so many frames."""
        return -(-num_frames // self.model.spec.frames_per_step)

    def windows(self, num_steps: int, num: int) -> Chosen:
        """`num` windows of `num_steps` time steps, evenly spread over the drives of the split."""
        windows = TokenWindows(self.held, num_steps)
        return Chosen(windows, spread(len(windows), num))

    def scores(self, chosen: Chosen) -> WindowScores:
        """How the model scores windows under their own actions; computed once."""
        key = (*chosen.names, str(chosen.windows.num_steps))
        if key not in self._scores:
            batches = chosen.loader(self.batch_size)
            self._scores[key] = score_windows(self.network, batches, self.device, self.texts)
        return self._scores[key]

    def floors(self, chosen: Chosen) -> dict[str, Float[np.ndarray, "window step"]]:
        """Nats per token of trivial predictors at time steps 1.., fitted once.

        Empty where the store holds no train drives.
        """
        key = (*chosen.names, str(chosen.windows.num_steps))
        if self.train and key not in self._floors:
            vocab = self.model.spec.vocab_size
            self._floors[key] = floors(self.train, chosen.tokens(), vocab)
        return self._floors.get(key, {})

    def clips(self, prompt: int, horizon: int, num: int) -> JudgedClips:
        """`num` clips away from the ends of the drives, with frames; decoded once."""
        evidence = self.evidence
        by = "" if evidence.video is None else str(evidence.video.path)
        key = (evidence.store.hash, by, self.split, prompt, horizon, num)
        if key not in self.decoded:
            chosen = between_ends(TokenWindows(self.held, prompt + horizon), num)
            self.decoded[key] = clips_of(self.evidence, chosen, prompt, self.device)
        return self.decoded[key]


def clips_of(evidence: Evidence, chosen: Chosen, prompt: int, device: str) -> JudgedClips:
    """Clips with the camera's frames, ready to be decoded after a prompt."""
    spec, every = evidence.store.spec, evidence.every
    assert evidence.tokenizer is not None
    tokenizer = evidence.tokenizer.to(device)
    clip = chosen.clip().to(device)
    leads = leads_of(chosen.windows, chosen.ids)
    own = decoder = ClipDecoder(tokenizer, clip.tokens, prompt, leads)
    if evidence.video is not None:
        decoder = ClipDecoder(tokenizer, clip.tokens, prompt, leads, evidence.video)
    by_id = {drive.id: drive for drive in evidence.drives}
    frames = []
    for drive, start in places_of(chosen.windows, chosen.ids):
        # Time step s ends with frame s * frames_per_step.
        first = (start + decoder.first_step - 1) * spec.frames_per_step + 1
        last = (start + chosen.windows.num_steps - 1) * spec.frames_per_step
        seen = by_id[drive].frames(first * every, last * every + 1)
        taken = np.stack(list(islice(seen, 0, None, every)))
        frames.append(spec.preprocessing.fit(taken, spec.image_size))
    pixels, other = torch.stack(frames).to(device), None if own is decoder else own
    return JudgedClips(chosen, clip, decoder, pixels, prompt, other)


def between_ends(windows: TokenWindows, num: int) -> Chosen:
    """`num` windows, evenly spread, none at the very ends."""
    inner = np.linspace(0, len(windows) - 1, num + 2).astype(int)[1:-1]
    return Chosen(windows, np.unique(inner).tolist())
