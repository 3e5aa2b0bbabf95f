"""Dreams: those of `rollout`, taken back and branched, of every kind of world model."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_world import NAMES, SPEC, TEXT, TOLD, TinyVideo, driven, make_world_model

from training.errors import BadInput
from worldmodel.decoding import Sampling
from worldmodel.decoding.config import Guidance
from worldmodel.decoding.rollout import rollout
from worldmodel.env.dream import Dream
from worldmodel.env.starts import Start

KINDS = ["gpt", "whole", "whole_inner", "keyframes", "masked"]
HORIZON = 7


def make_starts(num: int = 2, length: int = 4) -> list[Start]:
    rng = np.random.default_rng(1)
    return [
        Start(
            f"drive-{number}",
            0,
            torch.from_numpy(rng.integers(0, SPEC.vocab_size, (length, 2, 3))),
            torch.from_numpy(driven(rng, 20)),
            np.zeros((0, 2, 3), np.int64),
            "",
            np.zeros((0, 2, 3), np.int64),
        )
        for number in range(num)
    ]


def drive(dream: Dream, actions: torch.Tensor, first: int, num: int) -> torch.Tensor:
    """Steps under the rows of actions that lead to them."""
    rows = [actions[:, first + step] for step in range(num)]
    return torch.stack([dream.step(row).tokens for row in rows], 1)


@pytest.mark.parametrize(
    ("kind", "length"), [*((kind, 4) for kind in KINDS), ("gpt", 2), ("speculative", 2)]
)
def test_a_dream_is_a_rollout_and_can_be_taken_back(kind: str, length: int) -> None:
    decoding = {"method": kind, "num_draft": 3} if kind == "speculative" else {}
    model = make_world_model("gpt" if decoding else kind)
    starts = make_starts(length=length)
    actions = torch.stack([start.actions for start in starts])
    prompt = torch.stack([start.tokens for start in starts])
    for seed in (3, 4):
        expected = rollout(model.network, prompt, actions, HORIZON, Sampling(seed=seed))[:, 0]
        dream = Dream(model, sampling=Sampling(), **decoding)
        dream.start(starts, seed)
        assert torch.equal(drive(dream, actions, length - 1, HORIZON), expected)
    for back in (1, 3, HORIZON):
        dream.rewind(back)
        first = HORIZON - back
        again = drive(dream, actions, length - 1 + first, back)
        assert torch.equal(again, expected[:, first:])
    assert torch.equal(torch.stack(dream.grids[length:], 1), expected)
    dream.rewind(4, seed=9)
    assert not torch.equal(drive(dream, actions, length + 2, 4), expected[:, 3:])


@pytest.mark.parametrize("kind", KINDS)
def test_entropy_is_that_of_the_distribution_of_each_token(kind: str) -> None:
    model, (start,) = make_world_model(kind), make_starts(1)
    dream = Dream(model, sampling=Sampling(temperature=0.3, top_k=2))
    dream.start([start])
    steps = [dream.step(start.recorded[None, time]) for time in range(2)]
    assert all(step.entropy.shape == (1, 2, 3) for step in steps)
    assert all(-1e-6 < float(step.entropy.min()) < float(step.entropy.max()) for step in steps)
    assert all(float(step.entropy.max()) < np.log(SPEC.vocab_size) for step in steps)
    assert all(torch.isfinite(step.entropy).all() for step in steps)
    if kind == "whole":  # no token depends on another of its frame
        tokens = torch.cat([start.tokens, steps[0].tokens])[None, 1:]
        logits = model.network(tokens, start.actions[None, 1:4])[0, -1]
        expected = torch.distributions.Categorical(logits=logits).entropy()
        torch.testing.assert_close(steps[0].entropy.flatten(), expected)


def test_branches_begin_alike_and_part() -> None:
    model, starts = make_world_model(), make_starts(1)
    dream = Dream(model)
    dream.start(starts)
    actions = starts[0].actions[None]
    drive(dream, actions, 3, 3)
    before = torch.stack(dream.grids, 1)
    dream.branch(3)
    assert dream.num_dreams == 3
    assert torch.equal(torch.stack(dream.grids, 1), before.expand(3, -1, -1, -1))
    drive(dream, actions.expand(3, -1, -1), 6, 3)
    parted = torch.stack(dream.grids, 1)
    assert not torch.equal(parted[0], parted[1])
    dream.keep([2])
    assert torch.equal(torch.stack(dream.grids, 1), parted[2:])
    dream.rewind(4)
    assert torch.equal(torch.stack(dream.grids, 1), before[:, :-1])


def test_some_begin_anew_while_others_go_on() -> None:
    """As long as the context, a prompt hides from no other dream what it reads."""
    model, starts = make_world_model("whole"), make_starts(3)
    actions = torch.stack([start.actions for start in starts[:2]])
    dream = Dream(model, slide_steps=1)
    dream.start(starts[:2])
    drive(dream, actions, 3, 2)
    dream.restart([1], starts[2:])
    assert torch.equal(torch.stack(dream.grids, 1)[1], starts[2].tokens)
    alone = Dream(model, slide_steps=1, sampling=Sampling(greedy=True))
    both = Dream(model, slide_steps=1, sampling=Sampling(greedy=True))
    for session in (alone, both):
        session.start(starts[:2])
        drive(session, actions, 3, 2)
    both.restart([1], starts[2:])
    assert torch.equal(
        drive(both, actions, 5, 4)[0],
        drive(alone, actions, 5, 4)[0],
    )


def test_a_model_without_actions_dreams_a_video() -> None:
    model, starts = make_world_model("gpt", actions="none"), make_starts()
    dream = Dream(model)
    dream.start(starts)
    steps = [dream.step().tokens, dream.step(torch.zeros(2, 3)).tokens]
    prompt = torch.stack([start.tokens for start in starts])
    assert torch.equal(torch.stack(steps, 1), rollout(model.network, prompt, None, 2)[:, 0])
    assert dream.steps[0].actions is None


def test_a_model_that_imagines_actions_needs_none() -> None:
    model = make_world_model("gpt", actions="binned", num_bins=8, predict_actions=1.0)
    dream = Dream(model)
    dream.start(make_starts())
    imagined = dream.step().actions
    assert imagined is not None
    assert imagined.shape == (2, len(NAMES))
    assert not torch.equal(imagined[0], imagined[1])


def test_guidance_that_decays_goes_on_where_it_was() -> None:
    sampling = Sampling(guidance=Guidance(scale=3, num_full_frames=1, num_decay_frames=3))
    model, starts = make_world_model(), make_starts()
    actions = torch.stack([start.actions for start in starts])
    dream = Dream(model, sampling=sampling)
    dream.start(starts)
    expected = drive(dream, actions, 3, 5)
    dream.rewind(2)
    assert torch.equal(drive(dream, actions, 6, 2), expected[:, 3:])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(2, 2), r"actions are \[2, 2\]; give \[2, 3\]"),
        (torch.full((2, 3), torch.nan), "actions hold NaN"),
        (None, "needs actions"),
    ],
)
def test_refuses_actions_that_do_not_fit(given: torch.Tensor | None, message: str) -> None:
    dream = Dream(make_world_model())
    dream.start(make_starts())
    with pytest.raises(BadInput, match=message):
        dream.step(given)


@pytest.mark.parametrize("kind", ["gpt", "whole"])
def test_a_refused_step_leaves_nothing_behind(kind: str) -> None:
    model, starts = make_world_model(kind), make_starts()
    actions, found = torch.stack([start.actions for start in starts]), []
    for refused in (False, True):
        dream = Dream(model)
        dream.start(starts)
        drive(dream, actions, 3, 2)
        if refused:
            with pytest.raises(BadInput, match="needs actions"):
                dream.step()
        dream.rewind(1)
        found.append(drive(dream, actions, 4, 3))
    assert torch.equal(found[0], found[1])


def test_a_step_keeps_no_row_but_its_own() -> None:
    dream, starts = Dream(make_world_model()), make_starts()
    dream.start(starts)
    drive(dream, torch.stack([start.actions for start in starts]), 3, 3)
    kept = dream.steps[-1].actions
    assert kept is not None
    assert kept.untyped_storage().nbytes() == kept.nbytes


def test_a_negative_prompt_needs_no_caption() -> None:
    """A clip without caption is turned away from the negative prompt as well."""
    bare, starts = make_world_model(**TOLD), make_starts()
    model = replace(bare, manifest={**bare.manifest, "text": TEXT})
    actions, found = torch.stack([start.actions for start in starts]), []
    for negative in ("", "fog", "rain"):
        guidance = Guidance(scale=5, condition="text", negative=negative)
        dream = Dream(model, sampling=Sampling(guidance=guidance))
        dream.start(starts)
        found.append(drive(dream, actions, 3, 3))
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


@pytest.mark.parametrize("length", [1, 2])
def test_dreams_begin_at_the_first_step_of_a_drive_and_elsewhere(length: int) -> None:
    first, later = make_starts(length=length)
    later = replace(later, step=3, lead=np.zeros((3, 2, 3), np.int64))
    dream = Dream(make_world_model(), TinyVideo())
    dream.start([first, later])
    for _ in range(2):
        frames = dream.frames()
        assert frames.shape == (2, 2, 3, 16, 24)
        grey = (dream.grids[-1][:, 0, 0] / 5.5 * 127.5).round()
        assert (frames.amax((1, 2, 3, 4)) - grey).abs().max() <= 1
        assert (frames.amin((1, 2, 3, 4)) - grey).abs().max() <= 1
        dream.step(torch.zeros(2, 3))


def test_a_video_goes_on_with_all_its_past_where_another_dream_begins_anew() -> None:
    """The decoder of a video reads every grid, and those that left the session are among them."""

    class Recalling(TinyVideo):
        """A grid's frames are the sum of the first tokens of all grids so far."""

        def drive_decoder(self) -> Callable[[torch.Tensor], torch.Tensor]:
            read = [0.0]

            def stream(grids: torch.Tensor) -> torch.Tensor:
                greys = []
                for grid in grids:
                    read[0] += grid[0, 0].item()
                    greys.append(read[0] / 500 - 1)
                return torch.tensor(greys)[:, None, None, None].expand(-1, 3, 16, 24)

            return stream

    starts, actions = make_starts(3), torch.zeros(3, 9, 3)
    starts = [replace(start, lead=np.full((2, 2, 3), 9)) for start in starts]
    found = []
    for restarts in (False, True):
        dream = Dream(
            make_world_model(), Recalling(), sampling=Sampling(greedy=True), slide_steps=1
        )
        dream.start(starts[:2])
        drive(dream, actions[:2], 3, 3)
        if restarts:
            dream.restart([1], starts[2:])
        found.append(dream.frames()[:, -1, 0, 0, 0].tolist())
        begun = (18 + starts[2].tokens[:, 0, 0].sum()) / 500
    assert found[0][0] == found[1][0]
    assert abs(found[1][1] - 127.5 * begun) < 1


def test_refuses_what_it_cannot_do() -> None:
    dream = Dream(make_world_model())
    dream.start(make_starts())
    with pytest.raises(BadInput, match="rewind=1: nothing has been imagined yet"):
        dream.rewind(1)
    with pytest.raises(BadInput, match=r"keep=\[2\]: give a whole number from 0 to 1"):
        dream.keep([2])
    with pytest.raises(BadInput, match="tokenizer=FOLDER"):
        dream.frames()
    with pytest.raises(BadInput, match="reads no text"):
        dream.say("rain")
    with pytest.raises(BadInput, match="give at least one"):
        dream.start([])
