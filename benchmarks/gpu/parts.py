"""The parts of the benchmark: which module measures each, and how long it may take."""

from typing import NamedTuple


class Part(NamedTuple):
    """Rows that one process measures.

    Attributes:
        module: offers `rows(part, toy) -> Iterator[Row | str]`; a text is a note on the row before.
        limit_s: seconds after which the process is ended.
    """

    module: str
    limit_s: float


# In the order in which they run.
PARTS = {
    "limits": Part("limits", 40),
    "mfu_124M": Part("training_step", 75),
    "decoding": Part("decoding", 45),
    "decoding_compiled": Part("decoding", 60),
    "decoding_sums": Part("decoding", 60),
    "mfu_1B": Part("training_step", 90),
    "mfu_310M": Part("training_step", 75),
    "peers": Part("peers", 100),
    "mfu_700M": Part("training_step", 80),
    "tokenizers": Part("tokenizers", 90),
    "kinds": Part("kinds", 45),
    "memory": Part("memory", 60),
    "mfu_124M_wide_heads": Part("training_step", 60),
    "mfu_124M_bf16_stream": Part("training_step", 60),
    "mfu_124M_cudnn": Part("training_step", 60),
    "data_path": Part("data_path", 45),
}
