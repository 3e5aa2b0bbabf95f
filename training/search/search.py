"""Searches settings with Optuna: python -m training.search SPACE.yaml [setting=value ...]

    runs/search/<name of the file>/
        study.db        storage of Optuna; `optuna-dashboard sqlite:///...` opens it
        search.json     the search space; another search in this folder is refused
        trial-0007/     an ordinary run folder

After a signal or a kill, the same command continues: the interrupted trial resumes from its
newest checkpoint. The interruption does not change the settings of later trials.
"""

import argparse
import contextlib
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from training.cli import fail
from training.command_line import override, typed
from training.disk.folders import alone_in
from training.disk.places import made_folder
from training.disk.records import read_json, write_durably
from training.disk.status import write_status
from training.errors import BadInput
from training.search.space import SearchPlan, read_plan
from training.stopping import in_good_order
from training.sweeps import trials
from training.sweeps.trials import check_metric, compose_train
from training.watch.rows import METRICS_FILE, read_rows

if TYPE_CHECKING:
    from optuna import Study, Trial

# The search ends after this number of failed trials in a row.
MAX_FAILURES = 3


@dataclass
class Search:
    """A search, its folder and its study."""

    plan: SearchPlan
    overrides: tuple[str, ...]
    folder: Path
    study: "Study"

    def run(self) -> None:
        """Train until `num_trials` trials have finished, failed or been pruned.

        Raises:
            BadInput: the metric is never logged, or trials fail one after the other.
        """
        failures = 0
        for trial in self.trials():
            reason = self._run_trial(trial)
            failures = failures + 1 if reason else 0
            if failures == MAX_FAILURES:
                raise BadInput(
                    f"{self.folder}: {failures} trials failed one after the other, the last one: "
                    f"{reason}; mend the space or the overrides and choose another file name"
                )

    def trials(self) -> Iterator["Trial"]:
        """Interrupted trials, then new ones."""
        import optuna

        running = self.study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
        for frozen in running:
            yield optuna.trial.Trial(self.study, frozen._trial_id)
        while (number := len(self.study.get_trials(deepcopy=False))) < self.plan.num_trials:
            # Every trial has its own sampler: after a restart, a sampler per process would repeat
            # its first numbers.
            self.study.sampler = sampler(self.plan.seed, number)
            yield self.study.ask()

    def compose(self, trial: "Trial") -> DictConfig:
        values = [trial._suggest(s.key, s.distribution()) for s in self.plan.space]
        chosen = [override(s.key, v) for s, v in zip(self.plan.space, values, strict=True)]
        run = self.folder / f"trial-{trial.number:04d}"
        return compose(self.plan, (*self.overrides, *chosen, override("run", str(run))))

    def _run_trial(self, trial: "Trial") -> str | None:
        """Train one trial and report it to the study; returns the reason of a failure, or None."""
        import optuna

        cfg = self.compose(trial)
        shown = "  ".join(
            f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in trial.params.items()
        )
        print(f"trial {trial.number} of {self.plan.num_trials}: {shown}")
        try:
            value = train(cfg, trial, self.plan.metric)
        except optuna.TrialPruned as pruned:
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            write_status(Path(cfg.run), state="finished", reason=str(pruned), exit_code=0)
            print(f"trial {trial.number}: {pruned}")
            return None
        except Exception as error:
            reason = " ".join(f"{error}".split()) or type(error).__name__
            code = 2 if isinstance(error, BadInput) else 1
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            write_status(Path(cfg.run), state="failed", reason=reason, exit_code=code)
            print(f"trial {trial.number}: failed: {reason}", file=sys.stderr)
            return reason
        self.study.tell(trial, value)
        return None

    def summary(self) -> str:
        """The best trial, and the command that lists all trials."""
        import optuna

        done = self.study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
        counts = f"{len(self.study.trials)} trials, {len(done)} trained to their end"
        if not done:
            return counts
        best = self.study.best_trial
        settings = " ".join(typed(k, v) for k, v in best.params.items())
        return (
            f"{counts}\nbest {self.plan.metric} {best.value:.5g}: "
            f"{self.folder}/trial-{best.number:04d}\n{settings}\n"
            f"all: python -m training.sweeps {shlex.quote(str(self.folder))} "
            f"--sort {self.plan.metric}"
        )


@contextlib.contextmanager
def open_search(
    file: Path, overrides: Sequence[str], num_trials: int | None = None
) -> Iterator[Search]:
    """Check the search and lock its folder.

    Raises:
        BadInput: the file is unusable, a setting does not exist, the folder holds another search,
            or another process runs this one.
    """
    plan = read_plan(file)
    if num_trials is not None:
        if num_trials < 1:
            raise BadInput(f"--num-trials {num_trials}: needs a whole number above 0")
        plan = replace(plan, num_trials=num_trials)
    try:
        import optuna
    except ImportError as error:
        raise BadInput("optuna: not installed; pip install 'dashcast[search]'") from error
    for number in range(max((len(s.values) for s in plan.space), default=1)):
        # The ends of every range and every choice are judged before the first trial.
        values = [override(s.key, s.values[min(number, len(s.values) - 1)]) for s in plan.space]
        cfg = compose(plan, (*overrides, *values))
    folder = Path(cfg.paths.runs) / "search" / plan.name
    what = {**plan.identity(), "command_line": list(overrides)}
    record = folder / "search.json"
    _refuse_another_search(record, what)
    check_metric(cfg, plan.metric, file)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with alone_in(made_folder("paths.runs", folder), "searches"):
        write_durably(record, (json.dumps(what, indent=1) + "\n").encode())
        study = optuna.create_study(
            storage=f"sqlite:///{folder.absolute()}/study.db",
            study_name=plan.name,
            direction=plan.direction,
            pruner=pruner(plan),
            load_if_exists=True,
        )
        yield Search(plan, tuple(overrides), folder, study)


def _refuse_another_search(record: Path, what: dict[str, Any]) -> None:
    if record.is_file() and (before := dict(read_json(record))) != what:
        key = next(k for k in what if what[k] != before.get(k))
        raise BadInput(
            f"{record.parent}: holds a search with {key}={before.get(key)}, now {what[key]} is "
            "asked for; copy the file to another name"
        )


def train(cfg: DictConfig, trial: "Trial", metric: str) -> float:
    """Train one run folder as train.py does; returns the metric of the last validation.

    Raises:
        optuna.TrialPruned: the pruner ended the trial.
    """
    with in_good_order(cfg):
        from training.search.report import ReportMetric  # torch and lightning load here

        report = ReportMetric(trial, metric, read_rows(Path(cfg.run) / METRICS_FILE))
        trials.train(cfg, callbacks=[report])
        return report.last()


def compose(plan: SearchPlan, overrides: Sequence[str]) -> DictConfig:
    """The config of train.py with these settings; BadInput if a setting does not exist."""
    every = [f"+experiment={plan.experiment}", *plan.overrides, *overrides, "ckpt=auto"]
    return compose_train(every, plan.name)


def sampler(seed: int, number: int) -> Any:
    """A TPE sampler whose random numbers depend only on the seed and the number of the trial."""
    import numpy as np
    import optuna

    state = np.random.SeedSequence([abs(seed), number]).generate_state(1)
    return optuna.samplers.TPESampler(seed=int(state[0]))


def pruner(plan: SearchPlan) -> Any:
    import optuna

    if plan.startup_trials is None:
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(plan.startup_trials, plan.warmup_steps)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.search",
        description="Search settings with Optuna; the same command continues.",
    )
    parser.add_argument("space", type=Path, help="such as configs/search/gpt_tiny.yaml")
    parser.add_argument("overrides", nargs="*", help="settings of every trial: key=value")
    parser.add_argument("--num-trials", type=int, help="instead of the file's")
    asked = parser.parse_intermixed_args(arguments)
    try:
        with open_search(asked.space, asked.overrides, asked.num_trials) as search:
            search.run()
            print(search.summary())
    except BadInput as error:
        fail(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
