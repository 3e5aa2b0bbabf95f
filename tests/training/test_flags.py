"""Every flag of training does what it says: each test fails where the flag does nothing."""

import pytest
import torch
from torch.utils import checkpoint as torch_checkpoint

from training.checkpoints.folder import newest_first, read_weights

WORLD = (
    "optimizer=adamw",  # Muon blows the rounding of a gradient up to the size of a step
    "+debug=fast",
    "callbacks.media=null",
    "model.network.dropout=0",
    "model.action_dropout=0",
    "trainer.max_steps=3",
    "trainer.log_every_n_steps=1",
    "checkpoints.every_steps=3",
    "trainer.precision=32-true",
)
TOKENIZER = (
    "+debug=fast",
    "callbacks.media=null",
    "trainer.max_steps=3",
    "trainer.log_every_n_steps=1",
    "checkpoints.every_steps=3",
    "model.loss.gan_start=1",
    "model.loss.discriminator_norm=group",
    "trainer.precision=32-true",
)
BOTH = pytest.mark.parametrize(
    ("recipe", "cut"),
    [
        pytest.param("gpt_tiny", WORLD, id="gpt"),
        pytest.param("tokenizer_tiny", TOKENIZER, id="tokenizer", marks=pytest.mark.slow),
    ],
)


def weights(run):
    return read_weights(newest_first(run.folder)[0])


def close(a, b, atol):
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=atol, rtol=0, msg=name)


@BOTH
def test_accumulated_batches_are_one_large_batch(recipe, cut, composed, fit, tmp_path):
    if recipe == "tokenizer_tiny":
        # The adaptive weight of the GAN is a ratio of norms, and belongs to what it is taken of.
        cut = (*cut, "model.loss.gan_start=99")
    whole = fit(composed(recipe, *cut, "data.batch_size=4", f"run={tmp_path}/whole"))
    split = ("data.batch_size=2", "trainer.accumulate_grad_batches=2", f"run={tmp_path}/split")
    parts = fit(composed(recipe, *cut, *split))
    assert parts[2].global_step == whole[2].global_step == 3
    order = parts[2].train_dataloader.order
    assert order.samples_consumed == whole[2].train_dataloader.order.samples_consumed == 12
    close(weights(whole[1]), weights(parts[1]), atol=2e-4)
    alone = fit(composed(recipe, *cut, "data.batch_size=2", f"run={tmp_path}/alone"))
    with pytest.raises(AssertionError):
        close(weights(whole[1]), weights(alone[1]), atol=2e-4)


@BOTH
def test_recomputed_activations_change_nothing_but_are_recomputed(
    recipe, cut, composed, fit, tmp_path, monkeypatch
):
    import training.optimization.recompute as recompute

    calls = []

    def counted(*args, **kwargs):
        calls.append(1)
        return torch_checkpoint.checkpoint(*args, **kwargs)

    monkeypatch.setattr(recompute, "checkpoint", counted)
    plain = fit(composed(recipe, *cut, f"run={tmp_path}/plain"))
    assert not calls
    again = fit(composed(recipe, *cut, "checkpoint_activations=true", f"run={tmp_path}/again"))
    assert len(calls) >= 3 * 2
    close(weights(plain[1]), weights(again[1]), atol=0)


def test_recomputing_keeps_less(composed):
    """Bytes that the backward pass holds on to, with and without the flag."""
    from training.run import build_data, build_model

    kept = {}
    for flag in ("false", "true"):
        cfg = composed("gpt_tiny", *WORLD, f"checkpoint_activations={flag}")
        data = build_data(cfg)
        module = build_model(cfg, data)
        from worldmodel.windows import collate

        windows = data.dataset("train")
        clip = collate([windows[0], windows[1]])
        kept[flag] = 0

        def count(tensor, flag=flag):
            kept[flag] += tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            module.network.loss(clip.tokens, clip.actions)
    assert kept["true"] < 0.6 * kept["false"]


@BOTH
def test_bf16_computes_in_bf16_and_keeps_float32_weights(recipe, cut, composed, fit, monkeypatch):
    seen = set()
    honest = torch.nn.functional.linear, torch.nn.Conv2d._conv_forward

    def conv(self, x, weight, bias):
        out = honest[1](self, x, weight, bias)
        seen.add(out.dtype)
        return out

    def linear(*args):
        out = honest[0](*args)
        seen.add(out.dtype)
        return out

    monkeypatch.setattr(torch.nn.Conv2d, "_conv_forward", conv)
    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    module, _, _ = fit(composed(recipe, *cut, "trainer.precision=bf16-mixed"))
    assert torch.bfloat16 in seen
    assert {p.dtype for p in module.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("recipe", "cut"),
    [
        pytest.param("gpt_tiny", WORLD, marks=pytest.mark.slow),
        pytest.param("tokenizer_tiny", TOKENIZER, marks=pytest.mark.long),
    ],
)
def test_the_compiled_module_is_the_one_that_is_trained(recipe, cut, composed, fit, tmp_path):
    from torch._dynamo.utils import counters

    counters.clear()
    plain = fit(composed(recipe, *cut, f"run={tmp_path}/plain"))
    assert not counters["stats"]["unique_graphs"]
    fast = fit(composed(recipe, *cut, "compile=true", f"run={tmp_path}/fast"))
    assert counters["stats"]["unique_graphs"] >= 1
    assert counters["aot_autograd"]["ok"] >= 1  # compiled with its backward pass
    assert weights(plain[1]).keys() == weights(fast[1]).keys()
    close(weights(plain[1]), weights(fast[1]), atol=5e-3)
