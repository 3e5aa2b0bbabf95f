"""Evaluate a checkpoint: python eval.py ckpt=runs/gpt_tiny

A world model gets scores, floors, rollouts and steering; a tokenizer its reconstructions.
Both end with metrics.json and a report.html that opens from disk.
"""

from omegaconf import DictConfig

from training.cli import command


@command("eval")
def main(cfg: DictConfig) -> None:
    from worldmodel.evaluation.judge import judge  # torch loads here, not for --help

    judge(cfg)


if __name__ == "__main__":
    main()
