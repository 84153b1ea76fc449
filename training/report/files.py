"""Puts the report beside the model. The manifest does not name its files: a worker neither reads nor misses
them.
"""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from training.report.charts import chart_groups
from training.report.data import ReportData
from training.report.model_card import model_card
from training.report.page import page
from training.report.pictures import NoMatplotlibError, pictures

REPORT_FILE = "report.html"
DATA_FILE = "report.json"
CARD_FILE = "MODEL_CARD.md"
PLOTS_FOLDER = "plots"


def write_report(folder: Path, data: ReportData) -> str:
    """Write the report into the folder of its model; what is there already is replaced, file by file.

    Returns:
        What is missing and why, a sentence for the user; empty where nothing is.

    Raises:
        OSError: a file cannot be written. Those written before are whole.
    """
    plots, missing = _drawn(data)
    if plots:
        (folder / PLOTS_FOLDER).mkdir(exist_ok=True)
    names = [f"{PLOTS_FOLDER}/{name}.png" for name in plots]
    for name, picture in zip(names, plots.values(), strict=True):
        _replace(folder / name, picture)
    _replace(folder / DATA_FILE, msgspec.json.format(msgspec.json.encode(data), indent=1) + b"\n")
    _replace(folder / CARD_FILE, model_card(data, names).encode())
    _replace(folder / REPORT_FILE, page(data).encode())
    return missing


def try_report(folder: Path, gather: Callable[[], ReportData]) -> str:
    """Gather and write the report of a model that is safely stored; what it lacks and why, as a sentence.

    Raises nothing: whatever goes wrong with a report, a model is not lost for it.
    """
    try:
        return write_report(folder, gather())
    except Exception as error:  # noqa: BLE001 - see above
        return f"no report: {error!r}"


def _drawn(data: ReportData) -> tuple[dict[str, bytes], str]:
    """The plots, and why there are none."""
    try:
        return pictures(chart_groups(data)), ""
    except NoMatplotlibError:
        return {}, "no PNG plots: they need matplotlib, pip install 'nextclick[report]'"
    except Exception as error:  # noqa: BLE001 - a broken matplotlib must not cost the page, which needs none
        return {}, f"no PNG plots: matplotlib failed with {error!r}"


def _replace(path: Path, content: bytes) -> None:
    """Write aside, flush, rename: nobody reads half a file, and a full disk leaves the old one."""
    aside = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
