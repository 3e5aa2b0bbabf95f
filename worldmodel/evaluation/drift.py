"""Drift of long rollouts: predictions of world models against the recording, second by second.

    python -m worldmodel.evaluation.drift RUN [RUN ...] [--write]

LPIPS and PSNR compare with the recording, reconstructed by the tokenizer. They penalise a
plausible future that differs. The distance of token histograms (total variation between predicted
and real tokens of a second) does not: it asks whether frames still look like these drives. The
first row compares real clips with other real clips.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

from drives.tokens.store import TokenSpec
from tokenizer.load import Tokenizer
from tokenizer.losses.lpips import load_lpips
from training.cli import bad_input_fails
from training.errors import BadInput
from training.watch.results import append, heading
from worldmodel.data import TokenClip, TokenWindows, collate
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import rollout
from worldmodel.evaluation.clip_decoder import decode_grids
from worldmodel.evaluation.evidence import evidence_of
from worldmodel.evaluation.pixels import PixelJudge
from worldmodel.evaluation.provenance.trained_clips import SWITCH, refuse_trained
from worldmodel.load import WorldModel, load_world_model

RESULTS = Path("docs/results.md")
Tokens = Int[Tensor, "clip time height width"]


@dataclass(frozen=True)
class Drift:
    """One row of the table, by second.

    Attributes:
        histogram: total variation distance to the real tokens, 0 to 1.
        lpips, psnr: to the recording; empty for real clips.
    """

    name: str
    histogram: list[float]
    lpips: list[float]
    psnr: list[float]


def histogram_distance(a: Tokens, b: Tokens, vocab_size: int) -> float:
    """Half the sum of |p - q| of two token histograms."""
    p, q = (np.bincount(x.flatten().cpu().numpy(), minlength=vocab_size) for x in (a, b))
    return float(np.abs(p / p.sum() - q / q.sum()).sum() / 2)


def before(seconds: Sequence[int], fps: float) -> list[slice]:
    """The frames of the second that ends at each of `seconds`."""
    ends = [round(s * fps) for s in seconds]
    return [slice(max(0, end - round(fps)), end) for end in ends]


def drift(
    model: WorldModel,
    name: str,
    clips: TokenClip,
    prompt: int,
    seconds: Sequence[int],
    tokenizer: Tokenizer,
    judge: PixelJudge,
) -> Drift:
    """Roll out all clips in one batch and compare each frame with the recording."""
    network, real = model.network, clips.tokens[:, prompt:]
    actions = clips.actions if network.num_actions else None
    futures = rollout(network, clips.tokens[:, :prompt], actions, real.shape[1], Sampling(), 1)
    pred, target = (decode_grids(tokenizer, tokens) for tokens in (futures[:, 0], real))
    scores = judge.compare(pred, target)
    lpips, psnr = (
        [float(np.mean(scores[measure][w])) for w in before(seconds, model.spec.fps)]
        for measure in ("lpips", "psnr")
    )
    return Drift(name, distances(futures[:, 0], real, model.spec, seconds), lpips, psnr)


def distances(a: Tokens, b: Tokens, spec: TokenSpec, seconds: Sequence[int]) -> list[float]:
    """Histogram distances within the second that ends at each of `seconds`."""
    windows = before(seconds, spec.fps)
    return [histogram_distance(a[:, w], b[:, w], spec.vocab_size) for w in windows]


def measure(args: argparse.Namespace) -> list[Drift]:
    """Measure all runs on the same clips; the first row is other real clips.

    Raises:
        BadInput: the runs' tokens differ or are a video tokenizer's, drives are shorter than a
            clip, or a run was trained on them.
    """
    models = [load_world_model(run) for run in args.runs]
    evidence = evidence_of(models[0], {"root": args.root}, None)
    store, tokenizer = evidence.store, evidence.tokenizer
    if tokenizer is None:
        raise BadInput(f"{args.runs[0]}: names no tokenizer at hand; pixels need one")
    for model, run in zip(models, args.runs, strict=True):
        model.check_store(store)
        if model.spec.frames_per_step > 1:
            raise BadInput(f"{run}: is of a video tokenizer; give models of an image tokenizer's")
    refuse_trained(models, evidence, args.split, args.allow_train, SWITCH)
    prompt = min(model.network.config.context_steps for model in models) // 2
    length = prompt + round(max(args.seconds) * store.spec.fps)
    windows = TokenWindows(store.drives(args.split), length)
    ids = np.linspace(0, len(windows) - 1, 2 * args.num_clips).astype(int)
    clips, others = (collate([windows[int(i)] for i in part]) for part in (ids[::2], ids[1::2]))
    real = distances(clips.tokens[:, prompt:], others.tokens[:, prompt:], store.spec, args.seconds)
    judge = PixelJudge(load_lpips("alex"))
    rows = [Drift("other real clips", real, [], [])]
    for model, run in tqdm(zip(models, args.runs, strict=True), total=len(models), unit="run"):
        rows.append(drift(model, run.name, clips, prompt, args.seconds, tokenizer, judge))
    return rows


def markdown(rows: Sequence[Drift], seconds: Sequence[int]) -> str:
    """One column per measure and second."""
    at = [f"{s} s" for s in seconds]
    head = ["run", *(f"{name}, {s}" for name in ("histogram", "LPIPS", "PSNR") for s in at)]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        cells = [f"{v:.3f}" for v in row.histogram]
        cells += [f"{v:.3f}" for v in row.lpips] or [""] * len(seconds)
        cells += [f"{v:.1f}" for v in row.psnr] or [""] * len(seconds)
        lines.append([row.name, *cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m worldmodel.evaluation.drift")
    parser.add_argument("runs", nargs="+", type=Path, help="run or checkpoint folders")
    parser.add_argument("--root", help="other drives or tokens than the first was trained on")
    parser.add_argument("--split", default="test")
    parser.add_argument(SWITCH, action="store_true", help="take clips they were trained on too")
    parser.add_argument("--num-clips", type=int, default=32)
    parser.add_argument("--seconds", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--write", nargs="?", type=Path, const=RESULTS, help="append to a page")
    args = parser.parse_args()
    with bad_input_fails():
        if args.num_clips < 1 or min(args.seconds) < 1:
            raise BadInput(f"--num-clips {args.num_clips} --seconds {args.seconds}: give 1 or more")
        rows = measure(args)
    text = f"{heading()}\n{markdown(rows, args.seconds)}\n"
    print("\n" + text)
    if args.write:
        append(text, args.write)


if __name__ == "__main__":
    main()
