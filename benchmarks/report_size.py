"""Size and loading time of a large sweep's report: `python benchmarks/report_size.py [points] [items]`.

Simulates a sweep of 200 points x 1,000 items x 2 sources with kept audio of 20 s; analyzes, draws and renders it; opens
the report in headless Chromium; prints seconds and megabytes. "opens" ends when the visible part of the page is drawn,
"all charts" when the last chart is.
"""

import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "workflow/scripts"), str(ROOT / "tests"), str(ROOT / "tests/unit")]

from browser import CHROMIUM, Browser
from separation.analysis.summarize import collect_scores, summarize_sweep
from separation.report.figures import plot_sweep
from separation.report.render import render_report
from simulated_sweep import SimulatedSweep, simulate_sweep

BUDGET_MB, BUDGET_SECONDS = 50, 5


def settings(count: int) -> dict[str, list]:
    """Four swept keys with `count` combinations; a multiple of 40."""
    return {
        "train_config.learning_rate": [round(0.1 / 2**n, 6) for n in range(max(1, count // 40))],
        "train_config.batch_size": [2, 4, 8, 16, 32],
        "model_config.modules.recurrent_stack.args.num_layers": [1, 2, 3, 4],
        "train_config.sample_strategy": ["sequential", "random"],
    }


def timed(name: str, work) -> None:
    """Runs a step and prints its duration."""
    started = time.monotonic()
    work()
    print(f"{name:<24}{time.monotonic() - started:8.1f} s", flush=True)


def analyze(sweep: SimulatedSweep) -> None:
    """Writes the tables of a sweep."""
    collect_scores(sweep.points, sweep.score_files, sweep.files)
    summarize_sweep(sweep.files, sweep.artifacts)


def render(sweep: SimulatedSweep) -> None:
    """Renders the report of a sweep."""
    render_report("large", sweep.files, sweep.artifacts, {"config": "a: 1\n" * 200})


def main() -> None:
    points, items = (int(given) for given in sys.argv[1:3]) if len(sys.argv) == 3 else (200, 1000)
    with tempfile.TemporaryDirectory() as folder:
        sweep = simulate_sweep(
            Path(folder),
            settings(points),
            num_items=items,
            num_songs=100,
            num_epochs=100,
            seconds=20,
            sample_rate=16000,
        )
        print(f"{len(sweep.points)} points x {items} items x 2 sources")
        timed("tables", lambda: analyze(sweep))
        timed("figures", lambda: plot_sweep(sweep.files, sweep.artifacts))
        timed("report.html", lambda: render(sweep))
        size = sweep.files.report.stat().st_size / 1e6
        print(f"{'size':<24}{size:8.1f} MB of {BUDGET_MB}")
        if CHROMIUM is None:
            sys.exit("no Chromium found: report not opened")
        with Browser(Path(folder) / "profile") as browser:
            for name, width in (("desk", 1280), ("phone", 375)):
                browser.look(width)
                started = time.monotonic()
                opened = browser.open(sweep.files.report)
                browser.wait_for("document.documentElement.dataset.drawn")
                everything = time.monotonic() - started
                print(f"{f'opens, {name}':<24}{opened:8.1f} s of {BUDGET_SECONDS}")
                print(f"{f'all charts, {name}':<24}{everything:8.1f} s", flush=True)
                print(f"{'errors in the browser':<24}{len(browser.complaints):8}")


if __name__ == "__main__":
    main()
