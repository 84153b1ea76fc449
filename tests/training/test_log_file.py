"""Log files: every format gives the same clicks, every broken file a sentence that says what to do."""

import gzip
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest

from schemas.click import MIN_TIMESTAMP_MS
from tests.training.logs import NOW_MS
from training.errors import UnreadableLogError
from training.log_file import Columns, parse_columns, read_click_log, read_test_sessions
from training.progress import Progress

ROWS = "session_id\titem_id\ttimestamp\na\t007\t1700000000.25\nb\t8\t1700000001\na\tz\t1700000002\n"


def write(folder: Path, name: str, text: str | bytes) -> Path:
    """A file of this content, gzipped where its name says so."""
    data = text.encode() if isinstance(text, str) else text
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder / name


def clicks(path: Path, **options: object) -> list[tuple[str, str, int]]:
    """The clicks of a file as plain tuples."""
    log = read_click_log(path, NOW_MS, **options).clicks  # type: ignore[arg-type]
    return [
        (log.session_ids[session], log.item_ids[item], int(at))
        for session, item, at in zip(log.session, log.item, log.timestamp_ms, strict=True)
    ]


EXPECTED = [("a", "007", 1_700_000_000_250), ("b", "8", 1_700_000_001_000), ("a", "z", 1_700_000_002_000)]


@pytest.mark.parametrize("name", ["log.tsv", "log.tsv.gz", "log.csv", "log.CSV.gz"])
def test_text_formats_hold_the_same_clicks(tmp_path: Path, name: str) -> None:
    text = ROWS if "tsv" in name else ROWS.replace("\t", ",")
    assert clicks(write(tmp_path, name, text)) == EXPECTED


@pytest.mark.parametrize("packed", [False, True])
def test_parquet_holds_the_same_clicks(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "log.parquet"
    times = [1700000000.25, 1700000001.0, 1700000002.0]
    table = pl.DataFrame({"session_id": ["a", "b", "a"], "item_id": ["007", "8", "z"], "timestamp": times})
    table.write_parquet(path)
    if packed:
        path = write(tmp_path, "log.parquet.gz", path.read_bytes())
    assert clicks(path) == EXPECTED


def test_parquet_integers_become_decimal_text_and_dates_become_times(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    times = pl.Series([1_700_000_000_250]).cast(pl.Datetime("ms", "UTC"))
    pl.DataFrame({"session_id": [-5], "item_id": [7], "timestamp": times}).write_parquet(path)
    assert clicks(path) == [("-5", "7", 1_700_000_000_250)]


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", "t,visit,price,sku\n1700000000,a,9,x\n")
    columns = parse_columns("session_id=visit, item_id=sku,timestamp=t")
    assert clicks(path, columns=columns) == [("a", "x", 1_700_000_000_000)]


def test_identifiers_of_digits_stay_text(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", "session_id,item_id,timestamp\n01,007,1700000000\n")
    assert clicks(path) == [("01", "007", 1_700_000_000_000)]


def test_a_column_may_serve_twice(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", "timestamp,sku\n1700000000,x\n")
    assert clicks(path, columns=Columns("sku", "sku")) == [("x", "x", 1_700_000_000_000)]


@pytest.mark.parametrize("text", ["", "session_id", "visit=session_id", "item_id=", "item_id=a,item_id=b"])
def test_bad_column_names_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"say session_id=|named twice"):
        parse_columns(text)


@pytest.mark.parametrize(
    ("times", "unit", "expected", "said"),
    [
        ("1700000000", "auto", 1_700_000_000_000, "seconds"),
        ("1700000000000", "auto", 1_700_000_000_000, "milliseconds"),
        ("0", "order", MIN_TIMESTAMP_MS, "order numbers"),
        ("17", "auto", MIN_TIMESTAMP_MS + 17_000, "order numbers"),
        ("1700000000", "order", MIN_TIMESTAMP_MS + 1_700_000_000_000, "order numbers"),
        ("1000000000", "s", 1_000_000_000_000, "seconds"),
        ("2014-04-07T10:51:09.277Z", "auto", 1_396_867_869_277, "dates"),
    ],
)
def test_timestamp_units(tmp_path: Path, times: str, unit: str, expected: int, said: str) -> None:
    path = write(tmp_path, "log.csv", f"session_id,item_id,timestamp\na,x,{times}\n")
    far_ms = 4_000_000_000_000
    loaded = read_click_log(path, far_ms, timestamp_unit=unit)  # type: ignore[arg-type]
    assert loaded.clicks.timestamp_ms.tolist() == [expected]
    assert said in " ".join(loaded.remarks)


def test_timestamp_ms_is_found_by_its_name(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", "session_id,item_id,timestamp_ms\na,x,1700000000000\n")
    assert clicks(path) == [("a", "x", 1_700_000_000_000)]


def test_bad_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = ["a,x,1700000000", ",x,1700000000", "a,,1700000000", f"{'i' * 129},x,1700000000"]
    rows += ["a,x,soon", "a,x,", "a,x,nan", "a,x,-5", "a,x,9999999999"]
    path = write(tmp_path, "log.csv", "session_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
    loaded = read_click_log(path, NOW_MS)
    assert len(loaded.clicks) == 1
    assert loaded.skipped == {"identifier": 3, "timestamp": 5}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows at once."""
    monkeypatch.setattr("training.log_file.BLOCK_CLICKS", 2)


MANY = [(f"s{row % 5}", f"i\n{row % 3}", 1_700_000_000_000 + row * 999) for row in range(23)]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.parquet"])
def test_a_log_of_many_blocks_is_read_whole_and_progress_shown(tmp_path: Path, name: str) -> None:
    table = pl.DataFrame(MANY, ["session_id", "item_id", "timestamp"], orient="row")
    if name == "log.parquet":
        table.write_parquet(tmp_path / name, row_group_size=5)
        path = tmp_path / name
    else:
        path = write(tmp_path, name, table.write_csv(quote_style="always"))
    seen: list[Progress] = []
    assert clicks(path, report=seen.append) == MANY
    assert {at.stage for at in seen} == {"read"}
    assert {at.total for at in seen[:-1]} == {23 if name == "log.parquet" else 0}
    assert (seen[-1].done, seen[-1].total) == (23, 23)
    assert len(seen) > 3


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("late", [0, 7])
def test_dates_are_no_times_where_any_time_is_a_number(tmp_path: Path, late: int) -> None:
    times = ["2024-01-01T00:00:00Z"] * 8
    rows = "".join(f"a,x,{at}\n" for at in times)
    loaded = read_click_log(write(tmp_path, "dates.csv", f"session_id,item_id,timestamp\n{rows}"), NOW_MS)
    assert loaded.clicks.timestamp_ms.tolist() == [1_704_067_200_000] * 8
    times[late] = "1700000000"
    rows = "".join(f"a,x,{at}\n" for at in times)
    loaded = read_click_log(write(tmp_path, "mixed.csv", f"session_id,item_id,timestamp\n{rows}"), NOW_MS)
    assert loaded.clicks.timestamp_ms.tolist() == [1_700_000_000_000]
    assert loaded.skipped == {"timestamp": 7}


@pytest.mark.usefixtures("small_blocks")
def test_all_dates_have_the_pattern_of_the_first_of_them(tmp_path: Path) -> None:
    times = ["soon", "2024-01-02 00:00:00", "2024-01-03 00:00:00", "", "04-01-2024", "05-01-2024", "later"]
    rows = "".join(f"a,x,{at}\n" for at in times)
    loaded = read_click_log(write(tmp_path, "log.csv", f"session_id,item_id,timestamp\n{rows}"), NOW_MS)
    assert loaded.clicks.timestamp_ms.tolist() == [1_704_153_600_000, 1_704_240_000_000]
    assert loaded.skipped == {"timestamp": 5}


@pytest.mark.usefixtures("small_blocks")
def test_bad_rows_are_counted_in_all_blocks(tmp_path: Path) -> None:
    rows = ",x,1\n,x,1\na,x,1700000000\nb,,1\nb,y,soon\nc,z,1700000001\n"
    loaded = read_click_log(write(tmp_path, "log.csv", f"session_id,item_id,timestamp\n{rows}"), NOW_MS)
    assert loaded.skipped == {"identifier": 3, "timestamp": 1}
    assert (list(loaded.clicks.session_ids), loaded.clicks.item_ids) == (["a", "c"], ["x", "z"])


@pytest.mark.usefixtures("small_blocks")
def test_a_log_over_the_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "log.tsv", ROWS)
    monkeypatch.setattr("training.log_file.MAX_EVENTS", 3)
    assert len(clicks(path)) == 3
    monkeypatch.setattr("training.log_file.MAX_EVENTS", 2)
    with pytest.raises(UnreadableLogError, match="more than 2 clicks"):
        clicks(path)


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    table = pl.DataFrame(MANY, ["session_id", "item_id", "timestamp"], orient="row")
    table.write_parquet(path, row_group_size=5)
    whole = path.read_bytes()
    for at in range(4, len(whole) - 8, 97):
        path.write_bytes(whole[:at] + bytes(255 - byte for byte in whole[at : at + 8]) + whole[at + 8 :])
        with suppress(UnreadableLogError):
            read_click_log(path, NOW_MS)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("log.txt", ROWS, ".tsv, .csv, .parquet"),
        ("log", ROWS, ".tsv, .csv, .parquet"),
        ("log.csv", "", "is empty"),
        ("log.csv.gz", "", "is empty"),
        ("log.csv", "session_id,item_id,timestamp\n", "no clicks"),
        ("log.csv", "session_id,sku,timestamp\na,x,1\n", "no column 'item_id'; it has 'session_id', 'sku'"),
        ("log.tsv", ROWS.replace("\t", ","), "no column 'session_id', 'item_id', 'timestamp'"),
        ("log.csv", "session_id,item_id,timestamp\na,x,soon\n", "no usable click: 1 with a bad timestamp"),
        ("log.csv", b"session_id,item_id,timestamp\na,\xff,1700000000\n", "no csv file"),
        ("log.csv", "session_id,item_id,timestamp\na,x,1,2,3\n", "no csv file"),
        ("log.parquet", b"PAR1 but nothing else", "no parquet file"),
        ("log.parquet", b"", "is empty"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    with pytest.raises(UnreadableLogError) as refusal:
        read_click_log(write(tmp_path, name, content), NOW_MS)
    assert said in str(refusal.value)


def test_a_cut_or_altered_gzip_file_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(ROWS.encode() * 50)
    for broken in (whole[:-20], b"plain text", whole[:40] + b"\0\0\0\0" + whole[44:]):
        (tmp_path / "log.tsv.gz").write_bytes(broken)
        with pytest.raises(UnreadableLogError, match="no whole gzip file"):
            read_click_log(tmp_path / "log.tsv.gz", NOW_MS)


def test_a_gzip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.log_file.MAX_UNPACKED_BYTES", 1_000)
    with pytest.raises(UnreadableLogError, match="unpacks to more than"):
        read_click_log(write(tmp_path, "log.tsv.gz", ROWS + "a\tb\t1700000000\n" * 100), NOW_MS)


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.tsv", tmp_path):
        with pytest.raises(UnreadableLogError, match="is no file"):
            read_click_log(path, NOW_MS)


def test_identifiers_of_another_type_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"session_id": [1.5], "item_id": ["x"], "timestamp": [1_700_000_000]}).write_parquet(path)
    with pytest.raises(UnreadableLogError, match="session_id is of type Float64"):
        read_click_log(path, NOW_MS)


def test_test_sessions(tmp_path: Path) -> None:
    assert read_test_sessions(write(tmp_path, "ids.txt", "12\n\n 7 \r\nx")) == {"12", "7", "x"}
    for name, content, said in (("e.txt", "\n", "names no session"), ("b.txt", b"\xff\xfe", "is no text")):
        with pytest.raises(UnreadableLogError, match=said):
            read_test_sessions(write(tmp_path, name, content))
    with pytest.raises(UnreadableLogError, match="cannot be read"):
        read_test_sessions(tmp_path / "nowhere.txt")
