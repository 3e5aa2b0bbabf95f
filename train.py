"""Train a tokenizer or a world model: python train.py +experiment=gpt_tiny

Composes the config, checks it, builds data and model, fits. The recipes are in
configs/experiment/; everything in them can be overridden: optimizer.lr=1e-4 seed=1.
"""

from omegaconf import DictConfig

from training.cli import command
from training.stopping import in_good_order


@command("train")
def main(cfg: DictConfig) -> float | None:
    if cfg.plan:
        from training.planner.plan import plan
        from training.planner.report import report

        print(report(plan(cfg)))
        return None
    with in_good_order(cfg):
        import training.run as runs  # torch and lightning load here, not for --help

        run = runs.open_run(cfg)
        datamodule = runs.build_data(cfg)
        module = runs.build_model(cfg, datamodule)
        run.begin(module)
        trainer = runs.build_trainer(cfg, run, datamodule, module)
        run.describe(datamodule, module)
        run.fit(trainer, module, datamodule)
        return run.finish(trainer)


if __name__ == "__main__":
    main()
