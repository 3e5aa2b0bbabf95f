"""Decoding in raster order under guidance: every future is read with and without its conditions."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from training.errors import BadInput
from worldmodel.decoding.base import FrameDecoder
from worldmodel.decoding.guidance import Guidance, guide
from worldmodel.decoding.raster import Decoder
from worldmodel.decoding.sampling import sample
from worldmodel.dynamics.text import TextContext


class GuidedDecoder(FrameDecoder):
    """A raster decoder whose rows come in pairs: all with their conditions, then all without.

    One token is drawn for both rows of a pair, so a guided future costs two rows.

    Raises:
        BadInput: the model does not read the condition that is to be made stronger.
    """

    def __init__(self, pairs: Decoder, guidance: Guidance) -> None:
        layout = pairs.layout.config
        known = {"actions": layout.actions != "none", "text": layout.text_tokens > 0}
        known["both"] = any(known.values())
        if not known[guidance.condition]:
            raise BadInput(
                f"guidance.condition={guidance.condition}: this model does not read it; "
                f"it reads: {', '.join(k for k, v in known.items() if v) or 'none'}"
            )
        self.pairs, self.guidance = pairs, guidance
        self.weakens = {c: guidance.condition in (c, "both") for c in ("actions", "text")}

    @torch.inference_mode()
    def start(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        num_futures: int = 1,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> None:
        """Read the prompt once per half; `drop_actions` holds for both.

        Raises:
            BadInput: as `Decoder.start`, or a negative caption without an encoded one.
        """
        if self.guidance.negative and (captions is None or captions.against < 0):
            raise BadInput(
                f"guidance.negative={self.guidance.negative!r} needs its embedding; encode it "
                "with the captions (worldmodel.text.embed)"
            )
        drop = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
        drop = drop if drop_actions is None else drop_actions
        drop = torch.cat([drop, drop | self.weakens["actions"]])
        twice = None if actions is None else torch.cat([actions, actions])
        said = None if captions is None else captions.paired(self.weakens["text"])
        self.pairs.start(torch.cat([tokens, tokens]), twice, num_futures, drop, said)
        self.num_imagined = 0

    @torch.inference_mode()
    def next_frame(
        self, action: Float[Tensor, "row action"] | None = None
    ) -> Int[Tensor, "row height width"]:
        """Sample the frame that follows, given the action in force before it."""
        pairs = self.pairs
        if action is None and pairs.layout.config.actions != "none":
            raise BadInput("guidance needs every action given; decode imagined ones without it")
        rows, space = len(pairs.tokens) // 2, pairs.layout.tokens_per_step
        uniform = torch.rand(space, rows, generator=pairs.generator).to(pairs.tokens.device)
        scales = list(self.guidance.scales(self.num_imagined, space))

        def choose(logits: Tensor, cell: slice | Tensor) -> Tensor:
            assert isinstance(cell, slice)
            conditioned, other = logits[:, 0].chunk(2)
            guided = guide(conditioned, other, scales[cell.start])
            token = sample(guided, pairs.sampling, uniform[cell.start])
            return torch.cat([token, token])[:, None]

        frame = pairs.extend(choose, None if action is None else torch.cat([action, action]))
        self.num_imagined += 1
        return frame[:rows]
