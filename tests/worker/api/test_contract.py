"""The service keeps its own OpenAPI description, whatever is sent: generated requests by schemathesis."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.worker.api.conftest import MakeWorld, World

QUICK = (
    "/openapi/v2/text-to-3d",
    "/openapi/v1/remesh/{task_id}",
    "/openapi/v1/retexture",
    "/openapi/v1/uv-unwrap",
    "/v1/jobs/{job_id}/retexture",
    "/v1/jobs",
    "/v1/jobs/{job_id}/pick",
    "/v1/batches",
    "/v1/uploads",
    "/a/{sha256}/{name}",
    "/v1/session",
)


def run_contract(world: World, paths: tuple[str, ...] | None, examples: int) -> list[str]:
    """Violations found; `examples` requests for every operation."""
    job = world.client.post("/v1/jobs", json={"prompt": "a crate", "preset": "draft", "variants": 2}).json()
    world.worker.work()
    schema = schemathesis.openapi.from_asgi("/openapi.json", world.app)
    found: list[str] = []
    for result in schema.get_all_operations():
        operation = result.ok()
        if paths is not None and operation.path not in paths:
            continue

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
        )
        def check(case: Any) -> None:
            # Half of the requests reach a job that is there.
            for name in ("job_id", "task_id"):
                if name in (case.path_parameters or {}) and len(str(case.path_parameters[name])) % 2:
                    case.path_parameters[name] = job["id"]
            # Values may be wrong in ways that JSON Schema cannot say (a picture that is none, a private
            # address): 422 with a message is then right, and documented.
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        strategy = operation.as_strategy()

        try:
            given(case=strategy)(check)()
        except BaseExceptionGroup as group:
            found += [f"{operation.label}: {error}" for error in group.exceptions]
        except AssertionError as error:
            found.append(f"{operation.label}: {error}")
        except Exception as error:
            found.append(f"{operation.label}: {type(error).__name__}: {error}")
    return found


@pytest.fixture
def open_world(make_world: MakeWorld) -> World:
    return make_world(base="http://testserver", hosts=("testserver",), keys="off", max_active_jobs=10**6)


def test_the_contract_is_kept_in_short(open_world: World):
    found = run_contract(open_world, QUICK, 6)
    assert not found, "\n\n".join(found)


@pytest.mark.slow
def test_the_contract_is_kept(open_world: World):
    found = run_contract(open_world, None, 40)
    assert not found, "\n\n".join(found)


def test_every_operation_is_described(open_world: World):
    schema = open_world.client.get("/openapi.json").json()
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation.get("description") or operation.get("summary"), where
            assert any(status.startswith("2") for status in operation["responses"]), where
            assert operation["tags"], where
    names = [op["operationId"] for ops in schema["paths"].values() for op in ops.values()]
    assert len(set(names)) == len(names)
