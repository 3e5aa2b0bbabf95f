"""Text: captions become embeddings once, reach the model step by step, and are missed if wrong."""

import json
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from drives.captions import Caption
from drives.tokens.store import TokenDrive, TokenSpec
from training.config import AdamWConfig
from training.errors import BadInput
from worldmodel.conditioning.text_encoders import T5, Captions, HashedWords, Texts, texts_from
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.model import GPTConfig
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig
from worldmodel.module import WorldModelModule
from worldmodel.windows import TokenWindows, collate

SPEC = TokenSpec((1, 2, 2), 7, 10.0, 1, (16, 16), "test")
NETWORK = GPTConfig(
    dim=12,
    num_layers=1,
    num_heads=2,
    context_steps=3,
    layout=LayoutConfig(text_tokens=2),
    tie_embeddings=False,
)

CROSS = GPTConfig(
    dim=12, num_layers=1, num_heads=2, context_steps=3, context_tokens=2, tie_embeddings=False
)
WHOLE = WholeFrameConfig(dim=12, num_layers=2, num_heads=2, layout=LayoutConfig(text_tokens=2))


@dataclass(frozen=True)
class Counting:
    """Lengths of words; counts what it is asked."""

    width: int = 3
    key: str = "counting"
    asked: list[str] = field(default_factory=list, compare=False)

    def encode(self, texts, num_tokens):
        self.asked.extend(texts)
        words = torch.tensor([[float(len(t)), float(num_tokens)] for t in texts])
        return words[:, :, None].expand(-1, -1, self.width)[:, :num_tokens]


def drive(captions):
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 7, (6, 2, 2)).astype(np.uint16)
    return TokenDrive("d", "train", tokens, np.zeros((6, 0), np.float32), captions=captions)


def make_module(network=NETWORK, **values):
    torch.manual_seed(0)
    return WorldModelModule(network, AdamWConfig(), SPEC, (), **values)


def test_windows_say_what_the_captions_say_and_nothing_is_minus_one():
    windows = TokenWindows([drive((Caption("sun", 0, 2), Caption("fog", 1, 4))), drive(())], 3)
    clip = collate([windows[0], windows[3], windows[4]])
    assert clip.text is not None
    assert clip.text.texts == ("fog", "sun", "sun fog")
    assert clip.text.index.tolist() == [[1, 2, 0], [0, -1, -1], [-1, -1, -1]]
    assert clip.to("cpu").text == clip.text
    plain = TokenWindows([drive(())], 3)
    assert collate([plain[0]]).text is None


def test_every_caption_is_encoded_once_in_a_run_and_once_on_disk(tmp_path):
    captions = Captions.of([["a", "bb", ""], ["bb", "a", "a"]])
    first, second = Counting(), Counting()
    texts = Texts(first, 2, tmp_path)
    once, twice = texts.embed(captions), texts.embed(captions)
    assert first.asked == ["a", "bb"]
    assert torch.equal(once.embeddings, twice.embeddings)
    again = Texts(second, 2, tmp_path).embed(captions)
    assert second.asked == []
    assert torch.equal(once.embeddings, again.embeddings)
    Texts(second, 1, tmp_path).embed(captions)  # another number of tokens is another embedding
    assert second.asked == ["a", "bb"]


def test_a_negative_caption_is_the_one_turned_away_from():
    texts, captions = Texts(Counting(), 2), Captions.of([["a", "bb"]])
    context = texts.embed(captions, negative="cccc")
    assert context.negative == 2
    assert context.embeddings[2, 0, 0] == 4
    assert texts.embed(captions).negative == -1


def test_hashed_words_are_the_same_anywhere_and_words_differ():
    said = HashedWords(4).encode(["fog fog sun"], 4)
    assert torch.equal(said[0, 0], said[0, 1])
    assert not torch.equal(said[0, 0], said[0, 2])
    assert said[0, 3].tolist() == [0, 0, 0, 0]
    expected = torch.tensor([0.0, 0.0, 0.0, 0.0])
    assert not torch.equal(said[0, 0], expected)


def tiny_t5(folder):
    """A random T5 with a vocabulary of words."""
    transformers = pytest.importorskip("transformers")
    import tokenizers

    words = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", "it", "is", "foggy"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=6, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2
    )
    model = transformers.T5EncoderModel(config).eval()
    model.save_pretrained(folder)
    return model


def test_a_t5_from_a_folder_gives_its_last_states_and_zeros_behind_them(tmp_path):
    model = tiny_t5(tmp_path)
    encoder = T5(str(tmp_path))
    said = encoder.encode(["it is foggy", "foggy"], 4)
    assert (encoder.width, said.shape) == (8, (2, 4, 8))
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[3, 4, 5]])).last_hidden_state
    torch.testing.assert_close(said[:1, :3], expected)
    assert said[1, 1:].abs().max() == 0
    file = tmp_path / "model.safetensors"
    key, data = T5(str(tmp_path)).key, bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    assert T5(str(tmp_path)).key != key


def test_a_t5_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"text encoder T5 .*cannot be opened"):
        _ = T5(str(tmp_path / "nothing")).width


@pytest.mark.parametrize("network", [NETWORK, CROSS, WHOLE], ids=["prefix", "cross", "whole"])
def test_the_module_feeds_the_captions_to_the_network(network):
    windows = TokenWindows([drive((Caption("sun", 0, 6),))], 3)
    other = TokenWindows([drive((Caption("fog", 0, 6),))], 3)
    module = make_module(network, text=HashedWords(5)).eval()
    losses = [module.training_step(collate([w[0], w[1]]), 0).item() for w in (windows, other)]
    assert losses[0] != losses[1]
    assert module.manifest["text"]["name"] == "hashed_words"
    assert not any("encoder" in name for name in module.state_dict())
    silent = make_module(network, text=HashedWords(5), conditions=None, action_dropout=0.0).eval()
    clip = collate([windows[0], windows[1]])
    said = silent.caption_kwargs(clip)["captions"]
    dropped = silent.network.loss(clip.tokens, captions=said.drop(torch.tensor([True, True])))
    torch.testing.assert_close(dropped, silent.network.loss(clip.tokens))


def test_text_that_cannot_be_read_is_refused_before_training():
    with pytest.raises(BadInput, match=r"layout.text_tokens=2 needs a text encoder"):
        make_module()
    with pytest.raises(BadInput, match=r"context_tokens=2 needs a text encoder"):
        make_module(CROSS)
    with pytest.raises(BadInput, match=r"context_dim=4 with a text encoder of width 5"):
        make_module(replace(CROSS, context_dim=4), text=HashedWords(5))
    with pytest.raises(BadInput, match=r"set text_tokens=32"):
        make_module(
            GPTConfig(dim=12, num_layers=1, num_heads=2, tie_embeddings=False), text=HashedWords()
        )
    with pytest.raises(BadInput, match="no drive of the data has captions"):
        make_module(text=HashedWords(), captioned=False)


def test_a_checkpoint_names_its_encoder_and_no_other_is_taken():
    description = json.loads(json.dumps(Texts(HashedWords(5), 2).describe()))
    assert texts_from(description).encoder == HashedWords(5)
    with pytest.raises(BadInput, match=r"is hashed_words-6, but .* trained with hashed_words-5"):
        texts_from(description, HashedWords(6))
    foreign = Texts(Counting(), 2).describe()
    with pytest.raises(BadInput, match="Counting is none of hashed_words, t5"):
        texts_from(foreign)
    assert texts_from(foreign, Counting()).num_tokens == 2
