"""Names that people gave, as matplotlib draws them letter by letter."""


def as_drawn(name: str) -> str:
    """`$` would begin a formula (`$\\foo$` ends in ValueError), `_` hide the name in a legend."""
    text = name.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
