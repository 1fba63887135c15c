"""MLflow's and Prefect's pages of two lines as somebody sees them who has started `up`.

The form of Prefect's page starts both lines; what then is compared in MLflow's page is what a user
of the project goes there for: two lines side by side with their figures and pictures.
"""

import json
import re
import shutil
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.architecture.imports import PROJECT
from tests.browser.visitor import Visitor
from tests.line.repository import Repository, make_repository
from tests.pipelines.trivial_line import free_port
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(2400)]

CHANGED = {"train_prior.steps": 45}
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass(frozen=True)
class Unattended:
    """A tiny line with its servers and worker, as `up` has started them."""

    repository: Repository
    prefect: str
    mlflow: str

    def ask(self, path: str, question: dict[str, Any] | None = None) -> Any:
        """What Prefect's API answers."""
        body = None if question is None else json.dumps(question).encode()
        request = urllib.request.Request(
            f"{self.prefect}/api/{path}", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def runs(self) -> list[dict[str, Any]]:
        """Flow runs of the line, the oldest first, those that only the clock asks for apart."""
        by_hand = {"deployments": {"name": {"any_": ["adhoc"]}}}
        return self.ask("flow_runs/filter", {**by_hand, "sort": "START_TIME_ASC"})


@pytest.fixture(scope="module")
def unattended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unattended]:
    repository = make_repository(tmp_path_factory.mktemp("unattended") / "line")
    shutil.copy(PROJECT / "prefect.yaml", repository.path)
    repository.commit("deployments")
    repository.environment["PREFECT_HOME"] = str(repository.path / ".work" / "prefect")
    repository.environment.pop("LATENTLINE_TRACKING", None)
    prefect, mlflow = free_port(), free_port()
    ports = ["--prefect-port", str(prefect), "--mlflow-port", str(mlflow)]
    try:
        repository.run("python", "-m", "pipelines", "up", *ports)
        yield Unattended(repository, f"http://127.0.0.1:{prefect}", f"http://127.0.0.1:{mlflow}")
    finally:
        repository.run("python", "-m", "pipelines", "down")


def start_by_form(visitor: Visitor, unattended: Unattended, values: dict[str, Any]) -> None:
    """Go to the deployment and fill its form in."""
    page = visitor.page
    page.goto(f"{unattended.prefect}/deployments")
    page.get_by_role("link", name="adhoc").first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run", exact=True).click()
    page.wait_for_url("**/run?parameters=*")
    wanted = page.get_by_text("Set (Optional)", exact=True)
    field = page.locator(".schema-form-property", has=wanted).last
    if values:
        field.locator("textarea").fill(json.dumps(values))
        field.locator("textarea").blur()
        field.scroll_into_view_if_needed()
        visitor.keep("prefect-form")
    # The form is made anew when its defaults arrive; what is pressed before is forgotten.
    page.wait_for_load_state("networkidle")
    before = len(unattended.runs())
    submit_until_sent(page)
    wait_until(lambda: len(unattended.runs()) > before)


def submit_until_sent(page: Any) -> None:
    """As a person does: a click while the form rearranges itself hits nothing."""
    from playwright.sync_api import TimeoutError as NothingHappened

    left = re.compile(r"/deployment/[0-9a-f-]+(\?.*)?$")
    for _ in range(3):
        page.get_by_role("button", name="Submit").click()
        try:
            page.wait_for_url(left, timeout=60_000)
            return
        except NothingHappened:
            continue
    raise AssertionError(f"still at {page.url}")


@pytest.fixture(scope="module")
def two_lines(window: Visitor, unattended: Unattended) -> list[dict[str, Any]]:
    """Two lines, started on Prefect's page: as it stands, and with another parameter."""
    start_by_form(window, unattended, {})
    start_by_form(window, unattended, CHANGED)
    wait_until(lambda: all(run["state_type"] in FINAL for run in unattended.runs()), seconds=1500)
    runs = unattended.runs()
    assert [run["state_type"] for run in runs] == ["COMPLETED", "COMPLETED"], runs
    return runs


def test_the_form_starts_a_run_with_a_parameter(
    unattended: Unattended, two_lines: list[dict[str, Any]]
) -> None:
    first, second = two_lines
    assert first["parameters"]["config"]["set"] == {}
    assert second["parameters"]["config"]["set"] == CHANGED
    params = (unattended.repository.path / "params.yaml").read_text()
    assert YAML(typ="safe").load(params)["train_prior"]["steps"] == 45


def open_artifact(visitor: Visitor, unattended: Unattended, key: str) -> None:
    """The newest under a key, by way of the page of the key, which shows its history."""
    visitor.page.goto(f"{unattended.prefect}/artifacts/key/{key}")
    visitor.page.locator("a[href^='/artifacts/artifact/']").first.click()
    visitor.page.wait_for_url("**/artifacts/artifact/*")


def test_prefects_page_shows_stages_logs_and_artifacts(
    visitor: Visitor, unattended: Unattended, two_lines: list[dict[str, Any]]
) -> None:
    page, run = visitor.page, two_lines[1]
    page.goto(f"{unattended.prefect}/runs/flow-run/{run['id']}")
    page.get_by_text(f"Beginning flow run '{run['name']}'").first.wait_for()
    visitor.keep("prefect-run")
    page.get_by_text("Task Runs", exact=True).first.click()
    for stage in ("prepare", "train_prior", "evaluate"):
        page.get_by_role("link", name=stage).first.wait_for()
    visitor.keep("prefect-run-stages")
    page.get_by_text("Artifacts", exact=True).first.click()
    for key in ("stages", "figures", "samples", "mlflow-run"):
        page.get_by_text(key, exact=True).first.wait_for()
    visitor.keep("prefect-run-artifacts")
    open_artifact(visitor, unattended, "stages")
    words = page.get_by_role("table").first.inner_text()
    outcomes = [line.split()[:2] for line in words.splitlines() if "_" in line or "sample" in line]
    assert ["train_autoencoder", "cached"] in outcomes and ["train_prior", "executed"] in outcomes
    link = page.get_by_role("table").get_by_role("link").first.get_attribute("href")
    assert link is not None and link.startswith(unattended.mlflow)
    visitor.keep("prefect-artifact-stages")
    open_artifact(visitor, unattended, "figures")
    assert "psnr" in page.get_by_role("table").first.inner_text()
    open_artifact(visitor, unattended, "samples")
    page.locator("img[src^='data:image/']").first.wait_for()
    visitor.keep("prefect-artifact-samples")


def test_prefects_page_leads_to_mlflows(
    visitor: Visitor, unattended: Unattended, two_lines: list[dict[str, Any]]
) -> None:
    page, run = visitor.page, two_lines[1]
    open_artifact(visitor, unattended, "mlflow-run")
    link = page.get_by_role("link", name="MLflow run").get_attribute("href")
    assert link is not None and link.startswith(unattended.mlflow)
    page.goto(link)
    page.get_by_text(run["name"]).first.wait_for()
    page.get_by_text("prefect.flow_run_url").first.wait_for()
    visitor.keep("mlflow-run")
    back = re.search(rf"{unattended.prefect}/runs/flow-run/{run['id']}", page.content())
    assert back is not None, "the way back"
    page.goto(back.group())
    page.get_by_text(f"Beginning flow run '{run['name']}'").first.wait_for()


def test_mlflows_table_compares_two_lines(
    visitor: Visitor, unattended: Unattended, two_lines: list[dict[str, Any]]
) -> None:
    page = visitor.page
    page.goto(f"{unattended.mlflow}/#/experiments/1/runs")
    for run in two_lines:
        page.get_by_role("link", name=run["name"]).wait_for()
    page.get_by_label("Close").first.click()  # MLflow's assistant, in the way of the table
    visitor.keep("mlflow-runs")
    # Lines are rows, their stages fold beneath them.
    rows = page.get_by_role("checkbox", name="toggle row selection")
    assert rows.count() == len(two_lines)
    for row in rows.all():
        row.check()
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("Comparing 2 Runs from 1 Experiment").wait_for()
    page.get_by_text("Show diff only").first.click()
    page.get_by_text("bottleneck.kind").wait_for(state="detached")
    words = visitor.text()
    differ = words.partition("Parameters\nShow diff only")[2].partition("Metrics")[0]
    assert [line.split() for line in differ.splitlines() if "." in line] == [
        ["train_prior.steps", "45", "40"]
    ]
    metrics = words.partition("Metrics\nShow diff only")[2].partition("Artifacts")[0]
    # Rows are made as one scrolls to them: the first are there, by the alphabet.
    assert {"class_accuracy", "code_perplexity", "distortion_nats"} <= set(metrics.split())
    page.get_by_text("Show diff only").first.scroll_into_view_if_needed()
    visitor.keep("mlflow-compare")


def test_mlflows_page_shows_the_pictures_of_a_line(
    visitor: Visitor, unattended: Unattended, two_lines: list[dict[str, Any]]
) -> None:
    page = visitor.page
    page.goto(f"{unattended.mlflow}/#/experiments/1/runs")
    page.get_by_role("link", name=two_lines[1]["name"]).click()
    page.get_by_text("Artifacts", exact=True).first.click()
    page.get_by_text("report.html").first.click()
    report = page.frame_locator("iframe").first
    report.get_by_text("Samples").first.wait_for()
    visitor.keep("mlflow-report")
    page.get_by_text("images", exact=True).first.click()
    page.get_by_text(re.compile(r"samples.*\.png$")).first.click()
    page.wait_for_function("[...document.images].some(i => i.complete && i.naturalWidth > 100)")
    visitor.keep("mlflow-images")
