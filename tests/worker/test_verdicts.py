"""Verdicts of safety policies: a refusal in a stage is stored with its job, which is not tried again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.safety import RefusedError, Verdict
from worker import verdicts
from worker.database import Database
from worker.jobs import Jobs, Submission
from worker.kinds import Plan, PlannedStage
from worker.migrate import migrate
from worker.runner import Runner, Work
from worker.settings import load_settings
from worker.store import store_at

PASSED = Verdict(True, "offline-1", score=0.2)
REFUSED = Verdict(False, "studio-3", "gore", "blood 0.90, refused from 0.5", 0.9, subject="views")


class Refusing:
    """A kind whose one stage is refused after its prompt has passed."""

    name = "refusing"

    def plan(self, params: Mapping[str, Any], inputs: Mapping[str, str], device: str) -> Plan:
        return Plan({}, 0, (PlannedStage("views", "gpu", 1.0),))

    def run(self, stage: str, work: Work) -> None:
        work.note([PASSED])
        raise RefusedError(REFUSED)


def test_a_refusal_in_a_stage_ends_the_job_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = load_settings(data=tmp_path, device="cpu", min_free_bytes=0)
    database = Database(settings.database)
    migrate(database)
    for module in ("worker.admission", "worker.runner"):
        monkeypatch.setattr(f"{module}.kind_named", lambda *asked: Refusing())
    jobs = Jobs(database, store_at(settings), settings)
    job_id = jobs.submit(Submission("refusing", {}), owner="me").job_id
    runner = Runner(settings)
    assert runner.run_next("gpu")[0] is not None
    assert runner.run_next("gpu")[0] is None
    ended = jobs.get(job_id)
    found = verdicts.of(database, job_id)
    for one in (database, runner.database):
        one.close()
    assert (ended.state, ended.error_class, ended.stages[0].attempts) == ("failed", "input", 1)
    assert ended.error is not None
    assert ended.error.startswith(
        "Refused by the safety policy 'studio-3' (gore): what was made was screened"
    )
    assert found == [PASSED, REFUSED]


def test_long_words_of_a_policy_are_cut(tmp_path: Path):
    settings = load_settings(
        data=tmp_path, device="cpu", min_free_bytes=0, kinds=("tests.worker.probe:PROBE",)
    )
    database = Database(settings.database)
    migrate(database)
    job_id = Jobs(database, store_at(settings), settings).submit(Submission("probe", {}), owner="me").job_id
    verdicts.note(database, job_id, [Verdict(False, "p" * 200, "c" * 200, "r" * 2000, 1.0)])
    one = verdicts.of(database, job_id)[0]
    database.close()
    assert [len(text or "") for text in (one.policy, one.category, one.reason)] == [80, 40, 300]
