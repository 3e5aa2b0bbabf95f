"""Configs of earlier releases in the words of today; `read_manifest` applies it."""

from typing import Any


def in_todays_words(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a checkpoint with every setting where it lies today; unchanged if it does.

    Values are not judged here: a damaged one stays where its reader looks for it.
    """
    config = dict(config)
    config.pop("quantizer", None)  # repeated in the model
    model = config.get("model")
    if isinstance(model, dict) and "autoencoder" in model:
        rest = {key: value for key, value in model.items() if key != "autoencoder"}
        config["model"] = {**rest, "network": model["autoencoder"]}
    entries = {name: config.pop(name) for name in ("media", "doctor") if name in config}
    if entries:
        config["callbacks"] = {**config.get("callbacks", {}), **entries}
    if "loader" not in config:
        return config
    # `data` was the source, and `loader` the data module, which repeated the source.
    source, loader = config.pop("data", None), config.pop("loader")
    if not isinstance(loader, dict):
        return config | {"data": loader}
    loader = {key: value for key, value in loader.items() if key != "source"}
    if source is None:
        return config | {"data": loader}
    root = {"root": source.get("root")} if isinstance(source, dict) else {}
    return config | {"data": {**loader, **root, "source": source}}
