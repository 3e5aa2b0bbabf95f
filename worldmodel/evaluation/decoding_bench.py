"""Benchmark of all decoders: python -m worldmodel.evaluation.decoding_bench ckpt=RUN

Speed, share of the memory limit, cross entropy that an approximation costs, and share of right
guesses, as a markdown table.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor

from drives.splits.base import CHOICES
from training.cli import command, plain
from training.disk.places import writable_file
from training.errors import BadInput
from training.machine import compute_device, read_bandwidth
from training.pages.text_table import markdown_table
from training.ranges import at_least, one_of
from training.watch.clock import now
from training.watch.results import append, heading
from worldmodel.decoding.base import FrameDecoder
from worldmodel.decoding.config import sampling_from
from worldmodel.decoding.raster import Decoder
from worldmodel.decoding.rollout import METHODS, open_decoder
from worldmodel.decoding.speculative import SpeculativeDecoder
from worldmodel.dynamics.base import Dynamics
from worldmodel.evaluation.evidence import evidence_of
from worldmodel.evaluation.provenance.trained_clips import refuse_trained
from worldmodel.load import load_world_model
from worldmodel.windows import TokenClip, TokenWindows, collate

# Nats per token: rounding alone changes a score by less.
EXACT = 1e-3


@dataclass(frozen=True)
class Measured:
    """Figures of one decoder.

    Attributes:
        name: the method and its options.
        seconds_per_frame: the fastest repetition.
        memory_share: tokens per second as a share of the memory limit, which is weights and cache
            read once per token at the measured bandwidth. Above 1 where a pass settles several
            tokens; None where the decoder does not count what it reads.
        nats: cross entropy of the real tokens under this decoder; None where it has none.
        acceptance: share of right guesses; None without guesses.
    """

    name: str
    seconds_per_frame: float
    memory_share: float | None
    nats: Float[Tensor, "row space"] | None
    acceptance: float | None


def variants(
    model: Dynamics, wanted: dict[str, list[dict[str, Any]]]
) -> list[tuple[str, dict[str, Any]]]:
    """Methods of this kind of model, with the given options or their defaults."""
    unknown = sorted(set(wanted) - set(METHODS))
    if unknown:
        raise BadInput(f"methods.{unknown[0]}: no such method; known: {', '.join(METHODS)}")
    able = [name for name, method in METHODS.items() if isinstance(model, method.kind)]
    return [(name, options) for name in able for options in wanted.get(name, [{}])]


def measure(
    model: Dynamics,
    clip: TokenClip,
    decoder: FrameDecoder,
    name: str,
    repeats: int,
    bandwidth: float,
) -> Measured:
    """Time decoding after a full context, and score the real frames; the best of `repeats`."""
    context = model.config.context_steps - 1
    prompt, real = clip.tokens[:, :context], clip.tokens[:, context:]
    actions = clip.actions if model.conditioned else None
    rows = [None if actions is None else actions[:, context - 1 + i] for i in range(real.shape[1])]
    best, space = float("inf"), model.spec.tokens_per_step
    for _ in range(repeats):
        decoder.start(prompt, actions)
        decoder.next_frame(rows[0])  # fills the context, and warms up
        began = now(prompt.device)
        for row in rows[1:]:
            decoder.next_frame(row)
        best = min(best, (now(prompt.device) - began) / (len(rows) - 1))
    acceptance = decoder.acceptance if isinstance(decoder, SpeculativeDecoder) else None
    if not isinstance(decoder, Decoder):
        return Measured(name, best, None, None, acceptance)
    share = decoder.bytes_per_token * space / best / bandwidth
    decoder.start(prompt, actions)
    nats = [decoder.score_next(real[:, i], row) for i, row in enumerate(rows)]
    return Measured(name, best, share, torch.cat(nats), acceptance)


def named(method: str, options: dict[str, Any]) -> str:
    """Method and options as one name."""
    return ", ".join([method, *(f"{key}={value}" for key, value in options.items())])


def table(rows: list[Measured], space: int) -> str:
    """The rows as markdown; cross entropies are relative to the first row."""
    head = "decoding, frames/s, tokens/s, of the memory limit, cross entropy, guesses right"
    cells = []
    for row in rows:
        speed = 1 / row.seconds_per_frame
        share = "" if row.memory_share is None else f"{row.memory_share:.0%}"
        right = "" if row.acceptance is None else f"{row.acceptance:.0%}"
        figures = f"{speed:.3g}", f"{speed * space:.4g}", share, cost(row, rows[0]), right
        cells.append([row.name, *figures])
    return markdown_table(head.split(", "), cells)


def cost(row: Measured, first: Measured) -> str:
    """Cross entropy that a decoder adds to the first one's."""
    if row.nats is None or first.nats is None:
        return ""
    if row is not first and (row.nats - first.nats).abs().max() < EXACT:
        return "exact"
    ours, theirs = row.nats.mean().item(), first.nats.mean().item()
    return f"{ours:.4f} nats" if row is first else f"{ours / theirs - 1:+.2%}"


def bench(cfg: DictConfig) -> None:
    """Measure, print the table, and with `cfg.write` append it to `cfg.results`.

    Raises:
        BadInput: too few frames, an unknown method, or data of another model or of its training.
    """
    values = plain(cfg)
    at_least(2, num_frames=cfg.num_frames)
    at_least(1, repeats=cfg.repeats)
    one_of(CHOICES, split=cfg.split)
    device, sampling = torch.device(compute_device(cfg.device)), sampling_from(values["sampling"])
    if cfg.write:
        writable_file("results", cfg.results)
    model = load_world_model(Path(cfg.ckpt))
    chosen = variants(model.network, values["methods"])
    evidence = evidence_of(model, values["data"]["source"], cfg.tokenizer)
    refuse_trained([model], evidence, cfg.split, cfg.allow_train)
    length = model.network.config.context_steps - 1 + cfg.num_frames
    windows = TokenWindows(evidence.store.drives(cfg.split), length)
    clip = collate([windows[len(windows) // 2]]).to(device)
    network, bandwidth, rows = model.network.to(device), read_bandwidth(device), []
    for method, options in chosen:
        name = named(method, options)
        try:
            decoder = open_decoder(network, sampling, method, **options)
        except BadInput as error:
            print(f"{name} is left out: {error}", flush=True)
            continue
        rows.append(measure(network, clip, decoder, name, cfg.repeats, bandwidth))
        print(f"{rows[-1].name}: {1 / rows[-1].seconds_per_frame:.3g} frames/s", flush=True)
    if not rows:
        raise BadInput(f"{cfg.ckpt}: none of the methods asked for can decode it; see above")
    note = (
        f"{cfg.ckpt}: {network.num_parameters() / 1e6:.1f} M parameters, {cfg.num_frames} frames "
        f"of {model.spec.tokens_per_step} tokens after a context of {length - cfg.num_frames}; "
        f"memory is read at {bandwidth / 1e9:.1f} GB/s; {sampling}"
    )
    text = f"{heading()}\n{note}\n\n{table(rows, model.spec.tokens_per_step)}\n"
    print("\n" + text)
    if cfg.write:
        append(text, Path(cfg.results))


@command("commands/decoding_bench")
def main(cfg: DictConfig) -> None:
    bench(cfg)


if __name__ == "__main__":
    main()
