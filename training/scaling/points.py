"""Sizes of the runs of a ladder, and losses of the finished ones."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Size:
    """Size of a run.

    Attributes:
        parameters: N, without embeddings of tokens and positions.
        tokens: real tokens of all training windows; repeated windows count again.
        floors: lowest possible losses in nats per token, by name; only some data knows them.
    """

    parameters: int
    tokens: int
    floors: dict[str, float] = field(default_factory=dict)

    def x(self, axis: str) -> float:
        """N, or the compute C = 6 N x tokens in FLOP (Kaplan et al. 2020, section 2.1)."""
        compute = 6.0 * self.parameters * self.tokens
        return compute if axis == "compute" else float(self.parameters)


@dataclass(frozen=True)
class Point:
    """A finished run: its size, its loss, and the unix time of its first logged metrics."""

    rung: str
    run: str
    x: float
    parameters: int
    tokens: int
    loss: float
    began: float
