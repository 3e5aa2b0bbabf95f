"""Tokens that a world model dreams, by the tokenizer's decoder and by a video decoder."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from drives.video.rate import same_rate
from training.errors import BadInput
from worldmodel.decoding import Sampling
from worldmodel.decoding.occupancy import ONE_FRAME
from worldmodel.decoding.rollout import open_decoder
from worldmodel.evaluation.pixels import imagine
from worldmodel.load import WorldModel, load_world_model
from worldmodel.video_decoder.decoder import TokenVideoDecoder
from worldmodel.video_decoder.judge import RecordedClips, ScoreRows, VideoJudge
from worldmodel.windows import TokenClip

FEWEST = 3  # frames after a prompt: jitter is a second difference over time


def open_dreamer(name: str, decoder: TokenVideoDecoder) -> WorldModel:
    """The world model whose tokens a video decoder decodes.

    Args:
        name: a shipped model, a run folder or a checkpoint folder.

    Raises:
        BadInput: as `load_world_model`; it predicts no video, or its tokens are of another
            tokenizer or rate.
    """
    model = load_world_model(name, "world_model")
    spec, tokenizer = model.spec, decoder.opened
    if model.network.state_steps:
        raise BadInput(f"world_model={name}: {ONE_FRAME}")
    if spec.tokenizer not in tokenizer.known_as or spec.grid != decoder.spec.grid:
        raise BadInput(
            f"world_model={name}: has tokens of {spec.tokenizer[:12]}, and the video decoder those "
            f"of {tokenizer.hash[:12]}; give one of the same tokenizer"
        )
    if not same_rate(spec.fps, decoder.spec.fps):
        raise BadInput(
            f"world_model={name}: has {spec.fps:g} frames per second, and the video decoder "
            f"{decoder.spec.fps:g}; give one of the same rate"
        )
    if model.network.reads_text:
        print(f"note: {name}: dreams without captions here")
    return model


def prompt_of(model: WorldModel, asked: int | None, clip_frames: int) -> int:
    """Frames of the prompt; None: half of the model's context.

    Raises:
        BadInput: it is longer than the context, or leaves too few frames of a clip.
    """
    context = model.network.config.context_steps
    prompt = asked or max(2, context // 2)
    most = min(context, clip_frames - FEWEST)
    if not 1 <= prompt <= most:
        raise BadInput(
            f"prompt_steps={prompt}: the context of {model.path} is {context} steps, and "
            f"{FEWEST} of clip_frames={clip_frames} have to follow; give 1 to {most}"
        )
    return prompt


def dreamt(
    model: WorldModel,
    clips: RecordedClips,
    tokens: Int[Tensor, "clip time gh gw"],
    prompt: int,
    sampling: Sampling,
    decoding: Mapping[str, Any],
) -> Int[Tensor, "clip time gh gw"]:
    """The tokens of the prompts, and after them what the model samples under the real actions."""
    network = model.network.to(tokens.device)
    open_decoder(network, sampling, **decoding)  # refuses before anything is sampled
    clip = TokenClip(tokens, clips.actions(model.action_names).to(tokens.device))
    futures = imagine(network, clip, prompt, sampling, decoding, title="dreams")
    return torch.cat([tokens[:, :prompt], futures.tokens[:, 0]], dim=1)


def compare_dreams(
    decoder: TokenVideoDecoder,
    judge: VideoJudge,
    real: Int[Tensor, "clip time gh gw"],
    dreams: Int[Tensor, "clip time gh gw"],
) -> ScoreRows:
    """Rows of both decoders on the tokens of the recording and on dreamt ones.

    Beside them the recording, and the last frame of the prompt held. The prompt is decoded with
    what follows and not scored.

    Args:
        judge: of the frames after the prompt.
        real, dreams: prompts included.
    """
    rows = ScoreRows(judge, "tokens")
    first = real.shape[1] - judge.real.shape[1]
    rows.add("-", "recorded", lambda: judge.real)
    for group, tokens in (("recorded", real), ("dreamt", dreams)):
        rows.add(group, "tokenizer", lambda t=tokens: decoder.tokenizer.decode(t))  # type: ignore[misc]
        rows.add(group, "video decoder", lambda t=tokens: decoder.decode(t))  # type: ignore[misc]
    held = decoder.tokenizer.decode(real[:, first - 1 : first])
    rows.add("-", "last given frame, held", lambda: held.expand_as(judge.real))
    return rows
