"""A decoder that is trained alone: the tokens stay, and all that reads them."""

import pytest
import torch

from tokenizer.load import export_tokenizer, load_tokenizer
from training.checkpoints.folder import newest_first
from training.errors import BadInput
from worldmodel.load import load_world_model

CUT = ("+debug=fast", "callbacks.media=null", "checkpoints.every_steps=1", "optimizer.lr=0.01")
SHIPPED = ("init_from=carracing", "model.network.channels=[64,96]")
ALONE = ("model.decoder_alone=true",)


def learnt(before, after):
    """Names of the parts of a network whose weights differ."""
    pairs = zip(
        before.network.state_dict().items(), after.network.state_dict().items(), strict=True
    )
    return {name.split(".")[0] for (name, x), (_, y) in pairs if not torch.equal(x, y)}


@pytest.mark.parametrize("quantizer", ["fsq", "vq"])
def test_tokens_stay_those_of_the_tokenizer_it_begins_from(quantizer, composed, fit, tmp_path):
    """Also of a codebook that follows its latents, after a resumed run, and as an export."""
    kind = (f"quantizer={quantizer}",)
    fit(composed("tokenizer_tiny", *CUT, *kind, f"run={tmp_path}/a"))
    whole = load_tokenizer(tmp_path / "a")
    words = (*CUT, *kind, *ALONE, f"init_from={tmp_path}/a", f"run={tmp_path}/b")
    fit(composed("tokenizer_tiny", *words, "trainer.max_steps=1"))
    first = load_tokenizer(tmp_path / "b")
    fit(composed("tokenizer_tiny", *words, "trainer.max_steps=2"))
    decoder = load_tokenizer(tmp_path / "b")
    assert learnt(whole, first) == learnt(first, decoder) == {"decoder"}
    assert decoder.known_as == whole.known_as == (whole.hash,)
    assert decoder.hash != whole.hash
    export_tokenizer(newest_first(tmp_path / "b")[0], tmp_path / "export")
    export = load_tokenizer(tmp_path / "export")
    assert learnt(whole, export) == {"decoder"}
    assert export.known_as == whole.known_as
    frames = torch.rand(4, 3, 64, 64) * 2 - 1
    assert torch.equal(export.encode(frames), whole.encode(frames))


def test_what_reads_its_tokens_reads_on(composed, fit, tmp_path):
    fit(composed("tokenizer_tiny", *CUT, *ALONE, *SHIPPED, f"run={tmp_path}/b"))
    shipped, decoder = load_tokenizer("carracing"), load_tokenizer(tmp_path / "b")
    assert decoder.spec(10.0) == shipped.spec(10.0)
    model = load_world_model("carracing")
    assert model.reads_tokens_of(decoder.spec(10.0).tokenizer, decoder)
    other = load_tokenizer("udacity")
    assert not model.reads_tokens_of(other.spec(10.0).tokenizer, other)


def test_without_a_tokenizer_it_is_refused(composed, fit):
    with pytest.raises(BadInput, match=r"model\.decoder_alone=true: .* init_from=RUN"):
        fit(composed("tokenizer_tiny", *CUT, *ALONE))


def test_a_teacher_of_the_codes_is_refused(composed, fit):
    with pytest.raises(BadInput, match=r"model\.loss\.distillation_weight=0"):
        fit(composed("tokenizer_tiny", *CUT, *ALONE, "model.loss.distillation_weight=1"))
