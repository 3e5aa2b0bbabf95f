"""A new run may begin with the weights of another."""

import shutil

import pytest
import torch

import training.run as runs
from drives.splits.trained_clips import refuse_trained_clips
from tokenizer.load import load_tokenizer
from training.checkpoints.manifests import weights_hash
from training.checkpoints.provenance import provenance_of
from training.checkpoints.starting import with_origin
from training.errors import BadInput
from worldmodel.load import load_world_model
from worldmodel.video_decoder.load import load_video_decoder

CUT = ("+debug=fast", "callbacks.media=null", "trainer.max_steps=1", "checkpoints.every_steps=1")
WHOLE = ("callbacks.media=null", "needs_gpu=false")


def equal(ours, theirs):
    pairs = zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y.to(x.dtype)) for (a, x), (b, y) in pairs)


def begun(cfg):
    run = runs.open_run(cfg)
    module = runs.build_model(cfg, runs.build_data(cfg))
    run.begin(module)
    return module, run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "opened"),
    [("tokenizer_tiny", load_tokenizer), ("video_decoder_tiny", load_video_decoder)],
)
def test_a_run_begins_where_another_ended(recipe, opened, composed, fit, tmp_path):
    fit(composed(recipe, *CUT, f"run={tmp_path}/a"))
    first = opened(tmp_path / "a")
    again = [*CUT, f"run={tmp_path}/b", f"init_from={tmp_path}/a"]
    module, run = begun(composed(recipe, *again))
    assert equal(module.trained, first.network)
    assert equal(module.ema.module, first.network)
    assert run.origin == provenance_of(first.manifest)
    assert not equal(begun(composed(recipe, *CUT))[0].trained, first.network)
    fit(composed(recipe, *again))
    origin = provenance_of(opened(tmp_path / "b").manifest)["init_from"]
    assert origin["weights"] == weights_hash(first.manifest)
    shutil.rmtree(tmp_path / "a")
    goes_on = composed(recipe, *again, "trainer.max_steps=2")
    assert fit(goes_on)[2].global_step == 2, "a resumed run has weights of its own"
    assert opened(tmp_path / "b").manifest["run"]["init_from"] == origin


def test_what_the_first_weights_saw_in_training_is_not_judged(composed, tmp_path):
    drives = runs.build_data(composed("tokenizer_tiny", *CUT)).source.open()
    test = [drive for drive in drives if drive.split == "test"]
    origin = {"train_footage": [test[0].footage.content]}
    facts = with_origin({"train_footage": ["0" * 16]}, origin)
    with pytest.raises(BadInput, match=f"was trained on 1 of {len(test)} drives of the test"):
        refuse_trained_clips({"run": facts}, tmp_path, "test", drives=test)
    assert with_origin({"train_footage": ["a"]}, None) == {"train_footage": ["a"]}


def test_the_shipped_world_model_goes_on(composed, capsys):
    module, _ = begun(composed("gpt_tiny", *WHOLE, "init_from=carracing"))
    shipped = load_world_model("carracing")
    assert equal(module.network, shipped.network)
    few = composed(
        "gpt_tiny", *WHOLE, "init_from=carracing", "data.source.actions=[steering,speed_mps]"
    )
    other = begun(few)[0].network
    assert "what reads them begins anew" in capsys.readouterr().out
    assert torch.equal(other.norm.weight, shipped.network.norm.weight)
    assert other.action[0].weight.shape[1] == 2


@pytest.mark.slow
def test_another_shape_is_refused_with_the_settings_to_give(composed, tmp_path):
    words = ("init_from=carracing", "model.network.num_layers=3", "model.network.look_back=0")
    settings = r"model\.network\.num_layers=4 model\.network\.look_back=3$"
    with pytest.raises(BadInput, match=rf"there and absent here; .*: {settings}"):
        begun(composed("gpt_tiny", *WHOLE, *words))
    with pytest.raises(BadInput, match="another kind, GPTConfig"):
        begun(composed("whole_tiny", *WHOLE, "init_from=carracing"))
    with pytest.raises(BadInput, match="gone: no such run or checkpoint"):
        runs.open_run(composed("gpt_tiny", *WHOLE, f"init_from={tmp_path}/gone"))
    with pytest.raises(BadInput, match="trained together begin anew"):
        begun(composed("joint_tiny", *CUT, "init_from=carracing"))
