"""EMA weights in the layout of Stability's LitEma: 1X, TencentARC."""

from training.errors import BadInput
from training.foreign.weights import Tensors
from training.ranges import one_of

AVERAGED, LOSS, RAW = "model_ema.", "loss.", "raw "
LEFT_OUT = (LOSS, AVERAGED, RAW)  # unused tensors in the result of `chosen`
NOT_WEIGHTS = (f"{AVERAGED}decay", f"{AVERAGED}num_updates")


def chosen(tensors: Tensors, weights: str, where: str) -> Tensors:
    """The tensors of a checkpoint, with EMA weights in place of the raw weights on request.

    Args:
        weights: "raw" or "ema". With "ema" the raw weights are renamed "raw ..."; the loss keeps
            its own.

    Raises:
        BadInput: another word, no averages, or an average without a weight.
    """
    one_of(("raw", "ema"), weights=weights)
    if weights == "raw":
        return tensors
    means = {k: v for k, v in tensors.items() if k.startswith(AVERAGED) and k not in NOT_WEIGHTS}
    if not means:
        raise BadInput(f"{where}: holds no averaged weights ({AVERAGED}*); use weights=raw")
    plain = {k: v for k, v in tensors.items() if not k.startswith((AVERAGED, LOSS))}
    # The name of an average is that of its weight without dots; also for the loss.
    names = {f"{AVERAGED}{key.replace('.', '')}": key for key in plain}
    losses = tuple(key for key in means if key.startswith(f"{AVERAGED}{LOSS.rstrip('.')}"))
    unknown = sorted(set(means) - set(names) - set(losses))
    if unknown:
        raise BadInput(f"{where}: holds averages of no weight: {', '.join(unknown)}")
    if len(names) < len(plain):
        raise BadInput(f"{where}: two weights share one name without dots; use weights=raw")
    kept = {key: v for key, v in tensors.items() if key not in plain and key not in names}
    return {
        **kept,
        **{f"{RAW}{key}": tensor for key, tensor in plain.items()},
        **{names[key]: tensor for key, tensor in means.items() if key in names},
    }
