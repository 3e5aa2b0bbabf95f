"""Peak memory of training steps against the planner's estimate."""

from collections.abc import Iterator

from benchmarks import Row
from benchmarks.training.peak_memory import measure

RECIPES = {"gpt_small": [], "gpt_base": [], "tokenizer_base": ["model.loss.gan_start=0"]}
TOY = {"gpt_tiny": ["data.batch_size=1", "trainer.accelerator=cpu"]}


def rows(part: str, toy: bool) -> Iterator[Row | str]:
    recipes = TOY if toy else RECIPES
    for name, settings in recipes.items():
        found = measure(name, *settings)
        ours, theirs = (f"{found[key] / 1e9:,.2f} GB" for key in ("planned", "measured"))
        yield Row(f"planned peak memory of {name}, against a run", ours, theirs, found["ratio"])
