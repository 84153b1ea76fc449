"""Dashboard and alerts ask only for what a live worker's /metrics has."""

import itertools
import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
from confluent_kafka.admin import AdminClient
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

import deploy
from deploy.grafana.dashboard import COLUMNS, PATH, dashboard, main, text
from deploy.topic_admin import create_topics
from schemas.click import Click
from schemas.topics import TopicNames, topic_specs
from tests.support.artefacts import write_random_model
from tests.support.kafka_io import send_clicks, send_records
from tests.support.worker_process import WarmWorkerProcess, prefixed_topics
from training.announce import announce
from worker.shell.http import StatusServer
from worker.shell.metrics import WorkerMetrics

ALERTS = Path(deploy.__file__).parent / "prometheus" / "alerts.yml"
ALERT_TESTS = ALERTS.with_name("alerts_test.yml")
ADDED_BY_PROMETHEUS = {"job", "instance"}
ITEMS = [f"item-{number}" for number in range(50)]

Labels = dict[str, set[str]]
"""Label names by metric name."""


def panels() -> list[dict[str, Any]]:
    """The panels in the file, without the rows' headings."""
    return [panel for panel in json.loads(PATH.read_text())["panels"] if panel["type"] != "row"]


def dashboard_queries() -> list[tuple[str, str]]:
    """Expression and legend of each query in the file, Grafana's variables filled in."""
    return [
        (target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*"), target["legendFormat"])
        for panel in panels()
        for target in panel["targets"]
    ]


def alert_expressions() -> list[str]:
    """What stands behind `expr:` in the alert rules, on its own line or in a block below."""
    found = []
    lines = ALERTS.read_text().splitlines()
    for number, line in enumerate(lines):
        if (match := re.fullmatch(r"( +)expr: (.+)", line)) is None:
            continue
        deeper = re.compile(match[1] + "  ")
        block = itertools.takewhile(deeper.match, lines[number + 1 :])
        found.append("\n".join(block) if match[2] == "|" else match[2])
    return found


def nodes(tree: promql.Expr) -> list[promql.Expr]:
    """All nodes of a parsed expression."""
    found: list[promql.Expr] = []
    promql.walk(tree, pre_visit=found.append)
    return found


def asked_metrics(tree: promql.Expr) -> Labels:
    """Metrics that an expression asks for, with the labels that it selects or groups them by."""
    asked: Labels = {}
    for node in nodes(tree):
        if isinstance(node, promql.VectorSelector):
            assert node.name is not None
            asked.setdefault(node.name, set()).update(matcher.name for matcher in node.matchers.matchers)
    for node in nodes(tree):
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            for below in nodes(node.expr):
                if isinstance(below, promql.VectorSelector) and below.name is not None:
                    asked[below.name].update(node.modifier.labels)
    return asked


def shown_metrics(exposition: str) -> Labels:
    """Metrics in the text of a /metrics page, with their labels."""
    shown: Labels = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            shown.setdefault(sample.name, set()).update(sample.labels)
    return shown


def assert_all_there(exposition: str) -> None:
    """Every metric and label that dashboard and alerts ask for is on this page."""
    shown = shown_metrics(exposition)
    expressions = [expr for expr, _ in dashboard_queries()] + alert_expressions()
    for expression in expressions:
        for name, labels in asked_metrics(promql.parse(expression)).items():
            if name != "up":  # Prometheus' own
                assert name in shown, expression
                assert labels - ADDED_BY_PROMETHEUS <= shown[name], expression


@pytest.fixture
def exposition() -> str:
    """What a live server with a worker's metrics answers on /metrics."""
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry)
    metrics.consumer_lag.labels("0").set(3)  # these two have no series before a partition or a model is there
    metrics.model_info.labels("m1").set(1)
    server = StatusServer("127.0.0.1", 0, registry, {})
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())
    finally:
        server.close()


def test_a_worker_has_every_metric_and_label_that_is_asked_for(exposition: str) -> None:
    assert_all_there(exposition)


def test_every_metric_of_the_worker_is_on_the_dashboard(exposition: str) -> None:
    asked = {name for expr, _ in dashboard_queries() for name in asked_metrics(promql.parse(expr))}
    for family in text_string_to_metric_families(exposition):
        names = {sample.name for sample in family.samples}
        if not family.name.endswith("_created"):
            assert names & asked, f"{family.name} is on no panel"


def test_a_legend_names_only_labels_that_its_lines_have() -> None:
    for expr, legend in dashboard_queries():
        tree = promql.parse(expr)
        kept = {
            label
            for node in nodes(tree)
            if isinstance(node, promql.AggregateExpr) and node.modifier is not None
            for label in node.modifier.labels
        }
        assert set(re.findall(r"{{(\w+)}}", legend)) <= kept, (expr, legend)


def test_the_file_is_what_the_table_says() -> None:
    assert PATH.read_text() == text(), "run python -m deploy.grafana.dashboard"


def test_check_tells_a_file_that_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "board.json"
    assert main(["--check"], path) == 1
    assert "run python -m deploy.grafana.dashboard" in capsys.readouterr().err
    assert main([], path) == 0
    assert main(["--check"], path) == 0
    path.write_text(path.read_text().replace('"cps"', '"rps"', 1))
    assert main(["--check"], path) == 1


def test_panels_fill_the_grid_without_overlap() -> None:
    board = dashboard()
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        cells = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
            )
        )
        assert not cells & taken, panel["title"]
        taken |= cells
    identifiers = [panel["id"] for panel in board["panels"]]
    assert len(set(identifiers)) == len(identifiers)


def test_everything_asks_the_chosen_data_source_for_the_chosen_workers() -> None:
    for panel in panels():
        for target in panel["targets"]:
            assert (
                target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            )
            selectors = [
                node
                for node in nodes(promql.parse(target["expr"].replace("$__rate_interval", "1m")))
                if isinstance(node, promql.VectorSelector)
            ]
            assert selectors
            for selector in selectors:
                assert [m.value for m in selector.matchers.matchers if m.name == "instance"] == ["$instance"]


def test_every_alert_says_how_bad_it_is_and_what_to_do_and_is_tested() -> None:
    rules = ALERTS.read_text()
    names = re.findall(r"- alert: (\w+)", rules)
    assert len(names) == len(set(names)) == len(alert_expressions()) >= 7
    for word in ("severity: ", "summary: ", "description: "):
        assert len(re.findall(rf"^ +{word}", rules, re.MULTILINE)) == len(names), word
    for name in names:
        assert name in ALERT_TESTS.read_text()


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (apt install prometheus)"
)
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", ALERTS.with_name("prometheus.yml")),
        ("check", "rules", ALERTS),
        ("test", "rules", ALERT_TESTS),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool_agrees(arguments: tuple[str | Path, ...]) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def topics(bootstrap: str, topic_prefix: str, admin: AdminClient) -> Iterator[TopicNames]:
    """The five topics of one test, the clicks in one partition."""
    names = prefixed_topics(topic_prefix)
    specs = topic_specs(names, partitions=1, clicks_retention_ms=-1)
    create_topics({"bootstrap.servers": bootstrap}, specs, replication=1)
    yield names
    for future in admin.delete_topics([spec.name for spec in specs]).values():
        future.result(30)


def values(exposition: str) -> dict[str, float]:
    """Values of a /metrics page by `name{label="value"}`, as it stands there."""
    lines = (line.rpartition(" ") for line in exposition.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def wait_for(worker: WarmWorkerProcess, name: str, value: float) -> dict[str, float]:
    """Scrape until a metric has this value; returns all values."""
    deadline_s = time.monotonic() + 60
    while (found := values(worker.get("/metrics")[1])).get(name) != value:
        assert time.monotonic() < deadline_s, f"{name} is {found.get(name)}\n{worker.log()}"
        time.sleep(0.05)
    return found


@pytest.mark.broker
def test_a_real_worker_counts_what_was_sent(
    bootstrap: str, topic_prefix: str, topics: TopicNames, tmp_path: Path
) -> None:
    folder = write_random_model(tmp_path / "m1", ITEMS, hidden_size=16, seed=1, version="m1")
    announce({"bootstrap.servers": bootstrap}, topics.models, folder)
    now_ms = time.time_ns() // 1_000_000
    clicks = [Click(f"e{n}", f"s{n % 7}", ITEMS[n * n % 50], now_ms + n) for n in range(200)]
    late = Click("late", "s0", ITEMS[0], now_ms - 1)
    bad: list[tuple[str | None, bytes | None]] = [("k", b"{"), ("k", b"{}"), ("k", b"{}"), ("k", None)]
    with WarmWorkerProcess(bootstrap, topic_prefix, ["--max-sessions", "1000"]) as worker:
        worker.wait_ready("m1")
        send_clicks(bootstrap, topics.clicks, [*clicks, late])
        send_records(bootstrap, topics.clicks, bad)
        wait_for(worker, "nextclick_batch_clicks_sum", 205)
        found = wait_for(worker, "nextclick_sessions_live", 7)
        found = wait_for(worker, 'nextclick_consumer_lag{partition="0"}', 0)
        assert_all_there(worker.get("/metrics")[1])
        assert worker.terminate() == 0
    expected = {
        "nextclick_clicks_total": 201,
        'nextclick_recommendations_total{source="model"}': 201,
        'nextclick_recommendations_total{source="popular"}': 0,
        'nextclick_dead_letters_total{reason="malformed"}': 1,
        'nextclick_dead_letters_total{reason="invalid"}': 2,
        'nextclick_dead_letters_total{reason="tombstone"}': 1,
        'nextclick_dead_letters_total{reason="oversized"}': 0,
        "nextclick_late_clicks_total": 1,
        "nextclick_click_to_recommendation_seconds_count": 201,
        'nextclick_click_to_recommendation_seconds_bucket{le="+Inf"}': 201,
        'nextclick_judged_clicks_total{source="model"}': 201 - 7,  # the first of a session cannot be judged
        'nextclick_judged_clicks_total{source="popular"}': 0,
        "nextclick_sessions_max": 1_000,
        "nextclick_assigned_partitions": 1,
        'nextclick_model_info{model_version="m1"}': 1,
        "nextclick_model_swaps_total": 1,
        "nextclick_model_refusals_total": 0,
    }
    assert {name: found.get(name) for name in expected} == expected
    hits = found['nextclick_hits_total{source="model"}']
    assert 0 < hits < 194  # 20 of 50 random items: about 78
    assert hits / 20 <= found['nextclick_reciprocal_ranks_total{source="model"}'] <= hits
    batches = found["nextclick_batch_clicks_count"]
    for stage in ("decode", "advance", "publish"):
        assert found[f'nextclick_stage_seconds_count{{stage="{stage}"}}'] == batches
    assert 0 <= found["nextclick_turn_age_seconds"] < 30


@pytest.mark.broker
def test_a_worker_is_ready_only_once_it_has_partitions(
    bootstrap: str, topic_prefix: str, topics: TopicNames
) -> None:
    """Two workers for one partition: the second is healthy but not ready, until the first leaves."""
    with (
        WarmWorkerProcess(bootstrap, topic_prefix) as first,
        WarmWorkerProcess(bootstrap, topic_prefix) as second,
    ):
        owner, spare = _owner_and_spare(first, second)
        status, body = spare.get("/readyz")
        assert (status, json.loads(body)["partitions"]) == (503, [])
        assert spare.get("/healthz")[0] == 200
        assert spare.get("/ready")[0] == 404
        assert values(spare.get("/metrics")[1])["nextclick_assigned_partitions"] == 0
        assert owner.terminate() == 0
        assert spare.wait_ready()["partitions"] == [0]
        wait_for(spare, "nextclick_assigned_partitions", 1)


def _owner_and_spare(
    first: WarmWorkerProcess, second: WarmWorkerProcess
) -> tuple[WarmWorkerProcess, WarmWorkerProcess]:
    """Which of the two got the one partition, once one of them has."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        for owner, spare in ((first, second), (second, first)):
            if owner.get("/readyz")[0] == 200:
                return owner, spare
        time.sleep(0.05)
    raise AssertionError(f"no worker got the partition\n{first.log()}\n{second.log()}")
