"""Words for people: counts with their nouns."""


def counted(number: int, noun: str) -> str:
    """ "1 drive", "2 drives": a regular noun after its number."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
