"""Writes the Grafana dashboard `nextclick.json` from the table of panels in `panels.py`.

    python -m deploy.grafana.dashboard           write it
    python -m deploy.grafana.dashboard --check   fail where it differs from the table

Plain dictionaries in Grafana's classic dashboard model, which its versions from 10 on import. Grafana's own
builder library (grafana-foundation-sdk) is not used: it stops at Grafana 11.6, the release that a plain
install gives describes 10.1, and the few dictionaries below need no second description of the format.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from deploy.grafana.panels import ROWS, Kind, Panel

PATH = Path(__file__).with_name("nextclick.json")
SCHEMA_VERSION = 42
COLUMNS = 24
HEIGHT = 8
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

Json = dict[str, Any]


def dashboard() -> Json:
    """The whole dashboard, as Grafana imports it."""
    return {
        "uid": "nextclick",
        "title": "nextclick",
        "description": "Clicks in, recommendations out: flow, latency and live quality of the workers.",
        "tags": ["nextclick", "kafka"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,  # one crosshair through all panels
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": [_datasource_variable(), _instance_variable()]},
        "panels": _panels(),
    }


def text() -> str:
    """The dashboard as it stands in the file."""
    return json.dumps(dashboard(), indent=2) + "\n"


def main(arguments: list[str] | None = None, path: Path = PATH) -> int:
    """Write the file, or check it; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.grafana.dashboard", description="Write the dashboard."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the file differs")
    if not parser.parse_args(arguments).check:
        path.write_text(text(), encoding="utf-8")
        return 0
    if path.is_file() and path.read_text(encoding="utf-8") == text():
        return 0
    sys.stderr.write(f"{path} is not what dashboard.py makes: run python -m deploy.grafana.dashboard\n")
    return 1


def _panels() -> list[Json]:
    """Rows and panels with their places: left to right, on the next line where the 24 columns are full."""
    placed: list[Json] = []
    y = 0
    for row, panels in ROWS.items():
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        placed.append(
            {
                "id": len(placed) + 1,
                "type": "row",
                "title": row,
                "collapsed": False,
                "gridPos": place,
                "panels": [],
            }
        )
        y += 1
        x = 0
        for panel in panels:
            if x + panel.width > COLUMNS:
                x, y = 0, y + HEIGHT
            place = {"x": x, "y": y, "w": panel.width, "h": HEIGHT}
            placed.append({"id": len(placed) + 1, "gridPos": place, **_panel(panel)})
            x += panel.width
        y += HEIGHT
    return placed


def _panel(panel: Panel) -> Json:
    kind, options, custom = _LOOKS[panel.kind]
    return {
        "type": kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": options | ({"yAxis": {"unit": panel.unit}} if kind == "heatmap" else {}),
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": DATASOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "range": panel.kind != "names",
                "instant": panel.kind == "names",
                "format": "heatmap" if kind == "heatmap" else "time_series",
            }
            for place, query in enumerate(panel.queries)
        ],
    }


_LEGEND = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
_LINES = {"legend": _LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}}
_LOOKS: dict[Kind, tuple[str, Json, Json]] = {
    # Kind: Grafana's panel type, its options, how its lines are drawn.
    "timeseries": ("timeseries", _LINES, {"drawStyle": "line", "fillOpacity": 8, "showPoints": "never"}),
    "stacked": (
        "timeseries",
        _LINES,
        {
            "drawStyle": "line",
            "fillOpacity": 30,
            "showPoints": "never",
            "stacking": {"mode": "normal", "group": "A"},
        },
    ),
    "bars": ("timeseries", _LINES, {"drawStyle": "bars", "fillOpacity": 60}),
    "heatmap": (
        "heatmap",
        {
            "calculate": False,  # the buckets are the histogram's own
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5},
            "legend": {"show": True},
            "tooltip": {"mode": "single"},
        },
        {},
    ),
    "names": (
        "stat",
        {
            "textMode": "name",
            "graphMode": "none",
            "colorMode": "none",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
        {},
    ),
}


def _datasource_variable() -> Json:
    return {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus"}


def _instance_variable() -> Json:
    definition = "label_values(nextclick_clicks_total, instance)"
    return {
        "type": "query",
        "name": "instance",
        "label": "Worker",
        "datasource": DATASOURCE,
        "definition": definition,
        "query": {"qryType": 1, "query": definition, "refId": "instance"},
        "refresh": 2,  # when the time range changes: workers come and go
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


if __name__ == "__main__":
    sys.exit(main())
