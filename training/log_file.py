"""Reading a click log from a file: `.tsv`, `.csv` or `.parquet`, each also gzipped.

Identifiers are text as it stands in the file (an integer column becomes decimal text). Rows without an
identifier, with one over the bound of the contracts, or with a time that is none are left out and counted.
"""

import gzip
import hashlib
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.click import MAX_AHEAD_MS, MIN_TIMESTAMP_MS
from schemas.identifiers import MAX_ID_BYTES
from training.click_log import MAX_EVENTS, ClickLog, LoadedLog
from training.errors import UnreadableLogError

TimestampUnit = Literal["auto", "s", "ms", "order"]

FORMATS = (".tsv", ".csv", ".parquet")
MAX_UNPACKED_BYTES = 64 << 30
"""Of a gzipped log: 50 million clicks with the longest identifiers are half of it, a gzip bomb is more."""
CHUNK_BYTES = 1 << 20

ORDER_BELOW = 1e8
"""Numbers whose median is smaller count events: as seconds they would lie in the first years of the epoch."""
SECONDS_BELOW = 1e11
"""As seconds this is the year 5138, as milliseconds March 1973: no click log holds either."""
ORDER_STEP_MS = 1_000


@dataclass(frozen=True)
class Columns:
    """Which columns of the file hold what. `timestamp` None: `timestamp`, or else `timestamp_ms`."""

    session_id: str = "session_id"
    item_id: str = "item_id"
    timestamp: str | None = None


def parse_columns(text: str) -> Columns:
    """Parse `session_id=sid,item_id=product,timestamp=t`; what is not named keeps its default.

    Raises:
        ValueError: with what is wrong, for the user.
    """
    named: dict[str, str] = {}
    for part in text.split(","):
        field, separator, column = (piece.strip() for piece in part.partition("="))
        if field not in {"session_id", "item_id", "timestamp"} or not separator or not column:
            raise ValueError(f"{part!r}: say session_id=COLUMN, item_id=COLUMN or timestamp=COLUMN")
        if field in named:
            raise ValueError(f"{field} is named twice")
        named[field] = column
    return Columns(**named)


def read_click_log(
    path: Path, now_ms: int, columns: Columns | None = None, timestamp_unit: TimestampUnit = "auto"
) -> LoadedLog:
    """Read a whole log.

    Args:
        path: the file; its name says its format.
        now_ms: wall clock; times more than one day ahead of it are no event times.
        columns: where the columns are not called as in the contracts.
        timestamp_unit: "s" and "ms" since the epoch, fractions allowed; "order" for numbers that only
            order the events: they are put one second apart from the year 2000 on. "auto" decides by the
            median and says in `remarks` what it understood.

    Raises:
        UnreadableLogError: see there.
    """
    if not path.is_file():
        raise UnreadableLogError(f"{path} is no file")
    table, digest = _read_table(path, columns or Columns())
    if len(table) > MAX_EVENTS:
        raise UnreadableLogError(f"{path.name} holds {len(table):,} clicks, at most {MAX_EVENTS:,} are read")
    times_ms, remark = _timestamps_ms(table["timestamp"], timestamp_unit, path.name)
    missing = table["session_id"].is_null() | table["item_id"].is_null()
    oversized = _oversized(table["session_id"]) | _oversized(table["item_id"])
    bad_id = (missing | oversized).fill_null(value=True).to_numpy()
    bad_time = ~np.isfinite(times_ms) | (times_ms < MIN_TIMESTAMP_MS) | (times_ms > now_ms + MAX_AHEAD_MS)
    skipped = {"identifier": int(bad_id.sum()), "timestamp": int((bad_time & ~bad_id).sum())}
    good = ~(bad_id | bad_time)
    if not good.any():
        raise UnreadableLogError(_nothing_left(path.name, skipped))
    table = table.filter(pl.Series(good))
    session, session_ids = _encode(table["session_id"])
    item, item_ids = _encode(table["item_id"])
    clicks = ClickLog(session, item, np.rint(times_ms[good]).astype(np.int64), session_ids, item_ids)
    return LoadedLog(
        clicks,
        "file",
        path.name,
        {reason: count for reason, count in skipped.items() if count},
        [remark],
        file_sha256=digest,
    )


def read_test_sessions(path: Path) -> frozenset[str]:
    """Read the ids of the sessions to hold out: plain text, one a line.

    Raises:
        UnreadableLogError: the file is missing, no text or empty.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UnreadableLogError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UnreadableLogError(f"{path.name} is no text; expected one session id a line") from None
    ids = frozenset(line.strip() for line in lines) - {""}
    if not ids:
        raise UnreadableLogError(f"{path.name} names no session; expected one session id a line")
    return ids


def _read_table(path: Path, columns: Columns) -> tuple[pl.DataFrame, str]:
    """The three columns under their own names, identifiers as text, and the sha256 of the file."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes[-1:] == [".gz"]
    kind = (suffixes[:-1] if packed else suffixes)[-1:]
    if not kind or kind[0] not in FORMATS:
        raise UnreadableLogError(f"{path.name}: a log is {', '.join(FORMATS)}, or one of these with .gz")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        if not packed:
            return _parse(file, kind[0], path.name, columns), digest
        with tempfile.TemporaryFile(prefix="nextclick-") as plain:
            _unpack(file, plain, path.name)
            return _parse(plain, kind[0], path.name, columns), digest


def _unpack(packed: IO[bytes], plain: IO[bytes], name: str) -> None:
    written = 0
    try:
        with gzip.open(packed) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                written += len(chunk)
                if written > MAX_UNPACKED_BYTES:
                    raise UnreadableLogError(f"{name} unpacks to more than {MAX_UNPACKED_BYTES >> 30} GiB")
                plain.write(chunk)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnreadableLogError(f"{name} is no whole gzip file: {error}") from None
    plain.seek(0)


def _parse(file: IO[bytes], kind: str, name: str, columns: Columns) -> pl.DataFrame:
    if not file.read(1):
        raise UnreadableLogError(f"{name} is empty")
    file.seek(0)
    try:
        reader = _read_parquet if kind == ".parquet" else _read_tsv if kind == ".tsv" else _read_csv
        table = reader(file, lambda there: _resolve(there, columns, name))
    except pl.exceptions.PolarsError as error:
        raise UnreadableLogError(f"{name} is no {kind[1:]} file: {str(error).splitlines()[0]}") from None
    except pl.exceptions.PanicException:  # what the reader raises on some corrupt Parquet files
        raise UnreadableLogError(f"{name} is no {kind[1:]} file: it is corrupt") from None
    if table.is_empty():
        raise UnreadableLogError(f"{name} has a header but no clicks")
    return table.with_columns(_text(table[field], name) for field in ("session_id", "item_id"))


def _read_parquet(file: IO[bytes], resolve: Callable[[list[str]], dict[str, str]]) -> pl.DataFrame:
    wanted = resolve(list(pl.read_parquet_schema(file)))
    file.seek(0)
    return _named(pl.read_parquet(file, columns=list(dict.fromkeys(wanted.values()))), wanted)


def _read_tsv(file: IO[bytes], resolve: Callable[[list[str]], dict[str, str]]) -> pl.DataFrame:
    return _read_csv(file, resolve, separator="\t", quote_char=None)  # a quote in a TSV file is itself


def _read_csv(
    file: IO[bytes],
    resolve: Callable[[list[str]], dict[str, str]],
    separator: str = ",",
    quote_char: str | None = '"',
) -> pl.DataFrame:
    header = pl.read_csv(file, n_rows=0, separator=separator, quote_char=quote_char)
    wanted = resolve(header.columns)
    file.seek(0)
    table = pl.read_csv(
        file,
        columns=list(dict.fromkeys(wanted.values())),
        separator=separator,
        quote_char=quote_char,
        infer_schema=False,  # an identifier like 007 is text
    )
    return _named(table, wanted)


def _named(table: pl.DataFrame, wanted: dict[str, str]) -> pl.DataFrame:
    return table.select(**{field: pl.col(column) for field, column in wanted.items()})


def _resolve(there: list[str], columns: Columns, name: str) -> dict[str, str]:
    timestamp = columns.timestamp
    if timestamp is None:
        timestamp = "timestamp_ms" if "timestamp" not in there and "timestamp_ms" in there else "timestamp"
    wanted = {"session_id": columns.session_id, "item_id": columns.item_id, "timestamp": timestamp}
    missing = [column for column in wanted.values() if column not in there]
    if missing:
        raise UnreadableLogError(
            f"{name} has no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, there[:50]))}"
            ". Say which is which: --columns session_id=…,item_id=…,timestamp=…"
        )
    return wanted


def _text(column: pl.Series, name: str) -> pl.Series:
    if column.dtype.is_integer() or column.dtype in {pl.String, pl.Categorical, pl.Enum}:
        return column.cast(pl.String)
    raise UnreadableLogError(
        f"{name}: {column.name} is of type {column.dtype}; identifiers are text or integers"
    )


def _oversized(ids: pl.Series) -> pl.Series:
    size = ids.str.len_bytes()
    return (size == 0) | (size > MAX_ID_BYTES)


def _timestamps_ms(column: pl.Series, unit: TimestampUnit, name: str) -> tuple[NDArray[np.float64], str]:
    """Times in ms, NaN where there is none, and what they were taken for."""
    if column.dtype == pl.Datetime:
        return _float64(column.dt.epoch("ms")), "Timestamps are dates."
    if column.dtype == pl.String:
        column = column.str.strip_chars()
        numbers = column.cast(pl.Float64, strict=False)
        if numbers.null_count() == len(numbers):
            dates = column.str.to_datetime(time_zone="UTC", time_unit="ms", strict=False)
            return _float64(dates.dt.epoch("ms")), "Timestamps are dates."
        column = numbers
    elif not column.dtype.is_numeric():
        raise UnreadableLogError(f"{name}: the timestamp is of type {column.dtype}, neither number nor date")
    values = _float64(column)
    values[~np.isfinite(values)] = np.nan
    if unit == "auto":
        present = values[~np.isnan(values)]
        middle = float(np.median(present)) if len(present) else 0.0
        unit = "order" if middle < ORDER_BELOW else "s" if middle < SECONDS_BELOW else "ms"
    if unit == "order":
        return values * ORDER_STEP_MS + MIN_TIMESTAMP_MS, (
            "Timestamps were taken for order numbers: events one second apart, from the year 2000 on"
            " (--timestamp-unit s or ms if they are times)."
        )
    if unit == "s":
        return values * 1000, "Timestamps were taken for seconds since the epoch (--timestamp-unit)."
    return values, "Timestamps were taken for milliseconds since the epoch (--timestamp-unit)."


def _float64(column: pl.Series) -> NDArray[np.float64]:
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy().copy()


def _encode(ids: pl.Series) -> tuple[NDArray[np.int32], list[str]]:
    """Indices into the sorted list of what occurs, and that list."""
    codes = ids.rank("dense").to_numpy().astype(np.int32) - np.int32(1)
    return codes, ids.unique().sort().to_list()


def _nothing_left(name: str, skipped: dict[str, int]) -> str:
    reasons = ", ".join(f"{count:,} with a bad {reason}" for reason, count in skipped.items() if count)
    return f"{name} holds no usable click: {reasons}. Timestamps: see --timestamp-unit"
