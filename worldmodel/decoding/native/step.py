"""Binds a GPT and its cache to the C function, and says which networks it computes."""

import ctypes
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from training.disk.libraries import NoLibrary
from worldmodel.decoding.native.build import SPLIT, library
from worldmodel.decoding.native.pages import in_large_pages
from worldmodel.decoding.quantized import Int8Cache, Int8Linear
from worldmodel.dynamics.cache import KVCache
from worldmodel.dynamics.gpt.blocks import Block
from worldmodel.dynamics.gpt.model import GPT
from worldmodel.dynamics.positions import Rope
from worldmodel.dynamics.shared_cache import SharedCache

MOST_ROWS = 32  # for more, the products of torch are as fast
KINDS = (torch.float32, torch.bfloat16, torch.int8)
MLPS = {("gelu", "tanh"): 0, ("gelu", "none"): 1}
SWIGLU = 2
NUMBERS = (
    "num_layers dim heads kv_heads head_dim hidden weight_kind rms mlp_kind int8_cache capacity "
    "shared shared_capacity futures rows new_positions length threads"
)


class Call(ctypes.Structure):
    """`Step` of step.c."""

    _fields_ = (
        ("layers", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in NUMBERS.split()),
        *((name, ctypes.c_void_p) for name in ("x", "cos", "sin", "out", "arena")),
        *((name, ctypes.c_double) for name in ("eps", "qk_eps", "scale")),
    )


def why_not_native(model: GPT) -> str | None:
    """What of this network the C function does not compute; None if nothing."""
    config, weight = model.config, model.embed.weight
    block = cast(Block, model.blocks[0])
    if weight.device.type != "cpu":
        return f"the model is on {weight.device}"
    if weight.dtype != torch.float32:
        return f"a model in {weight.dtype}; load it in float32 and give decoding.dtype"
    if config.context_dim:
        return "cross-attention to captions"
    if block.acting is not None:
        return f"layout.action_input={config.layout.action_input}"
    if config.sinusoid:
        return "sinusoid=true"
    if _dtype(block.up) not in KINDS:
        return f"weights in {_dtype(block.up)}"
    return None


def native_step(model: GPT) -> "NativeStep | None":
    """The step of a model made by `for_decoding`; None, and a line that says why, where none is."""
    reason = why_not_native(model)
    if reason is None:
        try:
            return NativeStep(model)
        except NoLibrary as error:
            reason = str(error)
    print(f"note: decoding.kernel=native: {reason}; torch computes instead")
    return None


class LaidOut:
    """Where the weights of a model stand that the C function reads.

    Attributes:
        layers: of every layer the places of its weights, in the order of `Layer` of step.c.
    """

    def __init__(self, model: GPT) -> None:
        self.held: list[Tensor] = []  # what the C function points to
        self.layers = [self._layer(cast(Block, block)) for block in model.blocks]

    def _layer(self, block: Block) -> list[int]:
        attention = block.attention
        gate = block.gate if block.mlp == "swiglu" else None
        matrices = attention.qkv, attention.proj, block.up, gate, block.down
        vectors: list[Tensor | None] = []
        for norm in (block.attention_norm, block.mlp_norm):
            vectors += [getattr(norm, "weight", None), getattr(norm, "bias", None)]
        for own in (attention.query_norm, attention.key_norm):
            vectors.append(None if own is None else own.weight)
        places = [place for matrix in matrices for place in self._matrix(matrix)]
        return places + [self._place(vector) for vector in vectors]

    def _matrix(self, linear: nn.Module | None) -> list[int]:
        if linear is None:
            return [0] * 5
        if isinstance(linear, Int8Linear):
            weight = _placed(linear.rows())
            parts: list[Tensor | None] = [linear.scale, linear.bias]
        else:
            assert isinstance(linear, nn.Linear)
            linear.weight.data = weight = _placed(linear.weight.data)
            parts = [None, linear.bias]
        self.held.append(weight)
        return [weight.data_ptr(), *(self._place(part) for part in parts), *weight.shape]

    def _place(self, vector: Tensor | None) -> int:
        """Where these numbers stand in float32."""
        if vector is None:
            return 0
        self.held.append(vector.detach().float().contiguous())
        return self.held[-1].data_ptr()


LAID_OUT: WeakKeyDictionary[GPT, LaidOut] = WeakKeyDictionary()


class NativeStep:
    """Runs new positions of every row through all blocks; the cache gains keys and values.

    Args:
        model: made by `for_decoding`, and one that `why_not_native` has no word against. Its
            weights are laid out anew, once; their values stay, and may not change afterwards.

    Raises:
        NoLibrary: the C function cannot be compiled here.
    """

    def __init__(self, model: GPT) -> None:
        self.library = library()
        config, block = model.config, cast(Block, model.blocks[0])
        if model not in LAID_OUT:
            LAID_OUT[model] = LaidOut(model)
        self.laid_out = LAID_OUT[model]
        self.cache: KVCache | None = None
        self.arena = torch.empty(0)
        self.call = Call(
            num_layers=config.num_layers,
            dim=config.dim,
            heads=config.num_heads,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            hidden=config.hidden,
            weight_kind=KINDS.index(_dtype(block.up)),
            rms=config.norm == "rms",
            mlp_kind=MLPS.get((config.mlp, config.gelu), SWIGLU),
            eps=config.norm_eps,
            qk_eps=config.qk_norm_eps,
            scale=block.attention.shape.scale,
        )

    def takes(self, x: Float[Tensor, "row new dim"], cache: KVCache) -> bool:
        """Whether these positions and this cache are computed here."""
        own, prompt, _ = parts_of(cache)
        known = type(own) in (KVCache, Int8Cache) and own.keys.dtype != torch.bfloat16
        rows, new, _ = x.shape
        fits = rows == own.batch and own.length + new <= own.capacity
        whole = prompt is None or prompt.length % SPLIT == 0
        return known and fits and whole and rows * new <= MOST_ROWS

    def __call__(
        self, x: Float[Tensor, "row new dim"], rope: Rope | None, cache: KVCache
    ) -> Float[Tensor, "row new dim"]:
        """The last hidden states; keys and values are written from `cache.length` on."""
        own, prompt, futures = parts_of(cache)
        if own is not self.cache:
            self._bind(own, prompt, futures)
        call, x = self.call, x.float().contiguous()
        turns = () if rope is None else (rope.cos.contiguous(), rope.sin.contiguous())
        out = torch.empty_like(x)
        call.rows, call.new_positions = x.shape[:2]
        call.shared = prompt.length if prompt else 0
        call.length, call.threads = cache.length, torch.get_num_threads()
        call.x, call.out = x.data_ptr(), out.data_ptr()
        call.cos, call.sin = (part.data_ptr() for part in turns) if turns else (None, None)
        call.arena = self.arena.data_ptr()
        size = self.library.arena_size(ctypes.byref(call))
        if size > len(self.arena):
            self.arena = torch.empty(size)
            call.arena = self.arena.data_ptr()
        self.library.step(ctypes.byref(call))
        return out

    def _bind(self, own: KVCache, prompt: KVCache | None, futures: int) -> None:
        """Point every layer to its parts of a cache."""
        places = zip(self.laid_out.layers, _places(own), _places(prompt or own), strict=True)
        table = [
            [*layer, keys, values, past_keys, past_values, scales, past_scales]
            for layer, (keys, values, scales), (past_keys, past_values, past_scales) in places
        ]
        self.cache, self.table = own, torch.tensor(table, dtype=torch.int64)
        call = self.call
        call.layers, call.futures = self.table.data_ptr(), futures
        call.int8_cache = isinstance(own, Int8Cache)
        call.capacity, call.shared_capacity = _apart(own), _apart(prompt or own)


def parts_of(cache: KVCache) -> tuple[KVCache, KVCache | None, int]:
    """Each row's own cache, the one before it that several rows share, and how many do."""
    if isinstance(cache, SharedCache):
        return cache.own, cache.prompt, cache.num_futures
    return cache, None, 1


def _places(cache: KVCache) -> list[tuple[int, int, int]]:
    """Of every layer: keys, values, scales of keys."""
    scales: Any = cache.key_scales if isinstance(cache, Int8Cache) else [None] * len(cache.keys)
    return [
        (keys.data_ptr(), values.data_ptr(), 0 if scale is None else scale.data_ptr())
        for keys, values, scale in zip(cache.keys, cache.values, scales, strict=True)
    ]


def _apart(cache: KVCache) -> int:
    """Positions between two rows of a cache."""
    return cache.capacity if isinstance(cache, Int8Cache) else cache.values.stride(-1)


def _placed(weight: Tensor) -> Tensor:
    """These weights, an output per row."""
    return in_large_pages(torch.empty(weight.shape, dtype=weight.dtype)).copy_(weight)


def _dtype(linear: nn.Module) -> torch.dtype:
    return torch.int8 if isinstance(linear, Int8Linear) else cast(nn.Linear, linear).weight.dtype
