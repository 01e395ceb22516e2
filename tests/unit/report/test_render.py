"""Content of the report."""

import base64
import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from separation.analysis.summarize import collect_scores, summarize_sweep
from separation.files.atomic import read_json, write_json
from separation.files.layout import SweepFiles
from separation.report.figures import SECTIONS, plot_sweep
from separation.report.render import render_report
from simulated_sweep import simulate_sweep

PROVENANCE = {
    "notes": "Is <script>alert('notes')</script> & more shown as written?",
    "date": "2026-01-02",
    "git commit": "0123abc",
    "versions": {"nussl": "1.1.9"},
    "datasets": {"test": "toy_music-0123456789ab"},
    "licences": ["see https://example.org/licence", "</script><b>bold</b>"],
    "config": "# from https://example.org\ninfo:\n  name: <i>music</i>\n",
}


class Page(HTMLParser):
    """A parsed page: elements with attributes, and the text outside scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.raw, self.inside = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside = tag if tag in ("script", "style") else None

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        (self.raw if self.inside else self.words).append((self.inside, data))

    @property
    def text(self):
        return " ".join(" ".join(data for _, data in self.words).split())

    def all(self, tag, **attributes):
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [found for name, found in self.elements if name == tag and wanted.items() <= found.items()]


def prepare(folder, swept=None, *, change=lambda sweep: None, draw=False, **options):
    """Simulates and analyzes a sweep; draws figures only on request, because that takes seconds."""
    sweep = simulate_sweep(folder, swept, **options)
    change(sweep)
    collect_scores(sweep.points, sweep.score_files, sweep.files)
    summarize_sweep(sweep.files, sweep.artifacts)
    if draw:
        plot_sweep(sweep.files, sweep.artifacts)
    else:
        write_json(sweep.files.figure_index, [])
    return sweep


def render(sweep, provenance=PROVENANCE):
    render_report("music_dpcl", sweep.files, sweep.artifacts, provenance)
    return Page(sweep.files.report.read_text(encoding="utf-8"))


def copy_of(sweep, folder, without=""):
    """A copy of a sweep, without the files of one name."""
    shutil.copytree(sweep.files.path, folder, ignore=shutil.ignore_patterns(without))
    return replace(sweep, files=SweepFiles(folder), artifacts=folder / "artifacts")


@pytest.fixture(scope="module")
def sweep(drawn_sweep, tmp_path_factory):
    return copy_of(drawn_sweep, tmp_path_factory.mktemp("sweep") / "copy")


@pytest.fixture(scope="module")
def page(sweep):
    return render(sweep)


def rescale(gain):
    """Raises the scores of all points by `gain` dB."""

    def change(sweep):
        for path in sweep.score_files:
            if "baselines" not in str(path):
                table = pd.read_parquet(path)
                table[["SI-SDR", "SI-SDRi"]] += gain
                table.to_parquet(path)

    return change


def test_the_page_opens_without_network_or_other_files(page):
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "poster", "action"):
            assert attributes.get(name, "#").startswith(("data:", "#")), (tag, name)
    assert page.all("link") == [{"rel": "icon", "href": "data:,"}]
    styles = "".join(data for inside, data in page.raw if inside == "style")
    assert "url(" not in styles
    assert "@import" not in styles
    policy = next(found for found in page.all("meta") if found.get("http-equiv") == "Content-Security-Policy")
    # The browser blocks any request that is left
    assert policy["content"].startswith("default-src 'none'")


def test_the_verdict_names_the_point_with_the_lowest_validation_loss_and_its_test_score(page, sweep):
    summary = pd.read_csv(sweep.files.summary)
    best = summary[summary["best"]].iloc[0]
    assert f"Best trained network {best['label']}: {best['SI-SDRi']:.2f} dB SI-SDR improvement on test" in page.text
    assert "It was chosen by validation loss alone: its loss (0.1082) is the lowest of 8 trained networks." in page.text
    assert f"95 % interval {best['SI-SDRi_low']:.2f} to {best['SI-SDRi_high']:.2f}" in page.text
    assert "On 48 test mixtures of 8 songs" in page.text
    assert f"The network closes {100 * best['oracle_share']:.0f} %" in page.text


def test_the_verdict_reports_a_runner_up_that_is_better_on_test(page, sweep):
    comparisons = pd.read_csv(sweep.files.comparisons)
    row = (
        comparisons[comparisons["kind"] == "best"].set_index("label").loc["learning_rate=0.01, sample_strategy=random"]
    )
    assert f"the best network minus the runner-up is −{row['difference']:.2f} dB" in page.text
    assert "the runner-up network is shown to be better" in page.text


def test_reasons_for_doubt_are_listed_with_the_verdict(page):
    assert "The test set covers only 8 songs: intervals are wide" in page.text
    assert "Each point was trained with one seed." in page.text
    assert "3 of 4 main effects are computed from fewer than 3 matched pairs of trainings" in page.text
    assert "lowest in its last epoch (12)" in page.text


def test_the_verdict_reports_a_network_that_is_no_better_than_a_fixed_mask(tmp_path):
    text = render(prepare(tmp_path, {"train_config.learning_rate": [0.1, 0.01, 0.001]}, change=rescale(-4.6))).text
    assert "The network is not shown to be better than a fixed mask" in text
    assert "is better than a fixed mask" not in text


def test_the_verdict_reports_a_network_that_is_worse_than_the_mixture(tmp_path):
    text = render(prepare(tmp_path, {"train_config.learning_rate": [0.1]}, change=rescale(-9.0))).text
    assert "The network is not shown to be better than the unprocessed mixture" in text
    assert "The network is worse than a fixed mask" in text
    assert "The sweep has one point" in text


def test_the_verdict_warns_about_different_losses(tmp_path):
    losses = [[["DeepClusteringLoss", "embedding", 1.0]], [["L1Loss", "estimates", 1.0]]]
    text = render(prepare(tmp_path, {"train_config.loss_function": losses}, num_items=6, num_songs=3)).text
    assert "differ in train_config.loss_function" in text


def test_scores_that_are_not_finite_are_counted(tmp_path):
    def silence(sweep):
        table = pd.read_parquet(sweep.score_files[-1])
        table.loc[:2, ["SI-SDR", "SI-SDRi"]] = -np.inf
        table.to_parquet(sweep.score_files[-1])

    rates = {"train_config.learning_rate": [0.1, 0.01]}
    text = render(prepare(tmp_path, rates, change=silence, num_items=6, num_songs=3)).text
    assert "3 of 84 scores in SI-SDRi are not finite" in text


def pair_seeds(sweep, seeds=3):
    for index, point in enumerate(sweep.points):
        point["seed"], point["group"] = index % seeds, f"group{index // seeds}"


SEEDED = {"train_config.learning_rate": [0.1, 0.01, 0.001], "info.seed": [0, 1, 2]}


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("seeded"), SEEDED, change=pair_seeds)


def test_with_several_seeds_the_report_leads_with_settings(seeded):
    text = render(seeded).text
    groups, summary = pd.read_csv(seeded.files.groups), pd.read_csv(seeded.files.summary)
    best = groups.loc[groups["validation_loss"].idxmin()]
    network = summary.loc[summary["best"]].iloc[0]
    assert f"Best setting {best['label']}: {best['SI-SDRi']:.2f} dB SI-SDR improvement on test" in text
    assert "the mean of 3 trainings" in text
    assert f"95 % interval {best['SI-SDRi_low']:.2f} to {best['SI-SDRi_high']:.2f}" in text
    assert f"seeds differ by {best['SI-SDRi_seed_spread']:.2f} dB" in text
    assert f"To separate with one network, use {network['point']}" in text
    assert "Comparisons with the best setting" in text and "Comparisons with the best network" not in text
    assert "Each point was trained with one seed" not in text
    assert "seed (" not in text.split("Before you rely on it")[1].split("Points and baselines")[0]


def test_settings_with_a_diverged_training_are_not_ranked(tmp_path):
    def diverge(sweep):
        pair_seeds(sweep)
        for point in sweep.points[::3]:
            path = sweep.folder(point["point"]).history
            pd.read_csv(path).assign(validation_loss=np.nan).to_csv(path, index=False)

    text = render(prepare(tmp_path, SEEDED, change=diverge, num_items=12)).text
    assert "No setting has a validation loss of every training" in text
    assert "Best setting" not in text and "trained with one seed" not in text


def test_with_one_seed_nothing_is_worded_as_a_verdict_on_settings(page, sweep):
    assert "which setting would be better if it were trained again" in page.text
    assert "Comparisons with the best network" in page.text
    for words in ("Best setting", "best setting", "setting is better", "setting is shown", "Effects of swept keys"):
        assert words not in page.text
    effects = page.text.split("Scores by swept key")[1].split("Comparisons with the best network")[0]
    pills = [found for found in page.all("span") if found.get("class", "").startswith("mark")]
    assert pills
    assert not re.search(
        r"\b(better|worse)\b", effects.split("better in pairs p verdict")[1].split("sample_strategy")[0]
    )


def test_too_few_songs_give_no_verdict_and_the_report_says_what_is_needed(tmp_path):
    rates = {"train_config.learning_rate": [0.1, 0.01]}
    text = render(prepare(tmp_path, rates, num_items=12, num_songs=4)).text
    assert "only 4 songs, too few for any verdict: at least 5 songs are needed" in text
    assert "too few songs to tell" in text
    assert "shown to be better (" not in text and "shown to be worse (" not in text


def speakers(sweep):
    for path in sweep.score_files:
        table = pd.read_parquet(path)
        number = table["item"].astype(int)
        table["speaker_0"], table["speaker_1"] = (number % 6).astype(str), ((number + 1 + number // 6) % 6).astype(str)
        table.to_parquet(path)


def test_mixtures_of_speakers_are_reported_in_speakers(tmp_path):
    rates = {"train_config.learning_rate": [0.1, 0.01]}
    text = render(prepare(tmp_path, rates, change=speakers, num_items=12)).text
    assert "On 12 test mixtures of 6 speakers" in text
    assert "songs" not in text.split("Points and baselines")[0]


def test_unknown_songs_and_speakers_are_a_reason_for_doubt(tmp_path):
    def forget(sweep):
        for path in sweep.score_files:
            pd.read_parquet(path).drop(columns="songs").to_parquet(path)

    rates = {"train_config.learning_rate": [0.1, 0.01]}
    text = render(prepare(tmp_path, rates, change=forget, num_items=12)).text
    assert "The songs or speakers of the test mixtures are not recorded" in text


def test_recordings_without_speakers_are_a_reason_for_doubt(tmp_path, page):
    def combine(sweep):
        for path in sweep.score_files:
            table = pd.read_parquet(path)
            table["songs"] = table["songs"] + "+other" + (table["item"].astype(int) % 5).astype(str)
            table.to_parquet(path)

    rates = {"train_config.learning_rate": [0.1, 0.01]}
    text = render(prepare(tmp_path, rates, change=combine, num_items=12)).text
    assert "their speakers are not recorded" in text
    assert "their speakers are not recorded" not in page.text


def test_the_table_shows_points_by_validation_loss_with_the_keys_that_vary(page, sweep):
    rows = [found for found in page.all("tr") if "data-point" in found]
    summary = pd.read_csv(sweep.files.summary).dropna(subset="validation_loss").sort_values("validation_loss")
    assert [row["title"].split(",")[0] for row in rows] == summary["point"].tolist()
    assert rows[0]["class"] == "best"
    assert [row["data-key0"] for row in rows] == [f"{rate:g}" for rate in summary["train_config.learning_rate"]]
    assert len([found for found in page.all("tr") if found.get("class") == "baseline"]) == 5
    heads = page.text.split("all metrics and ids", 1)[1].split("0.01", 1)[0].split()
    assert heads[:3] == ["#", "learning_rate", "sample_strategy"]


def test_keys_with_one_value_have_no_column(tmp_path):
    swept = {"train_config.learning_rate": [0.1, 0.01], "train_config.batch_size": [8]}
    shown = render(prepare(tmp_path, swept, num_items=6, num_songs=3))
    assert [found.get("title") for found in shown.all("th", scope="col") if "config" in found.get("title", "")] == [
        "train_config.learning_rate"
    ]


def test_best_median_and_worst_mixture_can_be_played(page):
    players = page.all("audio")
    assert len(players) == 3 * (1 + 2 + 2)
    for player in players:
        assert "controls" in player
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(player["src"].split("base64,")[1])))
        assert (rate, len(samples)) == (8000, 4000)
        assert np.abs(samples).max() > 0.05
    labels = [player["aria-label"] for player in players]
    for role in ("best", "median", "worst"):
        named = [label.split(",")[0] for label in labels if f"{role} mixture" in label]
        assert named == [
            "mixture",
            *("accompaniment reference", "accompaniment estimate"),
            *("vocals reference", "vocals estimate"),
        ]


def test_spectrograms_show_a_tone_at_its_time_and_frequency(page):
    picture = next(found for found in page.all("img") if found["alt"].startswith("Spectrogram: vocals reference"))
    image = Image.open(io.BytesIO(base64.b64decode(picture["src"].split("base64,")[1]))).convert("L")
    levels = np.asarray(image).mean(axis=1)
    # The tone of the simulated voice has partials up to 1.4 kHz of 4 kHz; low frequencies are at the bottom
    assert levels[-40:].max() > 3 * levels[:50].max()


def test_user_text_is_escaped(page, sweep):
    source = sweep.files.report.read_text(encoding="utf-8")
    assert "Is <script>alert('notes')</script> & more shown as written?" in page.text
    assert "<script>alert" not in source
    assert "<b>bold" not in source
    assert "<i>music" not in source


def test_labels_and_values_are_escaped_in_charts(tmp_path):
    evil = "</script><script>alert('label')</script>"
    swept = {"train_config.class": [evil, "Trainer"]}
    shown = render(prepare(tmp_path, swept, draw=True, num_items=6, num_songs=3))
    assert "<script>alert" not in (tmp_path / "report.html").read_text()
    assert evil in shown.text
    charts = [json.loads(data) for inside, data in shown.raw if data.startswith('{"')]
    assert any(evil in json.dumps(chart) for chart in charts)


def test_every_chart_has_a_description_for_screen_readers(page, sweep):
    index = read_json(sweep.files.figure_index)
    assert {entry["section"] for entry in index} == set(SECTIONS)
    assert {found["id"] for found in page.all("figure")} == {f"figure-{entry['name']}" for entry in index}
    for found in page.all("div", class_="plot"):
        assert found["role"] == "img"
        assert len(found["aria-label"]) > 20
    for image in page.all("img"):
        assert image["alt"]


def test_links_and_labels_refer_to_existing_elements(page):
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    for link in page.all("a"):
        if link["href"].startswith("#"):
            assert link["href"][1:] in ids
    for _, attributes in page.elements:
        for name in attributes.get("aria-labelledby", "").split():
            assert name in ids
    assert len(ids) == sum("id" in attributes for _, attributes in page.elements)


def test_the_report_has_provenance_and_definitions(page):
    for words in ("0123abc", "nussl 1.1.9", "toy_music-0123456789ab", "https://example.org/licence", "2026-01-02"):
        assert words in page.text
    assert "info:" in page.text
    assert "Test scores play no part in the choice" in page.text
    for metric in ("SI-SDR", "SI-SIR", "SI-SAR", "SNR"):
        assert re.search(rf"{metric} S[a-z-]+", page.text)


def test_tables_can_be_downloaded(page, sweep):
    link = page.all("a", download="summary.csv")[0]
    assert base64.b64decode(link["href"].split("base64,")[1]) == sweep.files.summary.read_bytes()


def test_same_input_gives_same_bytes(page, sweep, tmp_path):
    again = copy_of(sweep, tmp_path / "again", without="report.html")
    render(again)
    assert again.files.report.read_bytes() == sweep.files.report.read_bytes()


def test_sweeps_without_audio_have_a_report(sweep, tmp_path):
    shown = render(copy_of(sweep, tmp_path / "silent", without="estimates"), {})
    assert not shown.all("audio")
    assert "Listen" not in shown.text


def test_only_the_evaluation_that_the_verdict_is_about_is_played(tmp_path):
    def evaluate_again(sweep):
        best = sweep.points[2]
        folder = sweep.folder(best["point"])
        first, second = folder.evaluation(best["evaluation"]), folder.evaluation("other-evaluation")
        shutil.copytree(first.path, second.path)
        pd.read_parquet(first.scores).assign(evaluation="other-evaluation").to_parquet(second.scores)
        sweep.score_files.append(second.scores)
        sweep.points.append(best | {"evaluation": "other-evaluation"})

    rates = {"train_config.learning_rate": [0.1, 0.01, 0.001]}
    shown = render(prepare(tmp_path, rates, change=evaluate_again, num_items=6, num_songs=3))
    assert len(shown.all("audio")) == 3 * 5


def test_the_report_states_how_the_best_point_is_chosen(page):
    assert "The network is chosen on validation and reported on test." in page.text


def test_each_loss_has_a_best_point_if_losses_differ(tmp_path):
    losses = [[["DeepClusteringLoss", "embedding", 1.0]], [["L1Loss", "estimates", 1.0]]]
    swept = {"train_config.loss_function": losses, "train_config.learning_rate": [0.1, 0.01]}
    sweep = prepare(tmp_path, swept, num_items=6, num_songs=3)
    text = render(sweep).text
    assert "their validation losses measure different things and are not comparable" in text
    text = text.split("The best point of each loss")[1].split("Points and baselines")[0]
    summary = pd.read_csv(sweep.files.summary).dropna(subset="validation_loss")
    for _, points in summary.groupby("train_config.loss_function"):
        best = points.loc[points["validation_loss"].idxmin()]
        assert f"{best['label']} {best['validation_loss']:.4g}" in text
        assert f"{best['SI-SDRi']:.2f}" in text


def test_points_with_one_loss_are_comparable(page):
    assert "not comparable" not in page.text
    assert "The best point of each loss" not in page.text


def test_costs_are_shown_with_scores(page, sweep):
    text = page.text.split("Total training time:")[1].split("What the numbers mean")[0]
    # 12 epochs of 2.5 + 0.5 * (index % 5) seconds
    assert text.startswith(" 5 min 18 s")
    assert "Devices: cpu." in text
    summary = pd.read_csv(sweep.files.summary).set_index("point")
    best = summary[summary["best"]].iloc[0]
    assert f"12 42 s cpu 402 – – – – – {best['SI-SDRi']:.2f} {best['SI-SDRi'] / 0.7:.4g}" in text


def test_scores_by_condition_are_also_tables(page, sweep):
    conditions = pd.read_csv(sweep.files.conditions)
    text = page.text.split("Values as tables")[1].split("Effects of swept keys")[0]
    best = pd.read_csv(sweep.files.summary).query("best").iloc[0]
    for _, row in conditions[conditions["point"] == best["point"]].iterrows():
        assert row["condition"] in text
        assert f"{row['mean']:.2f}".replace("-", "−") in text
        assert f"n = {row['items']}" in text


def test_metrics_are_defined(page):
    text = page.text.split("Definition of SI-SDR ")[1]
    for words in ("ICASSP 2019", "filter length 1 (a gain)", "permutation", "aggregation mean over channels"):
        assert words in text


def test_medians_are_in_hidden_columns(page, sweep):
    best = pd.read_csv(sweep.files.summary).query("best").iloc[0]
    cells = [found for found in page.all("td", class_="extra") if "data-sort" in found]
    assert str(best["SI-SDRi_median"]) in {found["data-sort"][: len(str(best["SI-SDRi_median"]))] for found in cells}


def test_the_report_explains_missing_intervals(tmp_path):
    text = render(prepare(tmp_path, {"train_config.learning_rate": [0.1, 0.01]}, num_items=4, num_songs=1)).text
    assert "(no interval: too few songs, speakers or trainings)" in text
    assert "nan" not in text.lower().replace("nano", "")


def test_long_audio_is_truncated(tmp_path):
    rates = {"train_config.learning_rate": [0.1, 0.01, 0.001]}
    sweep = prepare(tmp_path, rates, num_items=6, num_songs=3, seconds=18, sample_rate=48000)
    shown = render(sweep)
    # 15 clips of 48 kHz, two bytes each sample, in 24 MB
    assert "first 16.7 s" in shown.text
    assert sweep.files.report.stat().st_size < 40e6


def test_report_size_hardly_depends_on_the_number_of_items(tmp_path):
    sizes = []
    for items in (30, 300):
        folder = tmp_path / str(items)
        folder.mkdir()
        rates = {"train_config.learning_rate": [0.1, 0.01, 0.001, 0.0001]}
        sweep = prepare(folder, rates, num_items=items, num_songs=10, draw=True, seconds=0.1)
        render(sweep)
        sizes.append(sweep.files.report.stat().st_size)
    assert sizes[1] - sizes[0] < 150_000
