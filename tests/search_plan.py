"""A small search plan, as a file."""

from pathlib import Path
from typing import Any

import yaml

PLAN: dict[str, Any] = {
    "experiment": "gpt_tiny",
    "metric": "val/loss",
    "num_trials": 4,
    "space": {
        "optimizer.lr": {"log_uniform": [1.0e-4, 1.0e-2]},
        "model.network.num_layers": {"int": [1, 3]},
        "optimizer.schedule": {"categorical": ["cosine", "wsd"]},
    },
}


def written(folder: Path, **changes: Any) -> Path:
    file = folder / "quick.yaml"
    file.write_text(yaml.safe_dump(PLAN | changes))
    return file
