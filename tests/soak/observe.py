"""What can be seen of a running worker from outside: its memory and its metrics. Linux only, for /proc."""

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

_RESIDENT = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)


def resident_mb(pid: int | str = "self") -> float:
    """Resident memory of a process in MB (10^6 bytes).

    Raises:
        OSError: there is no such process any more.
    """
    found = _RESIDENT.search(Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
    if found is None:
        raise ProcessLookupError(f"process {pid} has ended")
    return int(found[1]) * 1024 / 1e6


def sums_by_sample(metrics: str) -> dict[str, float]:
    """Each sample of a /metrics text by its name, summed over its labels."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def by_label(metrics: str, name: str, label: str) -> dict[str, float]:
    """The samples of one name by the value of one label."""
    return {
        sample.labels[label]: sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == name
    }
