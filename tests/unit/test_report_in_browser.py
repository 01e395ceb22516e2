"""The report in a real browser, where one is installed."""

import os
import re
import shutil
import subprocess

import pytest

from separation.analysis import collect_scores, summarize_sweep
from separation.figures import plot_sweep
from separation.report import render_report
from simulated_sweep import simulate_sweep

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Acts as a reader would, then leaves what it saw on the page
READER = """
<script>
window.addEventListener("load", async () => {
  const seen = [], wait = () => new Promise((done) => setTimeout(done, 50));
  const say = (name, value) => seen.push(`${name}=${value}`);
  for (let tries = 0; tries < 400 && !document.documentElement.dataset.drawn; tries++) await wait();
  const ranks = () => [...document.querySelectorAll("tr[data-point]:not([hidden]) .rank")];
  const shown = () => ranks().map((cell) => parseInt(cell.textContent));
  say("charts", document.querySelectorAll(".plot svg").length);
  document.querySelector("th.main .sort").click();
  say("highest", shown()[0]);
  document.querySelector("th.rank .sort").click();
  const search = document.getElementById("search");
  search.value = "0.01 random";
  search.dispatchEvent(new Event("input"));
  say("found", shown().join("+"));
  const players = [...document.querySelectorAll("audio")];
  for (let tries = 0; tries < 100 && players.some((player) => !player.duration); tries++) await wait();
  say("seconds", [...new Set(players.map((player) => player.duration))].join("+"));
  say("overflow", document.documentElement.scrollWidth > window.innerWidth);
  document.title = `seen ${seen.join(" ")}.`;
});
</script>
</body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found")
@pytest.mark.parametrize("width", [1280, 500])
def test_a_reader_sees_charts_sorts_filters_and_hears(sweep, tmp_path, width):
    page = tmp_path / "report.html"
    page.write_text(READER.join(sweep.report.read_text().rsplit("</body>", 1)))
    quiet = "--no-first-run --disable-background-networking --disable-component-update --disable-sync --disable-gpu"
    command = [CHROMIUM, "--headless", "--no-sandbox", *quiet.split(), f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--window-size={width},2000", "--enable-logging=stderr", "--virtual-time-budget=30000", "--dump-dom"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, env=dict(os.environ))
    assert re.findall(r"<title>(seen .*)</title>", done.stdout) == [
        "seen charts=8 highest=2 found=2 seconds=0.5 overflow=false."
    ]
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    sweep = simulate_sweep(tmp_path_factory.mktemp("sweep"))
    collect_scores(sweep.points, sweep.score_files, sweep.points_csv, sweep.scores)
    summarize_sweep(sweep.points_csv, sweep.scores, sweep.histories, sweep.summary, sweep.comparisons, seed=0)
    plot_sweep(sweep.points_csv, sweep.scores, sweep.summary, sweep.histories, sweep.figures)
    tables = sweep.points_csv, sweep.scores, sweep.summary, sweep.comparisons, sweep.figures
    render_report("music_dpcl", *tables, sweep.histories, sweep.estimates, {"date": "2026-01-02"}, sweep.report)
    return sweep
