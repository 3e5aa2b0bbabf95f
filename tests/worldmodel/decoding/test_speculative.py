"""Speculative decoding decodes what raster decoding decodes, whatever the guesses."""

import itertools

import pytest
import torch
from tiny_gpt import LAYOUTS, SPEC, make_clip, make_model
from torch import Tensor

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.decoding import Sampling
from worldmodel.decoding.base import FrameDecoder
from worldmodel.decoding.drafts import Draft, FrameDraft, Jacobi, TokenDraft
from worldmodel.decoding.raster import Decoder
from worldmodel.decoding.rollout import open_decoder, rollout
from worldmodel.decoding.speculative import SpeculativeDecoder
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.model import GPT, GPTConfig

DRAFTS = ["previous", "jacobi", "model"]


def draft_options(draft: str, layout: str = "continuous", context: int = 3) -> dict[str, object]:
    """The draft model sees a shorter context and looks back at nothing, so it errs."""
    if draft != "model":
        return {"draft": draft}
    return {"draft": draft, "draft_model": make_model(layout, context=context, look_back=0)}


def futures(model: GPT, draft: str, sampling: Sampling, num_draft: int, **options) -> Tensor:
    """Past the end of the context; two futures for each of two prompts."""
    tokens, actions = make_clip(3)
    options |= {"method": "speculative", "num_draft": num_draft}
    options |= draft_options(draft, model.config.layout.actions)
    return rollout(model, tokens, actions, 4, sampling, 2, **options)


@pytest.mark.parametrize(
    ("layout", "draft"),
    [*((layout, "model") for layout in LAYOUTS), *(("binned", draft) for draft in DRAFTS[:-1])],
)
def test_sampled_futures_equal_raster_token_by_token(layout: str, draft: str) -> None:
    model, sampling = make_model(layout), Sampling(top_p=0.9, seed=3)
    expected = rollout(model, *make_clip(3), 4, sampling, 2)
    assert torch.equal(futures(model, draft, sampling, 4), expected)


@pytest.mark.parametrize(("draft", "num_draft"), [("previous", 3), ("jacobi", 1), ("jacobi", 100)])
@pytest.mark.parametrize("look_back", [0, 3])
def test_greedy_futures_equal_raster(draft: str, num_draft: int, look_back: int) -> None:
    model, greedy = make_model(look_back=look_back), Sampling(greedy=True)
    expected = rollout(model, *make_clip(3), 4, greedy, 2)
    assert torch.equal(futures(model, draft, greedy, num_draft), expected)


@pytest.mark.parametrize("draft", ["jacobi", "model"])
@pytest.mark.parametrize(
    ("positions", "window", "slide"),
    [("rope", "roll", 1), ("rope", "slide", 2), ("learned", "slide", 1)],
)
def test_every_window(draft: str, positions: str, window: str, slide: int) -> None:
    model, sampling = make_model(positions=positions), Sampling(seed=1)
    options = {"window": window, "slide_steps": slide}
    expected = rollout(model, *make_clip(3), 4, sampling, 2, **options)
    assert torch.equal(futures(model, draft, sampling, 4, **options), expected)


def tiny_model(seed: int) -> GPT:
    spec = TokenSpec((1, 1, 3), 3, 10.0, 1, (8, 24), "test")
    config = GPTConfig(
        dim=12, num_layers=1, num_heads=2, context_steps=2, look_back=0, tie_embeddings=False
    )
    torch.manual_seed(seed)
    model = GPT(config, spec, 0).eval()
    for parameter in model.parameters():
        parameter.data += 0.4 * torch.randn_like(parameter) * (parameter.ndim > 1)
    return model


@torch.no_grad()
def all_frames(model: GPT, prompt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Every possible next frame, and the interval of numbers that draws each of its tokens."""
    frames = torch.tensor(list(itertools.product(range(3), repeat=3)))
    clips = torch.cat([prompt.expand(27, 1, 1, 3), frames.view(27, 1, 1, 3)], dim=1)
    probs = model(clips)[:, 1].softmax(-1)
    high = probs.cumsum(-1).gather(-1, frames[..., None])[..., 0]
    return frames, high - probs.gather(-1, frames[..., None])[..., 0], high


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("num_draft", [1, 3])
def test_the_distribution_is_the_model_s_by_enumeration(draft: str, num_draft: int) -> None:
    """The boxes of numbers that draw each of the 27 frames fill the cube; each box is probed."""
    model, prompt = tiny_model(0), torch.tensor([[[[2, 0, 1]]]])
    frames, low, high = all_frames(model, prompt)
    torch.testing.assert_close((high - low).prod(1).sum(), torch.tensor(1.0))
    assert (high - low).min() > 1e-3  # else rounding could tell two boxes apart wrongly
    drafts = {"previous": Draft(), "jacobi": Jacobi(), "model": TokenDraft(Decoder(tiny_model(1)))}
    decoder = SpeculativeDecoder(model, draft=drafts[draft], num_draft=num_draft)
    shares = torch.tensor(list(itertools.product((0.01, 0.5, 0.99), repeat=3)))
    numbers = low[:, None] + (high - low)[:, None] * shares

    def decode(numbers: Tensor) -> Tensor:
        decoder.start(prompt, num_futures=len(numbers))
        decoder.begin()
        decoder._uniform = numbers
        return decoder.decode(decoder.draw)

    assert torch.equal(decode(numbers.flatten(0, 1)), frames.repeat_interleave(27, dim=0))
    for row in (0, 13, 26):  # alone: not slowed down by others
        assert torch.equal(decode(numbers[row, 13:14]), frames[row : row + 1])


@pytest.mark.parametrize("draft", DRAFTS)
def test_scores_of_real_frames_are_exact(draft: str) -> None:
    model = make_model()
    tokens, actions = make_clip(4)
    expected = model.score(tokens, actions).nats
    decoder = open_decoder(model, method="speculative", num_draft=4, **draft_options(draft))
    decoder.start(tokens[:, :2], actions)
    for step in (2, 3):
        nats = decoder.score_next(tokens[:, step], actions[:, step - 1])
        torch.testing.assert_close(nats, expected[:, step], atol=1e-4, rtol=1e-4)


def test_a_draft_model_that_is_the_model_itself_is_always_right() -> None:
    model = make_model()
    tokens, actions = make_clip(3)
    decoder = SpeculativeDecoder(model, draft=TokenDraft(Decoder(model)), num_draft=3)
    decoder.start(tokens, actions)
    for step in range(2, 6):  # past the end of the context
        decoder.next_frame(actions[:, step])
    assert decoder.acceptance == 1
    assert decoder.num_passes == 4 * 2  # 3 guesses and a token, then the other 2 of 6 cells


def test_a_draft_model_goes_on_from_what_is_settled_not_from_its_wrong_guess() -> None:
    model, (tokens, actions) = make_model(), make_clip(2)
    draft, reader = TokenDraft(Decoder(model)), Decoder(model)
    draft.start(tokens, actions[:, :1], None)
    frame = draft.open(tokens, actions[:, :2])
    settled = torch.zeros_like(frame, dtype=torch.bool)
    draft.guess(frame, settled, 0, 3, lambda logits, cells: logits.argmax(-1))
    frame[:, 1] = (frame[:, 1] + 1) % 11
    draft.guess(frame, settled, 2, 3, lambda logits, cells: logits.argmax(-1))
    reader.start(tokens, actions)
    reader.begin(actions[:, 1])
    reader.feed(reader.prefix)
    expected = reader.feed(reader.embed_cells(frame[:, :2], slice(0, 2)))[:, -1:]
    torch.testing.assert_close(draft.next_logits, expected, atol=1e-4, rtol=1e-4)


class Watch(Jacobi):
    """Notes what is settled before every pass."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor, int]] = []

    def guess(self, frame: Tensor, settled: Tensor, done: int, *_: object) -> None:
        self.seen.append((frame.clone(), settled.clone(), done))


def test_faster_rows_keep_what_is_settled() -> None:
    model, watch = make_model(), Watch()
    tokens, actions = make_clip(3, batch=4)
    decoder = SpeculativeDecoder(model, draft=watch)
    decoder.start(tokens, actions)
    final = decoder.next_frame(actions[:, 2]).flatten(1)
    for frame, settled, done in watch.seen:
        assert settled[:, :done].all()
        assert torch.equal(frame[settled], final[settled])
    assert any(settled[:, done:].any() for _, settled, done in watch.seen)
    draft = TokenDraft(Decoder(model))
    draft.start(tokens, actions, None)
    frame = draft.open(tokens, actions[:, :3])
    known = torch.zeros_like(frame, dtype=torch.bool)
    known[0] = True
    before = frame.clone()
    draft.guess(frame, known, 0, 6, lambda logits, cells: logits.argmax(-1))
    assert torch.equal(frame[0], before[0])
    assert not torch.equal(frame[1:], before[1:])


def test_acceptance_counts_guesses_that_were_kept() -> None:
    model = make_model()
    tokens, actions = make_clip(3, batch=1)
    decoder = SpeculativeDecoder(model, draft=Draft(), num_draft=1)
    decoder.start(tokens, actions)
    frame = decoder.next_frame(actions[:, 2]).flatten().tolist()
    kept, cell, guesses = 0, 0, 0
    while cell < 6:
        hit = frame[cell] == tokens[0, -1].flatten()[cell]
        guesses, kept, cell = guesses + 1, kept + int(hit), cell + 1 + int(hit)
    assert (decoder.num_guesses, decoder.num_accepted) == (guesses, kept)
    assert decoder.acceptance == kept / guesses
    decoder.start(tokens, actions)
    assert decoder.num_passes == 0


class Once(FrameDecoder):
    """A decoder of another kind: only the common interface."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.prompts = decoder, []

    def start(self, tokens, actions=None, num_futures=1, drop_actions=None):  # type: ignore
        self.prompts.append(tokens.shape[1])
        self.decoder.start(tokens, actions, num_futures, drop_actions)

    def next_frame(self, action=None):  # type: ignore
        return self.decoder.next_frame(action)


def test_a_model_of_another_kind_guesses_whole_frames() -> None:
    model, greedy = make_model(), Sampling(greedy=True)
    tokens, actions = make_clip(2)
    guide = Once(Decoder(model, greedy))
    decoder = SpeculativeDecoder(model, greedy, draft=FrameDraft(guide, 3))
    decoder.start(tokens, actions)
    for step in range(1, 4):
        decoder.next_frame(actions[:, step])
    assert decoder.acceptance == 1  # the guide is the model itself
    assert guide.prompts == [2, 3, 3]


def test_jacobi_learns_from_its_passes() -> None:
    """More guesses are right than the previous frame's, which is where it begins."""
    model = make_model()
    tokens, actions = make_clip(3, batch=1)
    shares = []
    for draft in ("previous", "jacobi"):
        decoder = open_decoder(model, Sampling(), "speculative", draft=draft, num_draft=6)
        assert isinstance(decoder, SpeculativeDecoder)
        decoder.start(tokens, actions)
        for step in range(2, 12):
            decoder.next_frame(actions[:, step])
        shares.append(decoder.acceptance)
    assert shares[1] > shares[0]


def test_refuses() -> None:
    model = make_model()
    with pytest.raises(BadInput, match="num_draft=0"):
        open_decoder(model, method="speculative", num_draft=0)
    with pytest.raises(BadInput, match="draft='guess': choose one of previous, jacobi, model"):
        open_decoder(model, method="speculative", draft="guess")
    with pytest.raises(BadInput, match="draft=model and draft_model=RUN"):
        open_decoder(model, method="speculative", draft="model")
    with pytest.raises(BadInput, match="draft=model and draft_model=RUN"):
        open_decoder(model, method="speculative", draft_model=model)
    with pytest.raises(BadInput, match="draft_model: was made for"):
        open_decoder(model, method="speculative", draft="model", draft_model=tiny_model(0))
    with pytest.raises(BadInput, match="draft_model: needs actions"):
        open_decoder(make_model("none"), method="speculative", draft="model", draft_model=model)


@pytest.mark.parametrize("method", ["speculative", "diagonal"])
def test_shared_keys_and_no_prefix(method: str) -> None:
    """Groups of queries share keys, and a frame's first token follows the frame before at once."""
    torch.manual_seed(0)
    layout = LayoutConfig(separator=False)
    config = GPTConfig(
        24, 2, 4, num_kv_heads=2, context_steps=4, look_back=0, layout=layout, tie_embeddings=False
    )
    model = GPT(config, SPEC, 0).eval()
    for parameter in model.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter) * (parameter.ndim > 1)
    prompt, sampling = make_clip(3)[0], Sampling(seed=4)
    options = {"method": method} | ({"lag": 3} if method == "diagonal" else {"num_draft": 4})
    expected = rollout(model, prompt, None, 4, sampling, 2)
    assert torch.equal(rollout(model, prompt, None, 4, sampling, 2, **options), expected)
