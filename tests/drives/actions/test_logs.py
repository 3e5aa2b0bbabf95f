"""Tables as spreadsheets, pandas and loggers write them."""

from pathlib import Path

import numpy as np
import pytest

from drives.actions.logs import Log, read_log
from training.errors import BadInput

STEERING = [0.0, 0.25, -0.5]
BODY = "".join(f"{value},0.5\n" for value in STEERING)


def log(tmp_path: Path, text: str, encoding: str = "utf-8") -> Log:
    file = tmp_path / "a.csv"
    file.write_bytes(text.encode(encoding))
    return read_log(file)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("steering,throttle\n" + BODY, "utf-8"),
        ("steering,throttle\n" + BODY, "utf-8-sig"),
        ("steering,throttle\n" + BODY, "utf-16"),
        ("steering,throttle\n" + BODY, "utf-32"),
        ("Steering, Throttle\n" + BODY, "utf-8"),
        ("steering,throttle\r\n" + BODY.replace("\n", "\r\n") + "\r\n", "utf-8"),
        ("steering;throttle\n" + BODY.replace(",", ";"), "utf-8"),
        ("steering;throttle\n" + BODY.replace(",", ";").replace(".", ","), "utf-8"),
        ("steering\tthrottle\n" + BODY.replace(",", "\t"), "utf-8"),
        ("# logged by mylogger 1.2\n\nsteering,throttle\n" + BODY, "utf-8"),
        ("steering,throttle (%)\n" + BODY.replace("0.5\n", "50\n"), "utf-8"),
    ],
)
def test_one_table_in_many_spellings(tmp_path, text, encoding):
    found = log(tmp_path, text, encoding)
    assert found.names == ("steering", "throttle")
    np.testing.assert_array_equal(found.values, [[value, 0.5] for value in STEERING])
    assert found.times_s is None


def test_speeds_become_metres_per_second(tmp_path):
    found = log(tmp_path, "Speed (km/h),brake\n36,True\n72,False\n")
    assert found.names == ("speed_mps", "brake")
    np.testing.assert_allclose(found.values, [[10, 1], [20, 0]])


@pytest.mark.parametrize(
    "name_and_times",
    [
        ("time_s", ["100.0", "100.1", "100.2"]),
        ("timestamp_ns", ["100000000000", "100100000000", "100200000000"]),
        ("Timestamp [ms]", ["100000", "100100", "100200"]),
        ("time", ["1970-01-01 00:01:40.000", "1970-01-01 00:01:40.100", "1970-01-01 00:01:40.200"]),
    ],
)
def test_indices_and_clocks_are_told_and_never_actions(tmp_path, name_and_times, caplog):
    name, times = name_and_times
    rows = "".join(f"{i},{times[i]},{i},{STEERING[i]}\n" for i in range(3))
    with caplog.at_level("INFO"):
        found = log(tmp_path, f",{name},frame,steering\n{rows}")
    assert found.names == ("steering",)
    np.testing.assert_allclose(found.times_s, [100, 100.1, 100.2], atol=1e-6)
    assert found.left_out == ("", name, "frame")
    assert f"a.csv: '', '{name}', 'frame' left out" in caplog.text


def test_words_and_empty_columns_are_told(tmp_path):
    found = log(tmp_path, "image,steering,note\na.jpg,0.1,\nb.jpg,0.2,\n")
    assert found.names == ("steering",)
    assert found.left_out == ("image", "note")


def test_parquet_is_read_alike(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    table = pa.table({"Speed [mph]": [10.0], "__index_level_0__": [7], "frame": [0]})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    found = read_log(tmp_path / "a.parquet")
    assert found.names == ("speed_mps",)
    np.testing.assert_allclose(found.values, [[4.4704]])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n# only words\n", "is empty"),
        (BODY, r"begins with numbers \(0\.0, 0\.5\) and has no header"),
        ('steering,speed_kmh\n0,"1,000"\n', r"row 0, column 'speed_kmh' holds '1,000'"),
        ("steering\n0.1\nn/b\n", r"row 1, column 'steering' holds 'n/b'"),
        ("Throttle,throttle\n0,1\n", "are all 'throttle'"),
        ("steering,throttle\n0.1\n", "cannot be read as numbers"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, text, words):
    with pytest.raises(BadInput, match=rf"a\.csv: .*{words}"):
        log(tmp_path, text)
    (tmp_path / "b.parquet").write_bytes(b"PAR1" + bytes(40))
    with pytest.raises(BadInput, match=r"b\.parquet: cannot be read"):
        read_log(tmp_path / "b.parquet")
