"""Kinds of world models side by side.

    python -m worldmodel.evaluation.kinds_table RUN [RUN ...] [--out FILE.json]

One row per checkpoint, all on the windows of one token store: cross entropy and accuracy (fully
teacher-forced, each kind by its own likelihood), frames per second of its own decoder, size, and
the cost of wrong actions. It prints markdown and writes JSON.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

from drives.splits.base import CHOICES
from training.cli import bad_input_fails
from training.disk.places import writable_file
from training.disk.plain_json import to_json
from training.errors import BadInput
from training.loading.loader import fixed_loader
from training.machine import compute_device
from training.pages.text_table import markdown_table
from training.ranges import at_least, one_of
from training.watch.clock import now
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import open_decoder
from worldmodel.dynamics.kinds import describe
from worldmodel.evaluation.action_use import VARIANTS, action_use
from worldmodel.evaluation.evidence import evidence_of
from worldmodel.evaluation.provenance.trained_clips import SWITCH, refuse_trained
from worldmodel.evaluation.scores import teacher_forced
from worldmodel.load import WorldModel, load_world_model
from worldmodel.windows import TokenClip, TokenWindows, collate


@dataclass(frozen=True)
class KindRow:
    """One row of the table.

    Attributes:
        step: training steps of the checkpoint; None if unknown.
        frames_per_s: of one future, by the kind's own decoder; the prompt is not counted.
        action_use: change of bits per token by variant; empty where no actions are read.
    """

    run: str
    kind: str
    step: int | None
    bits_per_token: float
    accuracy: float
    frames_per_s: float
    parameters: int
    action_use: dict[str, float]


def measure(
    model: WorldModel, name: str, clips: Sequence[TokenClip], num_frames: int, device: str
) -> KindRow:
    """Score one model on clips of one length, and time its decoder.

    Raises:
        BadInput: the clips are longer than the model's context.
    """
    network, texts = model.network.to(device), model.texts()
    scores = teacher_forced(network, clips, device, texts, name)
    return KindRow(
        run=name,
        kind=describe(network.config)["name"],
        step=model.manifest.get("step"),
        bits_per_token=scores["bits_per_token"],
        accuracy=scores["accuracy"],
        frames_per_s=frames_per_second(model, clips[0], num_frames, device),
        parameters=network.num_parameters(),
        action_use=action_use(network, clips, device, texts),
    )


def frames_per_second(model: WorldModel, clip: TokenClip, num_frames: int, device: str) -> float:
    """Frames per second of the kind's own decoder: one future after half a clip.

    The first frame is not counted, because the device warms up.
    """
    network, prompt = model.network, max(1, clip.tokens.shape[1] // 2)
    tokens, actions = clip.tokens[:1, :prompt].to(device), clip.actions[:1].to(device)
    given = actions[:, :prompt] if network.conditioned else None
    decoder = open_decoder(network, Sampling())
    decoder.start(tokens, given)
    action = given[:, -1] if given is not None else None
    decoder.next_frame(action)
    began = now(device)
    for _ in range(num_frames):
        decoder.next_frame(action)
    return num_frames / (now(device) - began)


def markdown(rows: Iterable[KindRow]) -> str:
    """The table for people."""
    head = ["run", "kind", "steps", "bits per token", "accuracy", "frames/s", "parameters"]
    head += [f"{name} actions" for name in VARIANTS]
    lines = []
    for row in rows:
        use = [f"{row.action_use[v]:+.3f}" if v in row.action_use else "-" for v in VARIANTS]
        score = [f"{row.bits_per_token:.3f}", f"{row.accuracy:.1%}", f"{row.frames_per_s:.1f}"]
        steps = "-" if row.step is None else str(row.step)
        lines.append([row.run, row.kind, steps, *score, f"{row.parameters / 1e6:.2f} M", *use])
    return markdown_table(head, lines)


def table(asked: argparse.Namespace) -> list[KindRow]:
    """Measure every model on the store of the first.

    Raises:
        BadInput: a run twice, a run of other tokens or actions or trained on these drives, or no
            data.
    """
    if len(set(asked.runs)) < len(asked.runs):
        raise BadInput(f"{' '.join(map(str, asked.runs))}: names a run twice; leave one out")
    models = [load_world_model(run) for run in asked.runs]
    evidence = evidence_of(models[0], {"root": asked.root}, asked.tokenizer)
    store = evidence.store
    for model in models:
        model.check_store(store, evidence.tokenizer)
    refuse_trained(models, evidence, asked.split, asked.allow_train, SWITCH)
    length = min(model.network.config.context_steps for model in models)
    windows = TokenWindows(store.drives(asked.split), length)
    clips = list(fixed_loader(windows, asked.num_windows, asked.batch_size, collate))
    device = compute_device(None)
    return [
        measure(model, str(run), clips, asked.num_frames, device)
        for run, model in zip(asked.runs, models, strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m worldmodel.evaluation.kinds_table", description="World models side by side."
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run or checkpoint folders")
    parser.add_argument("--root", help="drives or tokens, if not what the first was trained on")
    parser.add_argument("--tokenizer", help="of its tokens, where that is not known")
    parser.add_argument("--split", default="test")
    parser.add_argument(SWITCH, action="store_true", help="take clips they were trained on too")
    parser.add_argument("--num-windows", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--num-frames", type=int, default=20, help="decoded for frames/s")
    parser.add_argument("--out", type=Path, help="write the rows there as JSON")
    asked = parser.parse_args(arguments)
    with bad_input_fails():
        for name in ("num_windows", "batch_size", "num_frames"):
            at_least(1, **{f"--{name.replace('_', '-')}": getattr(asked, name)})
        one_of(CHOICES, **{"--split": asked.split})
        if asked.out is not None:
            writable_file("--out", asked.out)
        with redirect_stdout(sys.stderr):  # notes: the table alone can be piped
            rows = table(asked)
    print(markdown(rows))
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(to_json([asdict(row) for row in rows]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
