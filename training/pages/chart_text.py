"""Escapes names for matplotlib, which reads some characters as markup."""


def as_drawn(name: str) -> str:
    """A name without markup: `$` begins a formula, and a leading `_` hides a name in a legend."""
    text = name.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
