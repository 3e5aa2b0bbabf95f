"""Computes a network exactly: every operation that torch is asked for is judged here."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from training.errors import BadInput
from worldmodel.codec.exact import numbers
from worldmodel.codec.exact.attention import WIDE, Way, attention

# What only moves numbers, compares them, or rounds each result once.
EXACT = frozenset(
    """
    __and__ __or__ _to_copy _unsafe_view abs alias all amax amin any arange bitwise_and
    bitwise_not bitwise_or cat chunk clamp clamp_max clamp_min clone constant_pad_nd contiguous
    copy_ detach detach_ div div_ embedding empty empty_like eq expand expand_as fill_ flatten floor
    full full_like gather ge gt index index_select le lift_fresh logical_and logical_not
    logical_or lt masked_fill maximum minimum movedim mul mul_ ne neg new_empty new_full
    new_ones new_zeros numpy_T ones ones_like pad permute pixel_shuffle
    repeat repeat_interleave reshape round
    scatter select sign slice split split_with_sizes sqrt squeeze stack t to transpose tril triu
    type_as unbind unflatten unsqueeze upsample_nearest2d view where zero_ zeros zeros_like
    """.split()  # noqa: SIM905 (a list of words would be a page)
)
WHOLE = frozenset({"remainder", "floor_divide", "cumsum"})  # exact for integers
SCALED = frozenset({"add", "add_", "sub", "sub_", "rsub"})  # take a factor besides
MOST_ADDED = 4096


class ExactArithmetic(TorchDispatchMode):
    """Within, torch computes exactly (see `worldmodel.codec.exact.numbers`), or refuses.

    Args:
        network: in float32; its weights are rounded once.
        grain: of its layers.
        way: of its attention, where no mask is given.

    Raises:
        BadInput: an operation that is not known to be exact, or products that are lowered here.
    """

    def __init__(
        self, network: nn.Module, grain: numbers.Grain = numbers.WIDE, way: Way = WIDE
    ) -> None:
        super().__init__()
        way.check()
        self.grain, self.way = grain, way
        held = [*network.parameters(), *network.buffers()]
        self.owned = {value.untyped_storage().data_ptr() for value in held}
        self.weights: dict[Any, tuple[Tensor, Tensor]] = {}
        self.ways: dict[Any, Callable[..., Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        way = self.ways.get(func)
        if way is None:
            way = self.ways[func] = self._way(func)
        return way(*args, **(kwargs or {}))

    def _way(self, func: Any) -> Callable[..., Any]:
        """How an operation is computed."""
        name = func._schema.name.removeprefix("aten::")
        own = getattr(self, f"on_{name.lstrip('_')}", None)
        if own is not None:
            return own
        made_anew = getattr(self, f"on_{name.removesuffix('_')}", None)
        if made_anew is not None:
            return lambda x, *args, **kwargs: x.copy_(made_anew(x, *args, **kwargs))
        if name in EXACT:
            return func
        if name in SCALED:
            return _unscaled(func)
        if name in WHOLE:
            return _of_integers(func)
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            return lambda *args, **kwargs: self._decomposed(func, args, kwargs)
        raise BadInput(
            f"arithmetic=exact: {func} is not known to be the same on every machine; "
            "give --arithmetic float"
        )

    def _decomposed(self, func: Any, args: Any, kwargs: Any) -> Any:
        with self:
            return func.decompose(*args, **kwargs)

    def weight(self, value: Tensor, flat: bool = False) -> tuple[Tensor, Tensor]:
        """Rounded rows of a weight; those of the network once."""
        key = value.data_ptr(), value.shape, value.stride(), value.dtype
        known = self.weights.get(key)
        if known is None:
            rows = (value.flatten(1) if flat else value).contiguous()
            known = numbers.rounded(rows, self.grain.weights, self.grain.most_terms)
            if value.untyped_storage().data_ptr() in self.owned:
                self.weights[key] = known
        return known

    def on_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return numbers.products(x, self.weight(weight), bias, self.grain.inputs).to(x.dtype)

    def on_matmul(self, a: Tensor, b: Tensor) -> Tensor:
        return numbers.products(a, numbers.rounded(b.mT)).to(a.dtype)

    on_mm = on_bmm = on_matmul

    def on_conv2d(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = (1, 1),
        padding: Any = (0, 0),
        dilation: Any = (1, 1),
        groups: int = 1,
    ) -> Tensor:
        if groups != 1 or isinstance(padding, str):
            raise BadInput("arithmetic=exact: a convolution in groups; give --arithmetic float")
        size = (weight.shape[2], weight.shape[3])
        rows = self.weight(weight, flat=True)
        places = tuple(stride), tuple(padding), tuple(dilation)
        out = numbers.convolution(x, rows, bias, size, *places, self.grain.inputs)
        return out.to(x.dtype)

    def on_layer_norm(
        self,
        x: Tensor,
        shape: list[int],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        cudnn_enable: bool = True,
    ) -> Tensor:
        assert list(shape) == list(x.shape[-1:])
        return numbers.layer_norm(x, weight, bias, eps).to(x.dtype)

    def on_group_norm(
        self,
        x: Tensor,
        groups: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        cudnn_enabled: bool = True,
    ) -> Tensor:
        return numbers.group_norm(x, groups, weight, bias, eps).to(x.dtype)

    def on_rms_norm(
        self, x: Tensor, shape: list[int], weight: Tensor | None = None, eps: float | None = None
    ) -> Tensor:
        assert list(shape) == list(x.shape[-1:])
        small = torch.finfo(x.dtype).eps if eps is None else eps
        return numbers.rms_norm(x, weight, small).to(x.dtype)

    def on_softmax(self, x: Tensor, dim: int, dtype: Any = None) -> Tensor:
        out = numbers.softmax(x.movedim(dim, -1)).movedim(-1, dim)
        return out.to(dtype if isinstance(dtype, torch.dtype) else x.dtype)

    def on_log_softmax(self, x: Tensor, dim: int, dtype: Any = None) -> Tensor:
        out = numbers.log_softmax(x.movedim(dim, -1)).movedim(-1, dim)
        return out.to(dtype if isinstance(dtype, torch.dtype) else x.dtype)

    def on_gelu(self, x: Tensor, *, approximate: str = "none") -> Tensor:
        return numbers.gelu(x, approximate).to(x.dtype)

    def on_silu(self, x: Tensor) -> Tensor:
        return numbers.silu(x).to(x.dtype)

    def on_log1p(self, x: Tensor) -> Tensor:
        return numbers.log(x.double() + 1).to(x.dtype)

    def on_dropout(self, x: Tensor, p: float, train: bool) -> Tensor:
        assert not train
        return x

    def on_sum(
        self, x: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
    ) -> Tensor:
        """Integers in any order; few floats one after the other."""
        if not x.is_floating_point():
            return x.sum(dim, keepdim, dtype=dtype)
        axes = tuple(sorted(d % x.ndim for d in (range(x.ndim) if dim is None else dim)))
        for axis in axes:
            terms = x.unbind(axis)
            if len(terms) > MOST_ADDED:
                raise BadInput(f"arithmetic=exact: a sum of {len(terms)} floats")
            total = terms[0]
            for term in terms[1:]:
                total = total + term
            x = total.unsqueeze(axis)
        return x if keepdim else x.squeeze(axes)

    def on_mean(
        self, x: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
    ) -> Tensor:
        total = self.on_sum(x, dim, keepdim)
        return total / (x.numel() // total.numel())

    def on_scaled_dot_product_attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        assert dropout_p == 0
        if enable_gqa:
            group = query.shape[-3] // key.shape[-3]
            key, value = (part.repeat_interleave(group, -3) for part in (key, value))
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        way = self.way if mask is None else WIDE
        return attention(query, key, value, mask, is_causal, factor, way).to(query.dtype)


def _unscaled(func: Any) -> Callable[..., Any]:
    """A sum of two, without a factor: that would round twice or once, as the machine likes."""

    def call(*args: Any, alpha: Any = 1, **kwargs: Any) -> Any:
        if alpha != 1:
            raise BadInput(f"arithmetic=exact: {func} with alpha={alpha}; give --arithmetic float")
        return func(*args, **kwargs)

    return call


def _of_integers(func: Any) -> Callable[..., Any]:
    def call(x: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, Tensor) and x.is_floating_point():
            raise BadInput(f"arithmetic=exact: {func} of floats; give --arithmetic float")
        return func(x, *args, **kwargs)

    return call
