"""What the inbox's sensor asks for, look by look, without a daemon."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd
import pytest
from upath import UPath

from iv_pipeline import processes
from iv_pipeline.assets.arrival import CONTENT_TAG
from iv_pipeline.automation.attempts import MAX_ATTEMPTS
from iv_pipeline.automation.inbox import BATCH_TAG, build_inbox_sensor, notice_batches
from iv_pipeline.automation.refits import build_refit_schedule, decide_on_refit
from iv_pipeline.automation.reports import refresh_report
from iv_pipeline.config import InboxConfig, PipelineConfig, RefitConfig, Settings
from iv_pipeline.errors import ConfigError
from iv_pipeline.processes import only_fit
from iv_pipeline.storage.layout import WATCH, file_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DONE, FAILED, STARTED = (
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.STARTED,
)


@dataclass(frozen=True)
class Sensor:
    """A data root with accepted models, and an instance that runs nothing."""

    root: Path
    instance: dg.DagsterInstance

    @property
    def settings(self) -> Settings:
        config = PipelineConfig.model_validate({"descriptors": {"x": "x.pickle"}})
        return Settings(UPath(self.root), UPath(self.root / "Intellivision_case"), config)

    def put(self, batch: str, content: str = "paths\na.jpg\n") -> None:
        folder = self.root / "Inbox" / batch
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "images_paths.csv").write_text(content)
        (folder / "_SUCCESS").touch()

    def look(self) -> list[dg.RunRequest]:
        return list(notice_batches(self.instance, self.settings).run_requests or [])

    def why(self) -> str:
        result = notice_batches(self.instance, self.settings)
        assert not result.run_requests
        return str(result.skip_reason.skip_message if result.skip_reason else "")

    def run(self, request: dg.RunRequest, status: dg.DagsterRunStatus) -> str:
        run = dg.DagsterRun(job_name="label_batch", status=status, tags=dict(request.tags))
        return self.instance.add_run(run).run_id

    def label(self, request: dg.RunRequest) -> None:
        self.run(request, DONE)
        path = self.root / file_of("labelled_batch", request.tags[BATCH_TAG])
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {
            "batch": request.tags[BATCH_TAG],
            "fingerprint": request.tags[CONTENT_TAG],
            "labelled_at": "2026-01-01T00:00:00+00:00",
        }
        path.write_text(json.dumps(facts))
        drift = self.root / file_of("drift", request.tags[BATCH_TAG])
        drift.parent.mkdir(exist_ok=True)
        pd.DataFrame({"labelled_at": [facts["labelled_at"]]}).to_parquet(drift)


@pytest.fixture
def sensor(tmp_path: Path) -> Iterator[Sensor]:
    (tmp_path / "Inbox").mkdir()
    (tmp_path / "Models").mkdir()
    accepted = {"version": 1, "models": {"x": "0" * 16}, "batches": []}
    (tmp_path / file_of("accepted_models")).write_text(json.dumps(accepted))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Sensor(tmp_path, instance)


def test_a_complete_batch_gets_a_partition_and_a_run(sensor: Sensor) -> None:
    sensor.put("monday")
    result = notice_batches(sensor.instance, sensor.settings)
    (request,) = result.run_requests or []
    assert request.partition_key == "monday"
    assert request.run_key == f"monday:{request.tags[CONTENT_TAG]}"
    (added,) = result.dynamic_partitions_requests or []
    assert added.partition_keys == ["monday"]


def test_two_batches_get_a_run_each(sensor: Sensor) -> None:
    sensor.put("monday")
    sensor.put("tuesday")
    assert [request.partition_key for request in sensor.look()] == ["monday", "tuesday"]


def test_a_batch_is_asked_for_under_one_key_however_often_it_is_seen(sensor: Sensor) -> None:
    sensor.put("monday")
    keys = {request.run_key for _ in range(3) for request in sensor.look()}
    assert len(keys) == 1  # Dagster starts one run for a key


@pytest.mark.parametrize("status", [STARTED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING])
def test_a_batch_that_is_being_labelled_is_waited_for(sensor: Sensor, status: dg.DagsterRunStatus) -> None:
    sensor.put("monday")
    run = sensor.run(*sensor.look(), status)
    assert sensor.why() == f"monday: run {run[:8]} is under way"


def test_a_batch_that_was_labelled_is_done_also_for_a_new_instance(sensor: Sensor) -> None:
    sensor.put("monday")
    sensor.label(*sensor.look())
    assert sensor.why() == "nothing new in the inbox"
    with dg.DagsterInstance.ephemeral() as another:
        assert not notice_batches(another, sensor.settings).run_requests


def test_a_data_root_that_was_copied_labels_nothing_again(sensor: Sensor) -> None:
    sensor.put("monday")
    sensor.label(*sensor.look())
    os.utime(sensor.root / file_of("drift", "monday"), (0, 0))  # copied before the labels
    assert sensor.why() == "nothing new in the inbox"


def test_labels_whose_drift_was_measured_of_others_are_not_done(sensor: Sensor) -> None:
    sensor.put("monday")
    sensor.label(*sensor.look())
    path = sensor.root / file_of("labelled_batch", "monday")
    path.write_text(json.dumps({**json.loads(path.read_text()), "labelled_at": "2026-01-02T00:00:00+00:00"}))
    assert len(sensor.look()) == 1


def test_a_batch_whose_run_died_before_its_drift_was_measured_is_not_done(sensor: Sensor) -> None:
    sensor.put("monday")
    (request,) = sensor.look()
    sensor.label(request)
    (sensor.root / file_of("drift", "monday")).unlink()
    (again,) = sensor.look()
    assert again.tags == request.tags


def test_other_content_is_another_run(sensor: Sensor) -> None:
    sensor.put("monday")
    (first,) = sensor.look()
    sensor.label(first)
    sensor.put("monday", "paths\nb.jpg\n")
    (second,) = sensor.look()
    assert second.run_key != first.run_key
    assert second.partition_key == "monday"


def test_content_that_comes_back_after_other_content_is_labelled_again(sensor: Sensor) -> None:
    sensor.put("monday")
    (first,) = sensor.look()
    sensor.label(first)
    sensor.put("monday", "paths\nb.jpg\n")
    sensor.label(*sensor.look())
    sensor.put("monday")
    (again,) = sensor.look()
    assert again.tags == first.tags
    assert again.run_key != first.run_key


def test_a_run_that_died_is_started_again_a_few_times(sensor: Sensor) -> None:
    sensor.put("monday")
    keys = []
    for _ in range(MAX_ATTEMPTS):
        (request,) = sensor.look()
        keys.append(request.run_key)
        sensor.run(request, FAILED)  # without a failed step: its process went
    assert len(set(keys)) == MAX_ATTEMPTS
    assert f"its run died {MAX_ATTEMPTS} times" in sensor.why()


def test_a_run_that_a_person_terminated_stays_terminated(sensor: Sensor) -> None:
    sensor.put("monday")
    sensor.run(*sensor.look(), dg.DagsterRunStatus.CANCELED)
    assert "start it again in the UI" in sensor.why()


def test_a_batch_that_waits_says_what_for(sensor: Sensor) -> None:
    sensor.put("monday")
    (sensor.root / "Inbox" / "monday" / "x.pickle.part").touch()
    assert sensor.why() == "monday: x.pickle.part is still being copied"


def test_batches_wait_for_the_first_models(sensor: Sensor) -> None:
    sensor.put("monday")
    (sensor.root / file_of("accepted_models")).unlink()
    assert "wait for models; run the pipeline" in sensor.why()


def test_without_an_inbox_it_says_how_to_get_one(sensor: Sensor) -> None:
    (sensor.root / "Inbox").rmdir()
    assert sensor.why() == f"there is no inbox at {sensor.root}/Inbox; make the folder to use it"


def test_an_inbox_that_cannot_be_read_is_told_and_no_empty_one(
    sensor: Sensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: UPath) -> Iterator[UPath]:
        raise PermissionError(13, "Permission denied")

    sensor.put("monday")
    monkeypatch.setattr(type(sensor.settings.inbox), "iterdir", refuse)
    assert (
        sensor.why() == f"{sensor.root}/Inbox: the inbox cannot be read (Permission denied); make it readable"
    )


def test_a_disk_that_cannot_be_used_is_told_and_tried_again(sensor: Sensor) -> None:
    sensor.put("monday")
    (sensor.root / WATCH).mkdir(parents=True)  # where a file should be
    inbox = build_inbox_sensor(InboxConfig())
    context = dg.build_sensor_context(instance=sensor.instance, resources={"settings": sensor.settings})
    skipped = inbox(context)
    assert str(skipped.skip_reason.skip_message).startswith(f"{sensor.root / WATCH}: ")
    (sensor.root / WATCH).rmdir()
    assert inbox(context).run_requests


# ── the schedule ─────────────────────────────────────────────────────────────────────────────────────────────


def test_without_new_batches_the_refit_is_skipped(sensor: Sensor) -> None:
    found = decide_on_refit(sensor.instance, sensor.settings)
    assert isinstance(found, dg.SkipReason)
    assert found.skip_message == "no batch with all descriptors has come since the last fit"


def test_a_refit_does_not_start_beside_a_run_of_the_pipeline(sensor: Sensor) -> None:
    sensor.instance.add_run(dg.DagsterRun(job_name="full_pipeline", status=STARTED))
    found = decide_on_refit(sensor.instance, sensor.settings)
    assert isinstance(found, dg.SkipReason)
    assert "full_pipeline is under way" in str(found.skip_message)


@pytest.mark.parametrize(
    ("asset", "counts_as"), [("clusters", "full_pipeline"), ("report", ""), ("labelled_batch", "")]
)
def test_assets_that_were_chosen_one_by_one_count_as_the_job_that_makes_them(
    sensor: Sensor, asset: str, counts_as: str
) -> None:
    chosen = frozenset({dg.AssetKey(asset)})
    sensor.instance.add_run(dg.DagsterRun(job_name="__ASSET_JOB", status=STARTED, asset_selection=chosen))
    with only_fit(sensor.instance) as busy:
        assert busy == counts_as


def test_a_refit_does_not_start_beside_a_command_that_makes_a_fit(
    sensor: Sensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "MOMENT", 0.1)
    with only_fit(sensor.instance) as busy:
        assert busy == ""
        assert "another run, refit or rollback is under way" in str(
            decide_on_refit(sensor.instance, sensor.settings)
        )
    assert "no batch" in str(decide_on_refit(sensor.instance, sensor.settings))


def test_a_schedule_that_is_none_is_told() -> None:
    with pytest.raises(ConfigError, match="'weekly' is no cron expression"):
        build_refit_schedule(RefitConfig(schedule="weekly"))


# ── the report ───────────────────────────────────────────────────────────────────────────────────────────────


def of_report(sensor: Sensor) -> list[dg.RunRequest] | str:
    """What the sensor of the report asks for, or why it asks for nothing."""
    result = refresh_report(sensor.instance, sensor.settings)
    return result.run_requests or str(result.skip_reason.skip_message if result.skip_reason else "")


@pytest.fixture
def older_report(sensor: Sensor) -> Sensor:
    """A report of a minute before a batch was labelled."""
    for stage, partition, age in (("report", None, 60), ("drift", "monday", 0)):
        file = sensor.root / file_of(stage, partition)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (time.time() - age,) * 2)
    os.utime(sensor.root / file_of("accepted_models"), (time.time() - 120,) * 2)
    return sensor


def test_a_report_is_made_anew_once_for_what_came(older_report: Sensor) -> None:
    (request,), (again,) = of_report(older_report), of_report(older_report)
    assert request.run_key == again.run_key
    older_report.run(request, DONE)
    (older_report.root / file_of("report")).touch()
    assert of_report(older_report) == "the report tells all there is"


def test_a_report_waits_until_nothing_is_made(older_report: Sensor) -> None:
    older_report.instance.add_run(dg.DagsterRun(job_name="refit", status=STARTED))
    assert of_report(older_report) == "refit is under way"


def test_a_report_whose_run_died_is_made_again_a_few_times(older_report: Sensor) -> None:
    keys = []
    for _ in range(MAX_ATTEMPTS):
        (request,) = of_report(older_report)
        keys.append(request.run_key)
        older_report.run(request, FAILED)  # without a failed step: its process went
    assert len(set(keys)) == MAX_ATTEMPTS
    assert f"its run died {MAX_ATTEMPTS} times" in of_report(older_report)


def test_there_is_no_report_before_the_first_summary(sensor: Sensor) -> None:
    assert of_report(sensor) == "there is no report yet: 'summarise' makes the first"
