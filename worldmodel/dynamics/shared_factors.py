"""Tokens that share a factor share a part of their embedding.

The factors of an FSQ token are its digits: codes that differ in one digit decode to similar
patches. A table alone learns every token by itself. Here the row of a token is its own vector plus
one per digit, so what is learned of a token holds for its neighbours in the code, in a tied head
too.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils import parametrize

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.dynamics.factors import Factors


class PlusFactors(nn.Module):
    """Adds to each token's row of a table the vectors of its factors; other rows stay.

    As a parametrization of `weight`, every reader of the table sees the sums.
    """

    digits: Int[Tensor, "vocab factor"]

    def __init__(self, spec: TokenSpec, dim: int) -> None:
        super().__init__()
        self.tables = nn.ParameterList(torch.empty(size, dim) for size in spec.factors)
        tokens = torch.arange(spec.vocab_size)
        digits = Factors(spec.factors, spec.vocab_size).split(tokens)
        self.register_buffer("digits", digits, persistent=False)

    def forward(self, weight: Float[Tensor, "id dim"]) -> Float[Tensor, "id dim"]:
        columns = zip(self.tables, self.digits.unbind(-1), strict=True)
        shared = torch.stack([table[digit] for table, digit in columns]).sum(0)
        own, others = weight.split([len(shared), len(weight) - len(shared)])
        return torch.cat([own + shared, others])


def share_factors(embed: nn.Embedding, spec: TokenSpec, wanted: bool | None) -> None:
    """Make the rows of tokens share the vectors of their factors, where it is wanted.

    Args:
        wanted: None: where the tokens have factors.

    Raises:
        BadInput: it is wanted, and the tokens have none.
    """
    if not wanted and (wanted is False or len(spec.factors) < 2):
        return
    if len(spec.factors) < 2:
        raise BadInput(
            f"share_factors=true: these tokens have {len(spec.factors)} factors (FSQ and LFQ have "
            "one per channel); set it to false, or to null"
        )
    parametrize.register_parametrization(embed, "weight", PlusFactors(spec, embed.embedding_dim))


def fold_factors(network: nn.Module) -> None:
    """Write the sums into plain tables: the same rows, read without adding."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            # remove_parametrizations would take the property from copies as well: one class.
            if isinstance(child, nn.Embedding) and parametrize.is_parametrized(child, "weight"):
                setattr(parent, name, nn.Embedding.from_pretrained(child.weight.detach()))
