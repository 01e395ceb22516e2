"""Estimates of other programs and numbers from papers, beside the points."""

import json
import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import soundfile

import experiments
from separation.analysis.summarize import collect_scores, summarize_sweep
from separation.errors import UserError
from separation.evaluation.systems import score_system
from separation.experiment.options import DatasetOptions
from separation.files.atomic import write_json
from separation.files.score_table import SYSTEM
from separation.report.figures import plot_sweep
from separation.report.render import render_report
from simulated_sweep import BASELINE_EVALUATION, simulate_sweep
from training_examples import dataset_options, write_split

TESTERS = [{"BSSEvalScale": {"compute_permutation": False}}]


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("data") / "test", count=3)


@pytest.fixture
def estimates(split, tmp_path):
    """The true sources at half their level, with some of the mixture, as another program may name them."""
    folder = tmp_path / "theirs"
    for path in Path(split["folder"]).glob("*_vocals.wav"):
        item = path.name.split("_")[0]
        (folder / item).mkdir(parents=True)
        mixture, rate = soundfile.read(path.with_name(f"{item}_mixture.wav"))
        for source, name in (("vocals", "vocals"), ("drums", "rest")):
            audio = 0.5 * soundfile.read(path.with_name(f"{item}_{source}.wav"))[0] + 0.01 * mixture
            soundfile.write(folder / item / f"{name}.wav", audio, rate, subtype="FLOAT")
    return folder


def score(split, folder, tmp_path, **changes):
    options = {"name": "Theirs", "pattern": "{item}/{source}.wav", "sources": {"drums": "rest"}} | changes
    scores = tmp_path / "scores.parquet"
    score_system(dataset_options(), TESTERS, test=split, folder=folder, scores=scores, evaluation="theirs-0", **options)
    return pd.read_parquet(scores)


def test_files_of_another_program_are_scored_like_points(split, estimates, tmp_path):
    table = score(split, estimates, tmp_path)
    assert set(table["point"]) == {SYSTEM + "Theirs"}
    assert sorted(zip(table["item"], table["source"], strict=True)) == [
        (f"{item:06d}", source) for item in range(3) for source in ("drums", "vocals")
    ]
    assert (table["SI-SDR"] > 20).all()
    assert table["SNR"].between(5, 7).all(), "half the level: 6 dB of error"
    shutil.copy(estimates / "000000" / "rest.wav", estimates / "000000_rest.wav")
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in estimates.glob("*/*.wav"):
        shutil.copy(path, flat / f"{path.stem}-{path.parent.name}.wav")
    again = score(split, flat, tmp_path, pattern="{source}-{item}.wav")
    pd.testing.assert_frame_equal(again, table)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda folder: [(folder / f"00000{item}/rest.wav").unlink() for item in (0, 1, 2)],
         r"systems: 3 of 6 estimates are missing: \S*000000/rest\.wav, \S*000001/rest\.wav and others; expected a file "
         r"for every source \(drums, vocals\) of every test item"),
        (lambda folder: rewrite(folder, rate=16000),
         r"rest\.wav: expected the mixture's sample rate, 8000 Hz, found 16000 Hz"),
        (lambda folder: rewrite(folder, channels=2), r"expected the mixture's number of channels, 1, found 2"),
        (lambda folder: rewrite(folder, cut=10), r"expected the mixture's length, 6400 samples, found 6390 samples"),
        (lambda folder: (folder / "000001/rest.wav").write_text("no audio"), r"000001/rest\.wav: cannot be read"),
    ],
)  # fmt: skip
def test_unfit_estimates_are_one_line(split, estimates, tmp_path, fault, message):
    fault(estimates)
    with pytest.raises(UserError, match=message) as error:
        score(split, estimates, tmp_path)
    assert "\n" not in str(error.value)


def rewrite(folder, *, rate=8000, channels=1, cut=0):
    path = folder / "000001" / "rest.wav"
    audio, _ = soundfile.read(path, always_2d=True)
    soundfile.write(path, audio[: len(audio) - cut].repeat(channels, axis=1), rate, subtype="FLOAT")


def test_a_name_in_sources_that_no_item_has_is_reported(split, estimates, tmp_path):
    with pytest.raises(UserError, match=r"the test items have no source 'bass'; they have drums, vocals"):
        score(split, estimates, tmp_path, sources={"bass": "rest"})


def test_systems_are_planned_once_and_again_when_their_files_change(estimates, tmp_path):
    def plan(**keys):
        return experiments.plan(experiments.experiment(**keys), tmp_path)

    sweep = [{"train_config.learning_rate": [0.1, 0.2]}]
    alone = plan(sweep=sweep)
    systems = [{"name": "Theirs", "folder": str(estimates)}]
    both = plan(sweep=sweep, systems=systems)
    assert list(both.evaluations) == list(alone.evaluations)
    assert alone.collected() == alone.table(), "nothing new without systems"
    (system,) = both.systems
    assert system.startswith("theirs-")
    moved = tmp_path / "moved"
    shutil.copytree(estimates, moved)
    assert list(plan(systems=[{"name": "Theirs", "folder": str(moved)}]).systems) == [system]
    os.utime(estimates / "000000/rest.wav", (1, 1))
    assert list(plan(sweep=sweep, systems=systems).systems) != [system]


def test_the_planned_job_scores_the_files(split, estimates, tmp_path):
    system = {"name": "Theirs", "folder": str(estimates), "sources": {"drums": "rest"}}
    grouping = {"dataset_config__group_sources": [], "dataset_config__group_names": None}
    content = experiments.experiment(datasets__test=split, systems=[system], **grouping)
    workflow = experiments.plan(content, tmp_path)
    ((name, (job, _)),) = workflow.systems.items()
    spec, options = json.loads(job.spec), json.loads(json.dumps(workflow.job_table.systems[name]))
    scores = tmp_path / "scores.parquet"
    score_system(
        DatasetOptions.read(options["dataset_config"]),
        spec["testers"],
        test=options["test"],
        folder=Path(options["folder"]),
        scores=scores,
        evaluation=name,
        extras=options["extras"],
        **spec["system"],
    )
    table = pd.read_parquet(scores)
    assert set(table["source"]) == {"drums", "vocals"}
    assert (table["SI-SDR"] > 20).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folder": "nowhere"}, r"systems\[0\]\.folder: no such folder: nowhere"),
        ({"pattern": "{item}.wav"}, r"systems\[0\]\.pattern: expected \{item\} and \{source\}, each once, found"),
        ({"pattern": "{item}/{source"}, r"systems\[0\]\.pattern: not a pattern"),
        ({"patterns": "x"}, r"systems\[0\]\.patterns: unknown key; did you mean 'pattern'"),
    ],
)
def test_a_wrong_entry_is_found_before_anything_runs(estimates, tmp_path, changes, message):
    system = {"name": "Theirs", "folder": str(estimates)} | changes
    with pytest.raises(UserError, match=message):
        experiments.plan(experiments.experiment(systems=[system]), tmp_path)


def test_systems_and_published_numbers_are_in_tables_and_report(tmp_path):
    sweep = simulate_sweep(tmp_path, num_items=24)
    table = pd.read_parquet(next(path for path in sweep.score_files if "ideal_ratio_mask" in str(path)))
    system = tmp_path / "system.parquet"
    table.assign(point="system:Theirs", evaluation="theirs-0123456789ab").to_parquet(system, index=False)
    collect_scores(sweep.points, [*sweep.score_files, system], sweep.files)
    published = {"name": "A paper", "source": "Somebody, 2019, table 2", "data": "", "metrics": {"SI-SDRi": 11.5}}
    write_json(sweep.files.published, [published])
    summarize_sweep(sweep.files, sweep.artifacts)
    plot_sweep(sweep.files, sweep.artifacts)
    render_report("systems", sweep.files, sweep.artifacts, {})
    summary = pd.read_csv(sweep.files.summary).set_index("point")
    assert summary.loc["system:Theirs", "label"] == "Theirs"
    assert not summary.loc["system:Theirs", "best"]
    assert summary.loc["system:Theirs", "SI-SDRi"] == pytest.approx(summary.loc["ideal_ratio_mask", "SI-SDRi"])
    found = pd.read_csv(sweep.files.comparisons)
    row = found[found["against"] == "system:Theirs"].iloc[0]
    assert row["verdict"] == "worse"
    assert not found.astype(str).apply(lambda column: column.str.contains("A paper")).any(axis=None)
    page = sweep.files.report.read_text()
    assert re.search(r'<tr class="system"[^>]*>\s*<th[^>]*>Theirs', page)
    assert "Somebody, 2019, table 2" in page
    for name in ("score_distributions", "validation_against_test"):
        assert "A paper" in (sweep.files.figures / f"{name}.vl.json").read_text()
    assert BASELINE_EVALUATION in page


def alone(estimates, **changes):
    content = experiments.experiment(systems=[{"name": "Theirs", "folder": str(estimates)}], **changes)
    return {
        key: value for key, value in content.items() if key not in ("train_config", "model_config", "algorithm_config")
    }


def test_an_experiment_with_only_systems_trains_nothing(estimates, tmp_path):
    workflow = experiments.plan(alone(estimates), tmp_path)
    assert (workflow.trainings, workflow.evaluations, workflow.rows) == ({}, {}, [])
    assert len(workflow.systems) == len(workflow.baselines) == 1
    with pytest.raises(UserError, match="missing key 'train_config'"):
        experiments.plan({key: value for key, value in alone(estimates).items() if key != "systems"}, tmp_path)
    with pytest.raises(UserError, match="trains nothing and has no sweep"):
        experiments.plan(alone(estimates, sweep=[{"dataset_config.n_fft": [64, 128]}]), tmp_path)
    with pytest.raises(UserError, match=r"dataset_config\.sample_rate: expected 8000"):
        experiments.plan(alone(estimates, dataset_config__sample_rate=16000), tmp_path)


def test_systems_alone_have_tables_and_a_report(tmp_path):
    sweep = simulate_sweep(tmp_path, num_items=8)
    baselines = [path for path in sweep.score_files if path.parent.parent.name == "baselines"]
    system = tmp_path / "system.parquet"
    table = pd.read_parquet(baselines[-1]).assign(point="system:Theirs", evaluation="theirs-0123456789ab")
    table.to_parquet(system, index=False)
    collect_scores([], [*baselines, system], sweep.files)
    summarize_sweep(sweep.files, sweep.artifacts)
    plot_sweep(sweep.files, sweep.artifacts)
    render_report("alone", sweep.files, sweep.artifacts, {})
    summary = pd.read_csv(sweep.files.summary)
    assert summary["point"].tolist()[0] == "system:Theirs"
    assert len(summary) == 6
    page = sweep.files.report.read_text()
    assert "No trained network: systems of other programs, and baselines" in page
    assert (sweep.files.figures / "score_distributions.svg").exists()
