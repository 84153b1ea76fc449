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
from typing import IO

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.click import MAX_AHEAD_MS, MIN_TIMESTAMP_MS
from schemas.identifiers import MAX_ID_BYTES
from training.click_log import MAX_EVENTS, ClickLog, LoadedLog
from training.errors import UnreadableLogError
from training.identifiers import IdColumn
from training.log_times import TimeColumn, TimestampUnit
from training.progress import Progress, Report, silent

FORMATS = (".tsv", ".csv", ".parquet")
MAX_UNPACKED_BYTES = 64 << 30
"""Of a gzipped log: 100 million clicks with the longest identifiers are half of it, a gzip bomb is more."""
CHUNK_BYTES = 1 << 20

BLOCK_CLICKS = 1 << 20
"""Rows read at once: the reader holds a few blocks, of 20 to 300 MB, beside what is kept of the rows."""


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
    path: Path,
    now_ms: int,
    columns: Columns | None = None,
    timestamp_unit: TimestampUnit = "auto",
    report: Report = silent,
) -> LoadedLog:
    """Read a whole log.

    Args:
        path: the file; its name says its format.
        now_ms: wall clock; times more than one day ahead of it are no event times.
        columns: where the columns are not called as in the contracts.
        timestamp_unit: "s" and "ms" since the epoch, fractions allowed; "order" for numbers that only
            order the events: they are put one second apart from the year 2000 on. "auto" decides by the
            size of most of them and says in `remarks` what it understood.
        report: called after every block of `BLOCK_CLICKS` rows, and not for a log that is one.

    Raises:
        UnreadableLogError: see there.
    """
    if not path.is_file():
        raise UnreadableLogError(f"{path} is no file")
    blocks = _Blocks(path.name, report)
    digest = _read_blocks(path, columns or Columns(), blocks)
    times_ms, remark = blocks.times.build(timestamp_unit)
    good = [(at >= MIN_TIMESTAMP_MS) & (at <= now_ms + MAX_AHEAD_MS) for at in times_ms]  # NaN is neither
    clicks = sum(int(mask.sum()) for mask in good)
    skipped = {"identifier": blocks.bad_ids, "timestamp": blocks.rows - blocks.bad_ids - clicks}
    if not clicks:
        raise UnreadableLogError(_nothing_left(path.name, skipped))
    session, session_ids = blocks.sessions.build(good)
    item, item_ids = blocks.items.build(good)
    return LoadedLog(
        ClickLog(session, item, _whole_ms(times_ms, good), session_ids, list(item_ids)),
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


class _Blocks:
    """The three columns of the rows that have identifiers."""

    def __init__(self, name: str, report: Report) -> None:
        self.sessions = IdColumn()
        self.items = IdColumn()
        self.times = TimeColumn(name)
        self.rows = 0
        self.bad_ids = 0
        self._name = name
        self._report = report

    def add(self, table: pl.DataFrame, total: int) -> None:
        """Take the next rows of `total` (0: not known)."""
        table = table.with_columns(_text(table[field], self._name) for field in ("session_id", "item_id"))
        good = table.select(_is_id("session_id") & _is_id("item_id")).to_series()
        self.rows += len(table)
        self.bad_ids += len(table) - int(good.sum())
        if self.rows > MAX_EVENTS:
            raise UnreadableLogError(f"{self._name} holds more than {MAX_EVENTS:,} clicks: cut it in time")
        if not good.all():
            table = table.filter(good)
        self.sessions.add(table["session_id"])
        self.items.add(table["item_id"])
        self.times.add(table["timestamp"])
        self.show(total)

    def show(self, total: int) -> None:
        """Report the rows taken so far."""
        if self.rows >= BLOCK_CLICKS:
            self._report(Progress("read", self.rows, total))


def _read_blocks(path: Path, columns: Columns, blocks: _Blocks) -> str:
    """Read the three columns; returns the sha256 of the file."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes[-1:] == [".gz"]
    kind = (suffixes[:-1] if packed else suffixes)[-1:]
    if not kind or kind[0] not in FORMATS:
        raise UnreadableLogError(f"{path.name}: a log is {', '.join(FORMATS)}, or one of these with .gz")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        if not packed:
            _parse(file, kind[0], path.name, columns, blocks)
            return digest
        with tempfile.TemporaryFile(prefix="nextclick-") as plain:
            _unpack(file, plain, path.name)
            _parse(plain, kind[0], path.name, columns, blocks)
            return digest


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


def _parse(file: IO[bytes], kind: str, name: str, columns: Columns, blocks: _Blocks) -> None:
    if not file.read(1):
        raise UnreadableLogError(f"{name} is empty")
    file.seek(0)
    try:
        scan = _scan_parquet if kind == ".parquet" else _scan_tsv if kind == ".tsv" else _scan_csv
        rows, total = scan(file, lambda there: _resolve(there, columns, name))
        for table in rows.head(MAX_EVENTS + 1).collect_batches(chunk_size=BLOCK_CLICKS):
            if len(table):
                blocks.add(table, total)
    except pl.exceptions.PolarsError as error:
        raise UnreadableLogError(f"{name} is no {kind[1:]} file: {str(error).splitlines()[0]}") from None
    except pl.exceptions.PanicException:  # what the reader raises on some corrupt Parquet files
        raise UnreadableLogError(f"{name} is no {kind[1:]} file: it is corrupt") from None
    if not blocks.rows:
        raise UnreadableLogError(f"{name} has a header but no clicks")
    blocks.show(blocks.rows)


def _scan_parquet(
    file: IO[bytes], resolve: Callable[[list[str]], dict[str, str]]
) -> tuple[pl.LazyFrame, int]:
    """The rows, and how many there are."""
    wanted = resolve(list(pl.read_parquet_schema(file)))
    file.seek(0)
    rows = pl.scan_parquet(file)
    return _named(rows, wanted), rows.select(pl.len()).collect().item()


def _scan_tsv(file: IO[bytes], resolve: Callable[[list[str]], dict[str, str]]) -> tuple[pl.LazyFrame, int]:
    return _scan_csv(file, resolve, separator="\t", quote_char=None)  # a quote in a TSV file is itself


def _scan_csv(
    file: IO[bytes],
    resolve: Callable[[list[str]], dict[str, str]],
    separator: str = ",",
    quote_char: str | None = '"',
) -> tuple[pl.LazyFrame, int]:
    """The rows, and 0: how many there are is not known."""
    header = pl.read_csv(file, n_rows=0, separator=separator, quote_char=quote_char)
    wanted = resolve(header.columns)
    file.seek(0)
    rows = pl.scan_csv(
        file,
        separator=separator,
        quote_char=quote_char,
        infer_schema=False,  # an identifier like 007 is text
    )
    return _named(rows, wanted), 0


def _named(rows: pl.LazyFrame, wanted: dict[str, str]) -> pl.LazyFrame:
    return rows.select(**{field: pl.col(column) for field, column in wanted.items()})


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


def _is_id(field: str) -> pl.Expr:
    return pl.col(field).str.len_bytes().is_between(1, MAX_ID_BYTES).fill_null(value=False)


def _whole_ms(blocks: list[NDArray[np.float64]], good: list[NDArray[np.bool_]]) -> NDArray[np.int64]:
    """The good times of all blocks, rounded: int64 [N]."""
    whole = np.empty(sum(int(mask.sum()) for mask in good), np.int64)
    at = 0
    for block, mask in zip(blocks, good, strict=True):
        times = np.rint(block[mask])
        whole[at : at + len(times)] = times
        at += len(times)
    return whole


def _nothing_left(name: str, skipped: dict[str, int]) -> str:
    reasons = ", ".join(f"{count:,} with a bad {reason}" for reason, count in skipped.items() if count)
    return f"{name} holds no usable click: {reasons}. Timestamps: see --timestamp-unit"
