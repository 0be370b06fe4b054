"""Dagster's UI: everything materialized with one click, and what people see then."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from iv_pipeline.storage.layout import FILES
from iv_pipeline_tests.conftest import QUICK, Pipeline, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from iv_pipeline_tests.conftest import Visit

DESCRIPTORS = ("vdc_type", "vdc_color")
HASTY_DAEMON = """
import dagster._daemon.controller as controller
from dagster._daemon.cli import main
controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 1
main()
"""
"""The daemon as it is, but that it looks at backfills every second instead of every half minute."""
BY_BATCH = {"labelled_batch", "drift"}
"""Stages that are made as batches come: there have been none."""
LAUNCH = """
mutation Launch($backfillParams: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $backfillParams) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""

pytestmark = [pytest.mark.daemon]


@dataclass(frozen=True)
class UI:
    """A webserver and a daemon on a pipeline, and the backfill that filled it."""

    pipeline: Pipeline
    address: str
    status: str
    log: list[dg.EventLogRecord]

    def materialized(self, asset: str) -> list[float]:
        """When each partition of an asset was made, in seconds."""
        return [record.timestamp for record in self.records(asset)]

    def records(self, asset: str) -> list[dg.EventLogRecord]:
        return [r for r in self.log if r.asset_key and r.asset_key.to_user_string() == asset]


@pytest.fixture(scope="module")
def ui(make_pipeline: Callable[..., Pipeline]) -> Iterator[UI]:
    """The UI after "Materialize all" over an empty data root."""
    pipeline = make_pipeline(combinations={}, **QUICK)
    assert pipeline.command("iv-pipeline", "env").returncode == 0
    port = str(free_port())
    address = f"http://127.0.0.1:{port}"
    serve = ("dagster-webserver", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", port)
    with (
        pipeline.background(*serve),
        pipeline.background("python", "-c", HASTY_DAEMON, "run", "-w", "workspace.yaml"),
        pipeline.instance() as instance,
    ):
        wait_for("the webserver", lambda: is_up(address))
        backfill = materialize_all(address)
        wait_for("the backfill", lambda: status_of(instance, backfill) not in ("REQUESTED", "absent"))
        yield UI(pipeline, address, status_of(instance, backfill), materializations(instance))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def is_up(address: str) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) == 0


def materialize_all(address: str) -> str:
    """Ask for every asset and partition, as the button in the asset graph does; the backfill's name."""
    params = {"assetSelection": [{"path": [name]} for name in FILES], "allPartitions": True, "tags": []}
    body = json.dumps({"query": LAUNCH, "variables": {"backfillParams": params}})
    server = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    with contextlib.closing(server):
        server.request("POST", "/graphql", body, {"Content-Type": "application/json"})
        launched = json.load(server.getresponse())["data"]["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    return str(launched["backfillId"])


def status_of(instance: dg.DagsterInstance, backfill: str) -> str:
    found = instance.get_backfill(backfill)
    return found.status.value if found else "absent"


def materializations(instance: dg.DagsterInstance) -> list[dg.EventLogRecord]:
    keys = [dg.AssetKey(name) for name in FILES]
    return [record for key in keys for record in instance.fetch_materializations(key, limit=100).records]


def test_materialize_all_fills_an_empty_data_root(ui: UI) -> None:
    assert ui.status == "COMPLETED_SUCCESS"
    for asset in set(FILES) - BY_BATCH:
        for descriptor in DESCRIPTORS:
            assert ui.pipeline.path(asset, descriptor).is_file(), asset
    assert sorted(ui.pipeline.read("summary")["descriptor"]) == sorted(DESCRIPTORS)


def test_what_is_not_partitioned_is_made_once(ui: UI) -> None:
    for asset, path in FILES.items():
        times = 0 if asset in BY_BATCH else len(DESCRIPTORS) if "{descriptor}" in path else 1
        assert len(ui.materialized(asset)) == times, asset


def test_each_descriptor_is_made_in_one_run(ui: UI) -> None:
    partitioned = [asset for asset, path in FILES.items() if "{descriptor}" in path]
    runs = {(r.partition_key, r.run_id) for asset in partitioned for r in ui.records(asset)}
    assert len(runs) == len(DESCRIPTORS)


def test_the_summary_comes_after_every_descriptor(ui: UI) -> None:
    for asset in ("comparison", "attributes", "review", "summary", "report"):
        assert min(ui.materialized(asset)) > max(ui.materialized("final")), asset
    assert max(ui.materialized("image_index")) < min(ui.materialized("init"))


# ── in a browser ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def visit(ui: UI, browse: Callable[..., Visit]) -> Visit:
    return browse(base_url=ui.address, viewport={"width": 1600, "height": 1000})


@pytest.mark.browser
def test_the_asset_graph_shows_every_group(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    page.goto("/asset-groups")
    for group in ("delivery", "representation", "clustering", "outliers", "results"):
        page.get_by_text(group, exact=True).first.wait_for()
    page.screenshot(path=tmp_path / "graph.png")
    assert visit.errors == []


@pytest.mark.browser
def test_an_asset_s_page_shows_what_it_is_and_what_was_made(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    page.goto("/assets/clusters?view=overview")
    page.get_by_text("All images clustered by every algorithm", exact=False).first.wait_for()
    page.screenshot(path=tmp_path / "overview.png")
    page.goto("/assets/clusters?view=partitions&partition=vdc_color")
    page.get_by_text("peak_memory_mb").first.wait_for()
    page.screenshot(path=tmp_path / "partition.png")
    page.goto("/assets/clusters?view=checks")
    page.get_by_text("every_image_labelled").first.wait_for()
    page.screenshot(path=tmp_path / "checks.png")
    assert visit.errors == []
