"""A sweep with every service configured: data that the services receive, and secrecy of keys."""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading

import pandas
import psutil
import pytest

import in_process
from comet_server import KEY as COMET_KEY
from comet_server import CometServer
from google_server import GoogleServer, private_key
from projects import TINY

SWEEP = ("--config", f"sweep={TINY}")
# secrets that a user may have in the environment, recognizable in any file or output
MARKED = {
    "WANDB_API_KEY": "marked0wandb0" + "0" * 27,
    "JUPYTER_PASSWORD_HASH": "sha1:0123456789ab:marked0jupyter",
    "AWS_SECRET_ACCESS_KEY": "marked0aws",
}


def wait_for(condition):
    while not condition():
        os.sched_yield()


@pytest.fixture
def services(tmp_path):
    comet, google = CometServer(), GoogleServer()
    (tmp_path / "keys").mkdir()
    environment = {
        **comet.environment,
        "PATH_TO_GOOGLE_CREDENTIALS": str(google.credentials(tmp_path / "keys")),
        "GOOGLE_API_URL": google.url,
    }
    google.name = "Source separation results"
    yield comet, google, environment
    comet.close()
    google.close()


def watch_command_lines(seen, over):
    """Collects the command lines of all processes on this machine until `over` is set."""
    while not over.wait(0.1):
        for process in psutil.process_iter(["cmdline"]):
            seen.add(" ".join(process.info["cmdline"] or ()))


def test_services_are_planned_only_if_configured(finished):
    assert finished.planned("publish", *SWEEP) == {}
    planned = finished.planned("publish", *SWEEP, COMET_API_KEY="x", PATH_TO_GOOGLE_CREDENTIALS="y")
    assert planned == {"sync_comet": 1, "upload_sheet": 1}
    assert finished.planned(*SWEEP, COMET_API_KEY="x", PATH_TO_GOOGLE_CREDENTIALS="y") == {}
    planned = finished.planned("publish", *SWEEP, "tracking=none", COMET_API_KEY="x")
    assert planned == {}


def test_the_table_is_beside_the_summary_and_the_workbook_is_written_on_request(project):
    sheet = pandas.read_csv(project.path("results/sweeps/tiny_dpcl/sheet.csv"))
    summary = pandas.read_csv(project.path("results/sweeps/tiny_dpcl/summary.csv"))
    means = summary.set_index("point")["SI-SDR"].round(2)
    assert len(sheet) == 2 and set(sheet["Notes"]) == {"tiny"}
    for _, row in sheet.iterrows():
        assert row["Overall SI-SDR"] == pytest.approx(means[row["Experiment key"]], abs=0.011)
    project.run("results/sweeps/tiny_dpcl/sheet.xlsx", *SWEEP)
    assert project.path("results/sweeps/tiny_dpcl/sheet.xlsx").stat().st_size > 1000


def publish(project, environment, *arguments):
    """Runs snakemake with secrets in its environment.

    Returns:
        All that it printed, and the command lines of all processes that ran at the same time.
    """
    command = [sys.executable, "-m", "snakemake", *arguments]
    process = subprocess.Popen(
        command, cwd=project.folder, env={**os.environ, **environment, **MARKED}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    seen, over = set(), threading.Event()
    watcher = threading.Thread(target=watch_command_lines, args=(seen, over))
    watcher.start()
    printed = process.communicate()[0]
    over.set()
    watcher.join()
    assert process.returncode == 0, printed[-4000:]
    return printed, seen


def assert_published(project, comet, google):
    """Asserts that the services have the data of the sweep's two points."""
    scores = pandas.read_csv(project.path("results/sweeps/tiny_dpcl/summary.csv")).set_index("point")["SI-SDR"]
    pages = json.loads(project.path("results/sweeps/tiny_dpcl/published/comet.json").read_text())
    assert len(pages) == 2
    for point, page in pages.items():
        experiment = comet.experiments[page.rsplit("/", 1)[1]]
        history = pandas.read_csv(project.path(f"results/artifacts/{point}/history.csv"))
        # the epochs of points that were finished before come from their logs
        assert [value for _, value in experiment.values("validation/loss")] == pytest.approx(
            history["validation_loss"].tolist()
        )
        assert experiment.values("test/SI-SDR")[0][1] == pytest.approx(scores[point], abs=1e-4)
        assert experiment.name.startswith("learning_rate=") and "tiny_dpcl" in experiment.tags
        names = {name for _, name, _ in experiment.assets}
        assert "config.yml" in names and any(name.endswith(".svg") for name in names)
        assert any(name.endswith(".wav") for name in names)
    (sheet,) = google.sheets.values()
    assert sheet.title == "tiny_dpcl" and google.count() == 5
    assert {re.search('","(.*)"', row[0]).group(1) for row in sheet.table()[2:]} == set(pages)


def assert_nothing_leaked(project, comet, google, printed, seen):
    """Asserts that secrets are in no file, output or command line, and that a service receives only its own key."""
    secrets = [*MARKED.values(), COMET_KEY, private_key().splitlines()[1]]
    for secret in secrets:
        assert not [text for text in (*printed, *seen, *google.bodies) if secret in text]
        assert secret == COMET_KEY or not [body for body in comet.bodies if secret in body]
    for path in project.folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            found = [secret for secret in secrets if secret.encode() in content]
            assert found == [], path


@pytest.mark.timeout(900)
def test_points_are_tracked_and_published_without_leaking_secrets(project, services):
    comet, google, environment = services
    # a new point is sent while it trains
    change = "set=train_config.learning_rate=0.002"
    trained, seen = publish(project, environment, "train", *SWEEP, "trackers=[comet]", change)
    assert any("separation.tracking.sender" in line for line in seen)
    wait_for(lambda: comet.experiments)
    ((_, experiment),) = comet.experiments.items()
    wait_for(lambda: len(experiment.values("validation/loss")) == 2)

    # the finished points are published from their logs
    published, others = publish(project, environment, "publish", *SWEEP, "trackers=[comet]")
    assert len(comet.experiments) == 3
    assert_published(project, comet, google)

    # a second upload has nothing to send
    comet.calls.clear(), google.calls.clear()
    again = ("publish", *SWEEP, "trackers=[comet]", "--forcerun", "sync_comet", "upload_sheet")
    done = project.run(*again, **environment)
    assert comet.calls == [] and [kind for kind, _ in google.calls] == ["metadata", "read"]
    printed = (trained, published, done.stdout, done.stderr)
    assert_nothing_leaked(project, comet, google, printed, seen | others)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_with_a_new_point_is_tracked_and_published_without_leaking_secrets(project, services):
    comet, google, environment = services
    change = "set=train_config.learning_rate=[0.01,0.002]"
    printed, seen = publish(project, environment, "publish", *SWEEP, "trackers=[comet]", change)
    assert len(list(project.folder.glob("results/artifacts/dpcl-*"))) == 3 and len(comet.experiments) == 2
    assert_published(project, comet, google)
    assert any("separation.tracking.sender" in line for line in seen)
    assert_nothing_leaked(project, comet, google, [printed], seen)


@pytest.mark.timeout(900)
def test_a_run_without_a_network_finishes_and_warns_once(project, services):
    _, _, environment = services
    environment = {**environment, "COMET_URL_OVERRIDE": "http://127.0.0.1:9/clientlib/"}
    # without a cache: the job reads the mixtures
    change = "train_config.learning_rate=0.02,cache=''"
    done = project.run("evaluate", *SWEEP, f"set={change}", **environment)
    warnings = [line for line in (done.stdout + done.stderr).splitlines() if "comet.ml" in line]
    assert len(warnings) == 1 and "make sync" in warnings[0]
    with contextlib.chdir(project.folder):
        (point,) = in_process.plan(TINY, change).trainings
    folder = project.folder / "results/artifacts" / point
    assert len(list(folder.glob("evaluations/*/scores.parquet"))) == 1
    wait_for(lambda: list(folder.glob("state/trackers/comet/*.zip")))


def test_tensorboard_runs_have_readable_names_settings_and_scores(finished):
    links = sorted((finished.folder / "results/tensorboard/tiny_dpcl").iterdir())
    assert [re.fullmatch(r"learning_rate=(0\.01|0\.001) \([0-9a-f]{6}\)", link.name) is not None for link in links]
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    runs = EventMultiplexer().AddRunsFromDirectory(str(finished.folder / "results/tensorboard")).Reload()
    assert set(runs.Runs()) == {f"tiny_dpcl/{link.name}" for link in links}
    for run in runs.Runs():
        assert {"validation/loss", "test/SI-SDR"} <= set(runs.Runs()[run]["scalars"])
        metadata = runs.SummaryMetadata(run, "_hparams_/session_start_info")
        assert b"train_config.learning_rate" in metadata.plugin_data.content
