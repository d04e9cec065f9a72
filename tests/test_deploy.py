"""The files of `deploy/` against the code: all settings, metrics, extras and services they name exist."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from pipeline.consistency import Consistency
from pipeline.models import revision_of
from worker import queue
from worker.api.config import ApiConfig
from worker.database import Database
from worker.jobs import Jobs, Submission
from worker.metrics import bucket_of, exposition
from worker.migrate import migrate
from worker.quality import NUMBERS, count_asset, numbers_of
from worker.queue import Outcome
from worker.settings import Settings, load_settings
from worker.store import store_at

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
COMPOSE = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
SETTINGS = {f"MAQUETTE_{name}".upper() for name in Settings.model_fields} | {
    f"MAQUETTE_API_{name}".upper() for name in ApiConfig.model_fields
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE)


@pytest.mark.parametrize(
    "path", ["Dockerfile", "deploy/compose.yaml", "deploy/example.env", "docs/deploy.md"]
)
def test_every_setting_that_is_named_exists(path: str):
    named = set(re.findall(r"\bMAQUETTE_[A-Z0-9_]+", (ROOT / path).read_text(encoding="utf-8")))
    assert named
    assert named <= SETTINGS


def test_the_example_has_every_variable_and_no_other():
    example = (DEPLOY / "example.env").read_text(encoding="utf-8")
    assigned = set(re.findall(r"^([A-Z0-9_]+)=", example, re.MULTILINE))
    used = set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)", COMPOSE))
    assert assigned - {"COMPOSE_PROFILES"} == used
    secret = {name for name in assigned if re.search("SECRET|PASSWORD", name)}
    assert not re.search(rf"^({'|'.join(secret)})=.+", example, re.MULTILINE)  # nothing to forget to change
    assert all(f"${{{name}:?" in COMPOSE for name in secret)


def test_services_refer_to_what_is_there(compose: dict[str, Any]):
    services, profiles = compose["services"], {"cpu", "gpu"}
    targets = set(
        re.findall(r"^FROM \S+ AS (\w+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services), name
        assert set(service["networks"]) <= set(compose["networks"]), name
        assert set(service.get("profiles", ())) <= profiles, name
        assert set(service.get("secrets", ())) <= set(compose["secrets"]), name
        assert not service.get("privileged"), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (DEPLOY / source).exists() if source[0] == "." else source in compose["volumes"], volume
        if "build" in service:
            assert service["build"]["target"] in targets
            assert service["image"] == f"maquette:{service['build']['target']}"
            assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
        else:
            assert re.search(r":[v\d]", service["image"]), f"{name}: a version, not latest"
    # Either profile has a worker for each queue.
    for profile in profiles:
        commands = [
            service.get("command", [])
            for service in services.values()
            if profile in service.get("profiles", [profile])
        ]
        for name in ("gpu", "cpu"):
            assert [*["maquette", "worker", "--queue"], name] in commands
    for service in services.values():
        if service.get("command", [""])[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(service["command"][2]) is not None


def test_workers_have_the_time_to_give_their_stage_back(compose: dict[str, Any]):
    needs_s = load_settings().stop_grace_s + 10  # as in worker/commands/worker.py
    for name in ("worker-cpu", "worker-gpu", "worker-draw"):
        assert float(compose["services"][name]["stop_grace_period"].removesuffix("s")) > needs_s


def test_the_image_has_all_it_is_made_of():
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = {extra for found in re.findall(r"'\.\[([\w,]+)\]'", dockerfile) for extra in found.split(",")}
    assert {"postgres", "redis", "s3"} <= extras <= set(project["project"]["optional-dependencies"])
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    sent = {line[1:] for line in ignore if line.startswith("!")}
    folders = {"assets": "maquette_assets", "configs": "maquette_configs"}
    for package in project["tool"]["setuptools"]["packages"]:
        top = package.partition(".")[0]
        assert {top, *(folder for folder, name in folders.items() if name == top)} & sent, package
    for line in re.findall(r"^COPY (?!--)(.+) \S+$", dockerfile, re.MULTILINE):
        for path in line.split():
            assert path == "." or any(fnmatch(path, one) or path.startswith(f"{one}/") for one in sent), path
    system = (ROOT / "scripts" / "system-packages.sh").read_text(encoding="utf-8")
    for library in re.findall(r"missing \b(lib[\w.-]+)\"", system.replace("$missing ", "missing ")):
        assert library in dockerfile, library
    assert re.search(r"^USER maquette$", dockerfile, re.MULTILINE)
    assert dockerfile.index("HEALTHCHECK") < dockerfile.index("AS cuda")  # both targets have it


def test_prometheus_asks_with_a_key_and_grafana_asks_prometheus(compose: dict[str, Any]):
    scrape = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"][0]
    host, _, port = scrape["static_configs"][0]["targets"][0].partition(":")
    assert (host in compose["services"], port, scrape["metrics_path"]) == (True, "8000", "/metrics")
    secret = scrape["authorization"]["credentials_file"].removeprefix("/run/secrets/")
    assert secret in compose["services"]["prometheus"]["secrets"]
    provisioning = DEPLOY / "grafana" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text(encoding="utf-8"))
    board = json.loads((DEPLOY / "grafana" / "dashboards" / "maquette.json").read_text(encoding="utf-8"))
    uids = {panel["datasource"]["uid"] for panel in board["panels"]}
    assert uids == {source["datasources"][0]["uid"]}
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((provisioning / "dashboards" / "maquette.yaml").read_text(encoding="utf-8"))
    folder = provider["providers"][0]["options"]["path"]
    assert f"./grafana/dashboards:{folder}:ro" in compose["services"]["grafana"]["volumes"]


def test_every_metric_of_the_dashboard_is_exported_with_its_labels(tmp_path: Path):
    labels = exported_labels(tmp_path)
    board = json.loads((DEPLOY / "grafana" / "dashboards" / "maquette.json").read_text(encoding="utf-8"))
    shown: set[str] = set()
    for panel in board["panels"]:
        for target in panel["targets"]:
            names = re.findall(r"\bmaquette_\w+", target["expr"])
            assert names, panel["title"]
            for name in names:
                assert name in labels, f"{panel['title']}: {name}"
            asked = set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", target["expr"]))
            assert asked_numbers(target["expr"]) <= set(NUMBERS), panel["title"]
            by = ", ".join(re.findall(r"by \(([\w, ]+)\)", target["expr"]))
            grouped = set(by.split(", ")) - {""}
            for label in asked | grouped:
                assert all(label in labels[name] for name in names), f"{panel['title']}: {label}"
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= grouped
            shown |= set(names)
    # A family that is shown need not be shown by each of its parts.
    part = re.compile(r"_(bucket|count|sum)$")
    assert {part.sub("", n) for n in labels} == {part.sub("", n) for n in shown}, "exported and not shown"
    places = [tuple(panel["gridPos"][key] for key in "xywh") for panel in board["panels"]]
    cells = [(i, j) for x, y, w, h in places for i in range(x, x + w) for j in range(y, y + h)]
    assert len(cells) == len(set(cells))
    assert max(i for i, _ in cells) == 23


REPORT = {
    "preset": "draft",
    "asset": {
        "watertight": True, "manifold": True, "components": 1, "triangles": 900, "uv_coverage": 0.5,
        "texel_density_median": 300.0,
    },
    "views": {
        "consistency": {"geometry": 0.9, "color": 0.9, "framing": 1.0, "shape": 0.8, "connected": 1.0},
        "domain_score": 0.5,
        "in_domain": True,
    },
    "stages": [{"name": "views", "seconds": 2.0}, {"name": "field", "seconds": 3.5}],
}  # fmt: skip


def asked_numbers(expression: str) -> set[str]:
    """Of the assets' quality."""
    named = re.findall(r'number=~?"([\w|]+)"', expression)
    return {number for one in named for number in one.split("|")}


def test_the_numbers_of_a_report_are_counted():
    numbers = numbers_of(REPORT)
    assert set(numbers) == set(NUMBERS)
    assert numbers["views_agree"] == pytest.approx(0.8 * 0.9)
    assert (numbers["work_seconds"], numbers["watertight"], numbers["triangles"]) == (5.5, 1.0, 900.0)
    # A reconstruction has no prompt, an odd report nothing at all.
    views = {**REPORT["views"], "domain_score": None}
    assert "domain_score" not in numbers_of({**REPORT, "views": views})
    assert numbers_of({"asset": {"triangles": float("nan")}, "views": None, "stages": []}) == {}


def test_the_score_is_that_of_the_pipeline():
    consistency = REPORT["views"]["consistency"]
    assert numbers_of(REPORT)["views_agree"] == pytest.approx(Consistency(**consistency).score)


def test_averages_are_sums_by_revision(tmp_path: Path):
    database = Database(load_settings(data=tmp_path).database)
    migrate(database)
    for triangles, weights in ((900, "a"), (1100, "a"), (500, "b")):
        report = {**REPORT, "asset": {"triangles": triangles}}
        count_asset(database, report, {"transformer": weights})
    families = {f.name: f for f in text_string_to_metric_families(exposition(database).decode())}
    found: dict[tuple[str, str], float] = {}
    for sample in families["maquette_asset_quality"].samples:
        if sample.labels["number"] == "triangles":
            found[sample.labels["revision"], sample.name.rpartition("_")[2]] = sample.value
    database.close()
    a, b = revision_of({"transformer": "a"}), revision_of({"transformer": "b"})
    assert found == {(a, "count"): 2, (a, "sum"): 2000, (b, "count"): 1, (b, "sum"): 500}


def test_durations_rise_to_the_number_of_attempts(tmp_path: Path):
    families = {f.name: f for f in text_string_to_metric_families(exported(tmp_path))}
    samples = families["maquette_stage_duration_seconds"].samples
    rising = [s.value for s in samples if s.name.endswith("_bucket")]
    assert rising == sorted(rising)
    assert rising[-1] == 1 == next(s.value for s in samples if s.name.endswith("_count"))
    assert [s.labels["le"] for s in samples if s.name.endswith("_bucket")][-1] == "+Inf"
    assert [bucket_of(s) for s in (0.0, 0.03, 0.031, 3000.0, 3000.1)] == [
        "0.03",
        "0.03",
        "0.1",
        "3000",
        "+Inf",
    ]


def test_every_metric_of_the_alerts_is_exported_with_its_labels(tmp_path: Path, compose: dict[str, Any]):
    labels = exported_labels(tmp_path)
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
    mounted = [volume.split(":") for volume in compose["services"]["prometheus"]["volumes"]]
    there = {Path(target).name: DEPLOY / source for source, target, *_ in mounted if source[0] == "."}
    recorded: set[str] = set()
    for name in config["rule_files"]:
        for group in yaml.safe_load(there[name].read_text(encoding="utf-8"))["groups"]:
            recorded |= {rule["record"] for rule in group["rules"] if "record" in rule}
            for rule in group["rules"]:
                for metric, matchers in re.findall(r"\b(maquette_\w+)(?:{([^}]*)})?", rule["expr"]):
                    assert metric in labels, rule
                    assert set(re.findall(r"(\w+)[=!]", matchers)) <= labels[metric], rule
                assert set(re.findall(r"maquette:[\w:]+", rule["expr"])) <= recorded, rule
                assert asked_numbers(rule["expr"]) <= set(NUMBERS), rule
                if "alert" in rule:
                    assert rule["labels"]["severity"] in ("page", "ticket")
                    assert rule["alert"] in (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "arguments", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")]
)
def test_prometheus_understands_the_alerts(arguments: tuple[str, ...]):
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    run = subprocess.run([tool, *arguments], cwd=DEPLOY, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def exported_labels(folder: Path) -> dict[str, set[str]]:
    """Names of all samples and their labels."""
    families = text_string_to_metric_families(exported(folder))
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def exported(folder: Path) -> str:
    """The numbers of a service in which a job ended and another waits."""
    settings = load_settings(data=folder, kinds=("tests.worker.probe:PROBE",), device="cpu", min_free_bytes=0)
    database = Database(settings.database)
    migrate(database)
    jobs = Jobs(database, store_at(settings), settings)
    call = "https://receiver.example/"
    for _ in range(2):
        jobs.submit(Submission("probe", {"queues": ["gpu"]}, callback_url=call), owner="me")
    held = queue.claim(database, "gpu", "w", 1, 60)
    assert held is not None
    queue.commit(database, held, Outcome(), lambda sha256: True)
    count_asset(database, REPORT, {"transformer": "0" * 64})
    text = exposition(database).decode()
    database.close()
    return text


def test_the_bucket_is_made_once(monkeypatch: pytest.MonkeyPatch):
    class Store:
        buckets: tuple[str, ...] = ("other",)

        def list_buckets(self) -> dict[str, Any]:
            return {"Buckets": [{"Name": name} for name in self.buckets]}

        def create_bucket(self, Bucket: str) -> None:
            self.buckets = (*self.buckets, Bucket)

    store, asked = Store(), []

    def client(service: str, endpoint_url: str | None) -> Store:
        asked.append((service, endpoint_url))
        return store

    monkeypatch.setattr("boto3.client", client)
    settings = load_settings(store_url="s3://maquette/some/where", s3_endpoint="http://s3:8333")
    make_bucket = _module(DEPLOY / "make_bucket.py").make_bucket
    assert [make_bucket(settings), make_bucket(settings)] == [True, False]
    assert (store.buckets, set(asked)) == (("other", "maquette"), {("s3", "http://s3:8333")})


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
