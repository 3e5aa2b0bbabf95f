"""Formats overrides for Hydra and for the shell."""

import difflib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MOST_NAMED = 40  # names in one message
PLAIN_WORD = re.compile(r"(?!(true|false|null|nan|inf|yes|no|on|off)$)[A-Za-z_/.][\w./-]*", re.I)


def override(key: str, value: Any) -> str:
    """`key=value` that Hydra reads back with the same type; for the shell, see `typed`."""
    if value is None:
        return f"{key}=null"
    if isinstance(value, bool):
        return f"{key}={str(value).lower()}"
    return f"{key}={quoted(value) if isinstance(value, str) else repr(value)}"


def quoted(text: str) -> str:
    """Any string, quoted for Hydra."""
    if PLAIN_WORD.fullmatch(text):
        return text
    # Hydra halves backslashes only before a quote.
    ended = re.sub(r"(\\*)'", lambda m: m[1] * 2 + r"\'", text)
    return "'" + re.sub(r"(\\+)$", lambda m: m[1] * 2, ended) + "'"


def typed(key: str, value: Any) -> str:
    """`key=value` for a shell."""
    word = override(key, value)
    if shlex.quote(word) == word or re.fullmatch(r"[\w./:@%+,=-]+", word):
        return word
    # Double quotes outside are easier to read; the shell expands nothing in this word.
    return f'"{word}"' if not set(word) & set('"$`\\!') else shlex.quote(word)


def near(wrong: str, known: list[str]) -> str:
    """The known names that someone may have meant; all of few, or where many are listed."""
    matches = difflib.get_close_matches(wrong, known, n=3, cutoff=0.5)
    if not matches:
        leaf = wrong.rsplit(".", 1)[-1]
        matches = [k for k in known if k.rsplit(".", 1)[-1] == leaf][:3]
    if matches:
        return f"did you mean {' or '.join(matches)}?"
    if len(known) > MOST_NAMED:
        return f"none of {len(known)} names is close; --help lists them with their meanings"
    return f"there are: {', '.join(known)}"


def named_in(arguments: Sequence[str], setting: str) -> list[str]:
    """Arguments for Hydra: those that are neither settings nor options are names in `setting`."""
    names = [a for a in arguments if not a.startswith("-") and ("=" not in a or Path(a).exists())]
    rest = [a for a in arguments if a not in names]
    listed = ",".join(quoted(name) for name in names)
    return [*rest, *([f"{setting}=[{listed}]"] if names else [])]
