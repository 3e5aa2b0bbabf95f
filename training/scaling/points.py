"""How large the runs of a ladder are, and what the finished ones reached."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Size:
    """How large a run is.

    Attributes:
        parameters: N, without those of lookups and positions.
        tokens: real tokens of all windows that it is trained on, repeated ones again.
        floors: nats per token that no model goes below, by name, where the data knows them.
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
    """A finished run: its size, its loss, and when its first metrics were logged (unix time)."""

    rung: str
    run: str
    x: float
    parameters: int
    tokens: int
    loss: float
    began: float
