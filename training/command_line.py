"""What people are told to type: settings as Hydra reads them back, words as the shell does."""

import re
import shlex
from typing import Any

PLAIN_WORD = re.compile(r"(?!(true|false|null|nan|inf|yes|no|on|off)$)[A-Za-z_/.][\w./-]*", re.I)


def override(key: str, value: Any) -> str:
    """`key=value` as Hydra reads it back with the same type; for the shell, see `typed`."""
    if value is None:
        return f"{key}=null"
    if isinstance(value, bool):
        return f"{key}={str(value).lower()}"
    return f"{key}={quoted(value) if isinstance(value, str) else repr(value)}"


def quoted(text: str) -> str:
    """A string as Hydra reads it back, whatever it holds."""
    if PLAIN_WORD.fullmatch(text):
        return text
    # Hydra halves backslashes only where they stand before a quote.
    ended = re.sub(r"(\\*)'", lambda m: m[1] * 2 + r"\'", text)
    return "'" + re.sub(r"(\\+)$", lambda m: m[1] * 2, ended) + "'"


def typed(key: str, value: Any) -> str:
    """`key=value` as a person types it into a shell."""
    word = override(key, value)
    if shlex.quote(word) == word or re.fullmatch(r"[\w./:@%+,=-]+", word):
        return word
    # Double quotes outside are easier to read; the shell expands nothing in such a word.
    return f'"{word}"' if not set(word) & set('"$`\\!') else shlex.quote(word)
