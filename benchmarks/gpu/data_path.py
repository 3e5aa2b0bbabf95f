"""What reads the token store beside the GPU: batches against nanoGPT's loop."""

from collections.abc import Iterator

from benchmarks import Row


def rows(part: str, toy: bool) -> Iterator[Row | str]:
    from benchmarks.data import data_path

    if toy:
        data_path.STEPS, data_path.DRIVES, data_path.BATCHES, data_path.REPEATS = 24, 2, 4, 1
        data_path.SHAPES, data_path.WARM_UP = ((4, 2),), 1
    yield from data_path.rows()
