"""Vector quantization against published numbers, its oracle, and what keeps codes alive."""

from pathlib import Path

import published_files
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from tokenizer.quantizers.codebook import CHUNK, kmeans, nearest, sums_by_code
from tokenizer.quantizers.config import VQConfig
from tokenizer.quantizers.kinds import build_quantizer
from tokenizer.quantizers.vq import VQ
from training.errors import BadInput

PLAIN = {"kmeans_batches": 0, "dead_below": 0.0}


@pytest.fixture(scope="module")
def parity(shared: Path) -> dict[str, torch.Tensor]:
    folder = shared / "parity/vq_ema"
    return {**load_file(folder / "io.safetensors"), **load_file(folder / "weights.safetensors")}


@pytest.fixture(scope="module")
def said(shared: Path) -> dict:
    """What the fixture's config.json says."""
    return published_files.parity(shared, "vq_ema")[1]


def close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def small(**changes) -> VQ:
    torch.manual_seed(0)
    settings = {"vocab_size": 16, "dim": 4, "code_dim": 4, **PLAIN, **changes}
    return build_quantizer(VQConfig(**settings))


def test_three_steps_of_the_normalised_running_means_equal_upstream(parity, said):
    own = said["norm_ema"]
    sizes = own["n_embed"], own["embedding_dim"], own["embedding_dim"]
    vq = build_quantizer(
        VQConfig(*sizes, decay=own["decay"], commitment_weight=own["beta"], **PLAIN)
    )
    vq.codebook.copy_(parity["norm_ema.embedding.weight"])
    vq.cluster_size.copy_(parity["norm_ema.cluster_size"])
    for step in range(3):
        z = parity["z"][step].clone().requires_grad_()
        out, indices, losses = vq(z.movedim(1, -1))
        assert torch.equal(indices, parity["indices"][step])
        close(out.movedim(-1, 1), parity["out"][step])
        close(losses["commitment"], parity["loss"][step])
        (sum(losses.values()) + (out.movedim(-1, 1) * parity["cotangent"][step]).sum()).backward()
        close(z.grad, parity["grad"][step])
        close(vq.codebook, parity["weight_after"][step])
        close(vq.cluster_size, parity["cluster_size_after"][step])
    before = {name: value.clone() for name, value in vq.state_dict().items()}
    out, indices, losses = vq.eval()(parity["z"][0].movedim(1, -1))
    assert torch.equal(indices, parity["eval_indices"])
    close(out.movedim(-1, 1), parity["eval_out"])
    close(losses["commitment"], parity["eval_loss"])
    for name, value in vq.state_dict().items():  # upstream counts on even here; we do not
        assert torch.equal(value, before[name]), name


def test_kmeans_equals_upstream(parity, said):
    samples = parity["kmeans_samples"]
    start = samples[parity["kmeans_permutation"][: said["kmeans"]["clusters"]]]
    means, counts = kmeans(samples, start, said["kmeans"]["iterations"], cosine=True)
    close(means, parity["kmeans_means"])
    assert torch.equal(counts.long(), parity["kmeans_counts"].long())


@pytest.mark.parametrize("kind", ["legacy", "fixed"])
def test_both_placements_of_beta_equal_upstream(parity, said, kind):
    own = said["taming"]
    commitment, codebook = (1.0, own["beta"]) if kind == "legacy" else (own["beta"], 1.0)
    vq = build_quantizer(
        VQConfig(
            *(own["n_e"], own["e_dim"], own["e_dim"]),
            normalize=False,
            learn="gradient",
            commitment_weight=commitment,
            codebook_weight=codebook,
            **PLAIN,
        )
    )
    vq.load_state_dict({**vq.state_dict(), "codebook": parity["taming.embedding.weight"]})
    z = parity["taming_z"].clone().requires_grad_()
    out, indices, losses = vq(z.movedim(1, -1))
    loss = sum(losses.values())
    assert torch.equal(indices, parity["taming_indices"])
    close(out.movedim(-1, 1), parity["taming_out"])
    close(loss, parity[f"taming_loss_{kind}"])
    (loss + (out.movedim(-1, 1) * parity["taming_cotangent"]).sum()).backward()
    close(z.grad, parity[f"taming_grad_z_{kind}"])
    close(vq.codebook.grad, parity[f"taming_grad_codebook_{kind}"])


@pytest.mark.parametrize("normalize", [True, False])
def test_the_oracle_chooses_and_learns_the_same(normalize):
    oracle_of = pytest.importorskip("vector_quantize_pytorch").VectorQuantize
    mine = small(normalize=normalize, decay=0.8, commitment_weight=1.0).train()
    oracle = oracle_of(4, codebook_size=16, decay=0.8, use_cosine_sim=normalize, eps=1e-9)
    book = oracle._codebook
    book.embed.data.copy_(mine.codebook[None])
    mine.cluster_size.fill_(2.0)
    book.cluster_size.data.fill_(2.0)
    book.embed_avg.data.copy_(2.0 * mine.codebook[None])
    for _ in range(3):
        z = torch.randn(2, 40, 4)
        out, indices, losses = mine(z)
        expected, chosen, commitment = oracle(z)
        assert torch.equal(indices, chosen)
        close(mine.cluster_size, book.cluster_size[0])
        torch.testing.assert_close(out, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(losses["commitment"], commitment.sum(), atol=1e-4, rtol=0)
        if normalize:
            # The oracle keeps running sums of unit vectors; BEiT-v2, and so we, running means.
            break
        torch.testing.assert_close(mine.codebook, book.embed[0], atol=1e-4, rtol=0)


def test_running_means_are_those_of_the_paper():
    """Appendix A.1: N <- d N + (1 - d) n, m <- d m + (1 - d) sum z, e = m / N."""
    vq = small(normalize=False, decay=0.7)
    vq.cluster_size.uniform_(0.5, 2.0)
    sums = vq.cluster_size[:, None] * vq.codebook
    for _ in range(4):
        z = torch.randn(50, 4)
        totals, counts = sums_by_code(z, vq.encode(z), 16)
        sums = 0.7 * sums + 0.3 * totals
        expected = sums / (0.7 * vq.cluster_size + 0.3 * counts)[:, None]
        vq(z.requires_grad_())
        torch.testing.assert_close(vq.codebook, expected)


def test_kmeans_places_the_codes_on_the_first_batches_only():
    centres = F.normalize(torch.randn(16, 4, generator=torch.Generator().manual_seed(1)), dim=-1)

    def batch():
        return (centres.repeat(8, 1) + 0.02 * torch.randn(128, 4)).requires_grad_()

    def distance(vq):
        return (1 - (vq.table @ centres.T).amax(0)).mean().item()

    started, not_started = small(kmeans_batches=2), small()
    for vq in (started, not_started):
        vq(batch())
    assert distance(started) < 0.3 * distance(not_started)
    assert started.num_batches == 1
    with torch.no_grad():
        started.codebook.copy_(F.normalize(torch.randn(16, 4), dim=-1))
    started(batch())  # the second
    assert distance(started) < 0.1
    with torch.no_grad():
        lost = F.normalize(torch.randn(16, 4), dim=-1)
        started.codebook.copy_(lost)
    started(batch())  # the third only moves the codes a little
    assert (started.table - lost).norm(dim=-1).max() < 0.1


def test_kmeans_goes_on_for_its_steps():
    samples, errors = torch.randn(200, 4), []
    for steps in (0, 1, 10):
        vq = small(normalize=False, kmeans_batches=1, kmeans_steps=steps)
        vq._place(samples)
        errors.append((vq.decode(vq.encode(samples)) - samples).square().mean().item())
    assert errors[0] > errors[1] > errors[2]


def test_a_weight_of_zero_leaves_a_term_out():
    z = torch.randn(8, 4)
    assert small()(z).losses.keys() == {"commitment"}
    assert small(learn="gradient")(z).losses.keys() == {"commitment", "codebook"}
    for name in ("commitment", "codebook"):
        losses = small(learn="gradient", **{f"{name}_weight": 0.0})(z).losses
        assert losses.keys() == {"commitment", "codebook"} - {name}


@pytest.mark.parametrize("learn", ["ema", "gradient"])
def test_dead_codes_come_back_and_living_ones_stay(learn):
    """All latents near one direction: without revival one code is in use."""
    used = {}
    for dead_below in (0.0, 0.1):
        vq = small(learn=learn, decay=0.5, dead_below=dead_below)
        with torch.no_grad():
            vq.codebook.copy_(-torch.ones(16, 4) / 2 + 0.01 * torch.randn(16, 4))
            vq.codebook[0] = 0.5
        vq.cluster_size.fill_(20.0)
        for _ in range(60):
            z = (torch.ones(320, 4) / 2 + 0.2 * torch.randn(320, 4)).requires_grad_()
            vq(z)
        used[dead_below] = len(vq.encode(z).unique())
    assert used[0.0] == 1
    assert used[0.1] >= 14


def test_a_revived_code_is_a_latent_of_the_batch_and_has_patience():
    vq = small(dead_below=0.5, decay=0.9)
    vq.cluster_size.fill_(2.0)
    vq.cluster_size[3] = 0.1
    z = F.normalize(torch.randn(32, 4), dim=-1)
    vq._place(z)
    assert any(torch.equal(vq.codebook[3], latent) for latent in z)
    assert vq.cluster_size[3] == 2.0  # 32 latents for 16 codes


def test_restarted_codes_are_latents_and_the_others_stay():
    vq, z = small(dim=6), torch.randn(32, 6)
    before, dead = vq.codebook.clone(), torch.arange(16) < 5
    assert vq.restart(dead, z)
    assert torch.equal(vq.codebook[5:], before[5:])
    latents = F.normalize(vq.project_in(z), dim=-1)
    assert torch.cdist(vq.codebook[:5], latents).amin(1).max() < 1e-3
    assert torch.equal(vq.cluster_size > 0, dead)


def test_nothing_learns_outside_of_training():
    vq = small(kmeans_batches=2, dead_below=0.5)
    before = {name: value.clone() for name, value in vq.state_dict().items()}
    z = torch.randn(2, 5, 5, 4)
    with torch.no_grad():
        vq(z)  # the FLOP counter, a picture
    vq.encode(z)
    vq.eval()(z)
    for name, value in vq.state_dict().items():
        assert torch.equal(value, before[name]), name
    vq.train()(z)
    assert not torch.equal(vq.codebook, before["codebook"])


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_a_batch_that_is_not_finite_leaves_no_trace(normalize, batch):
    vq = small(normalize=normalize, kmeans_batches=1, dead_below=0.3)
    for _ in range(batch):
        vq(torch.randn(64, 4))
    bad = torch.randn(64, 4)
    bad[7, 2] = float("nan")
    vq(bad)
    assert all(value.isfinite().all() for value in vq.state_dict().values())


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_state_is_all_that_a_resumed_quantizer_needs(stop):
    def learn(vq, batches):
        for number in batches:
            torch.manual_seed(number)
            vq(torch.randn(64, 4))
        return vq

    make = {"kmeans_batches": 3, "dead_below": 0.5, "decay": 0.9}
    alone = learn(small(**make), range(6))
    parts = learn(small(**make), range(stop))
    resumed = learn(small(**make), [99])  # it has known another state before
    resumed.load_state_dict(parts.state_dict())
    learn(resumed, range(stop, 6))
    for name, value in alone.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_projections_lead_to_codes_of_another_width():
    vq = build_quantizer(VQConfig(vocab_size=32, dim=12, code_dim=3, **PLAIN))
    z = torch.randn(2, 4, 4, 12, requires_grad=True)
    codes, _, losses = vq(z)
    assert codes.shape == z.shape
    assert vq.codebook.shape == (32, 3)
    (codes.square().sum() + sum(losses.values())).backward()
    assert vq.project_in.weight.grad.abs().sum() > 0
    assert vq.project_out.weight.grad.abs().sum() > 0
    assert z.grad.abs().sum() > 0
    vq.eval()
    assert torch.equal(vq.encode(z), vq(z).indices)
    torch.testing.assert_close(vq.decode(vq.encode(z)), vq(z).codes)


def test_chunks_change_nothing(monkeypatch):
    assert CHUNK > 10_000
    z, table = torch.randn(100, 4), torch.randn(16, 4)
    whole = nearest(z, table), *sums_by_code(z, nearest(z, table), 16)
    monkeypatch.setattr("tokenizer.quantizers.codebook.CHUNK", 16 * 7)
    parts = nearest(z, table), *sums_by_code(z, nearest(z, table), 16)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b)
    assert torch.equal(whole[0], (z[:, None] - table).square().sum(-1).argmin(1))


def test_the_largest_dot_product_is_not_the_nearest():
    vq = build_quantizer(VQConfig(2, 2, 2, normalize=False, similarity="dot")).eval()
    vq.codebook.copy_(torch.tensor([[1.0, 0.0], [3.0, 3.0]]))
    z = torch.tensor([[1.0, 0.1]])
    assert (vq.encode(z), vq(z).indices) == (1, 1)
    vq = build_quantizer(VQConfig(2, 2, 2, normalize=False)).eval()
    vq.codebook.copy_(torch.tensor([[1.0, 0.0], [3.0, 3.0]]))
    assert (vq.encode(z), vq(z).indices) == (0, 0)


def test_autocast_chooses_in_float32():
    vq = small(vocab_size=512).eval()
    z = torch.randn(400, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(vq(z).indices, vq.encode(z))
        inside = vq.encode(z)
    assert torch.equal(inside, vq.encode(z))


@pytest.mark.parametrize(
    "bad",
    [
        {"learn": "both"},
        {"similarity": "cosine"},
        {"vocab_size": 1},
        {"decay": 1.0},
        {"dead_below": -1.0},
    ],
)
def test_settings_out_of_range_are_refused(bad):
    (name,) = bad
    with pytest.raises(BadInput, match=f"quantizer.*{name}={next(iter(bad.values()))!r}"):
        VQConfig(**bad)
