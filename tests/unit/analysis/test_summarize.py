"""Collecting scores and summarizing sweeps."""

import shutil

import numpy as np
import pandas as pd
import pytest

from separation.analysis.summarize import collect_scores, summarize_sweep
from separation.analysis.sweep_tables import mean_scores
from separation.errors import UserError
from separation.files.layout import SweepFiles
from separation.publishing.sheet_table import POINT, Column, sheet_table
from separation.report.figures import plot_sweep
from separation.report.render import render_report
from simulated_sweep import BASELINE_EVALUATION, BASELINE_GAINS, EVALUATION, SOURCES, simulate_sweep

KEYS = ["train_config.learning_rate", "train_config.sample_strategy"]


def analyze(sweep):
    collect_scores(sweep.points, sweep.score_files, sweep.files)
    summarize_sweep(sweep.files, sweep.artifacts)
    return pd.read_csv(sweep.files.summary), pd.read_csv(sweep.files.comparisons)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    sweep = simulate_sweep(tmp_path_factory.mktemp("sweep"))
    analyze(sweep)
    return sweep


@pytest.fixture(scope="module")
def summary(sweep):
    return pd.read_csv(sweep.files.summary)


@pytest.fixture(scope="module")
def comparisons(sweep):
    return pd.read_csv(sweep.files.comparisons)


@pytest.fixture(scope="module")
def scores(sweep):
    return pd.read_parquet(sweep.files.scores)


@pytest.fixture
def small(tmp_path):
    return simulate_sweep(tmp_path, {"train_config.learning_rate": [0.1, 0.01]}, num_items=12, num_songs=6)


def test_points_csv_has_the_swept_keys_of_each_point(sweep):
    points = pd.read_csv(sweep.files.points, dtype=str)
    assert points.columns.tolist() == ["point", "label", *KEYS, "block", "seed", "group", "evaluation"]
    assert len(points) == 8
    assert points.loc[3, KEYS].tolist() == ["0.01", "random"]
    assert points.loc[3, "label"] == "learning_rate=0.01, sample_strategy=random"


def test_scores_of_points_and_baselines_are_one_tidy_table(scores):
    assert scores.columns.tolist() == [
        *("point", "evaluation", "dataset", "split", "item", "source"),
        *("SI-SDR", "SI-SDRi", "SI-SIR", "SI-SAR", "SNR"),
        *("coherent", "songs", "snr_vocals"),
    ]
    assert len(scores) == (8 + 5) * 48 * 2
    assert set(BASELINE_GAINS) < set(scores["point"])
    assert scores["coherent"].dtype == bool


def test_summary_has_a_row_per_point_and_per_baseline(summary):
    metrics = ["SI-SDR", "SI-SDRi", "SI-SIR", "SI-SAR", "SNR"]
    expected = ["point", "evaluation", "label", *KEYS, "validation_loss"]
    ends = ("", "_low", "_high", "_median", "_median_low", "_median_high")
    expected += [f"{metric}{end}" for metric in metrics for end in ends]
    expected += ["oracle_share", "items", *(f"{metric}:{source}" for metric in metrics for source in sorted(SOURCES))]
    expected += ["parameters", "multiply_adds_per_second", "real_time_factor", "peak_memory_mb", "non_finite", "best"]
    assert summary.columns.tolist() == expected
    assert len(summary) == 8 + 5
    assert summary["point"].tolist()[8:] == list(BASELINE_GAINS)
    assert (summary["items"] == 48).all()


def test_scores_by_source_are_means_over_items(summary, scores):
    for _, row in summary.iterrows():
        for source in SOURCES:
            of_source = scores[(scores["point"] == row["point"]) & (scores["source"] == source)]
            assert row[f"SI-SDRi:{source}"] == pytest.approx(of_source["SI-SDRi"].mean(), abs=1e-4)


def test_c_sdr_is_the_median_over_songs_and_the_mean_over_sources(small):
    for path in small.score_files:
        table = pd.read_parquet(path)
        table.insert(6, "cSDR", 2 * table["SI-SDR"])
        table.to_parquet(path)
    summary, _ = analyze(small)
    scores = pd.read_parquet(small.files.scores)
    songs = scores.assign(songs=scores["songs"].astype(str)).groupby(["point", "source", "songs"])["cSDR"].median()
    expected = songs.groupby(["point", "source"]).median().unstack("source")
    for _, row in summary.iterrows():
        of_sources = [row[f"cSDR:{source}"] for source in sorted(SOURCES)]
        assert of_sources == pytest.approx(expected.loc[row["point"]].tolist(), abs=1e-4)
        assert row["cSDR"] == pytest.approx(np.mean(of_sources), abs=1e-4)
        assert np.isnan(row["cSDR_low"])


def test_estimates_without_a_score_are_counted(small):
    path = small.score_files[0]
    table = pd.read_parquet(path)
    table["non_finite"] = [True, True, *[False] * (len(table) - 2)]
    table.to_parquet(path)
    summary, _ = analyze(small)
    broken = summary["point"] == table["point"].iloc[0]
    assert summary.loc[broken, "non_finite"].tolist() == [2] and (summary.loc[~broken, "non_finite"] == 0).all()


def test_means_weight_items_and_sources_equally(summary, scores):
    for metric in ("SI-SDR", "SI-SDRi", "SI-SAR"):
        expected = scores.groupby("point")[metric].mean().reindex(summary["point"])
        np.testing.assert_allclose(summary[metric], expected, rtol=1e-5, atol=1e-8)
        assert (summary[f"{metric}_low"] <= summary[metric] + 1e-9).all()
        assert (summary[f"{metric}_high"] >= summary[metric] - 1e-9).all()


def test_all_tables_and_the_event_log_agree_on_the_mean_of_a_point(small):
    for path in small.score_files:
        table = pd.read_parquet(path)
        table.loc[[3, 8], ["SI-SDR", "SI-SDRi", "SI-SIR", "SI-SAR", "SNR"]] = np.nan  # silent sources have no scores
        table.to_parquet(path)
    summary, comparisons = analyze(small)
    summary, groups = summary.set_index("point"), pd.read_csv(small.files.groups).set_index("group")
    sheet = {row[POINT]: row for row in sheet_table(small.files.points, small.files.scores, {}).rows}
    logged = {}
    for point in small.points:
        name = point["point"]
        logged[name] = mean_scores(small.folder(name).evaluation(EVALUATION).scores)["metrics"]
        for metric in ("SI-SDR", "SI-SIR", "SI-SAR"):
            assert sheet[name][Column("Overall", metric)] == round(logged[name][metric], 2)
            assert summary.loc[name, metric] == pytest.approx(logged[name][metric], rel=1e-5)
            assert groups.loc[point["group"], metric] == pytest.approx(logged[name][metric], rel=1e-5)
    best, other = sorted(logged, key=lambda name: summary.loc[name, "validation_loss"])
    effect = comparisons[comparisons["kind"] == "effect"].iloc[0]
    assert effect["difference"] == pytest.approx(logged[other]["SI-SDRi"] - logged[best]["SI-SDRi"], rel=1e-4)


def test_medians_are_within_their_intervals(summary, scores):
    expected = scores.groupby("point")["SI-SDRi"].median().reindex(summary["point"])
    assert np.allclose(summary["SI-SDRi_median"], expected, atol=1e-4)
    others = summary[summary["point"] != "mixture"]  # its improvement is 0 everywhere
    assert (others["SI-SDRi_median_low"] < others["SI-SDRi_median"]).all()
    assert (others["SI-SDRi_median"] < others["SI-SDRi_median_high"]).all()


def seeded(folder, rates, seeds=3, **arguments):
    """A sweep of learning rates with several seeds; `analyze` it."""
    swept = {"train_config.learning_rate": rates, "info.seed": list(range(seeds))}
    sweep = simulate_sweep(folder, swept, **({"num_items": 24, "num_songs": 8} | arguments))
    for number, point in enumerate(sweep.points):
        point["group"], point["seed"] = f"group{number // seeds}", number % seeds
    return sweep


def test_points_that_differ_only_in_the_seed_are_a_group(tmp_path):
    sweep = seeded(tmp_path, [0.1, 0.01])
    summary, comparisons = analyze(sweep)
    table = pd.read_csv(sweep.files.groups)
    assert table["seeds"].tolist() == [3, 3] and table["group"].tolist() == ["group0", "group1"]
    assert "info.seed" not in table and table["train_config.learning_rate"].tolist() == [0.1, 0.01]
    for name, members in (("group0", summary[:3]), ("group1", summary[3:6])):
        row = table[table["group"] == name].iloc[0]
        assert row["SI-SDRi"] == pytest.approx(members["SI-SDRi"].mean(), abs=1e-4)
        assert row["SI-SDRi_seed_spread"] == pytest.approx(members["SI-SDRi"].std(), abs=1e-4)
        assert row["SI-SDRi_low"] < row["SI-SDRi"] < row["SI-SDRi_high"]
        assert row["validation_loss"] == pytest.approx(members["validation_loss"].mean(), abs=1e-4)
        assert row["oracle_share"] == pytest.approx(members["oracle_share"].mean(), abs=1e-4)
        assert row["unit"] == "song and training"
        assert row["network"] == members.loc[members["validation_loss"].idxmin(), "point"]
    best = table.loc[table["validation_loss"].idxmin()]
    assert table.loc[table["best"], "group"].tolist() == [best["group"]]
    found = comparisons[comparisons["kind"] == "group"]
    assert len(found) == 1 and found.iloc[0]["against"] == best["group"]
    other = table[table["group"] != best["group"]].iloc[0]
    assert found.iloc[0]["difference"] == pytest.approx(other["SI-SDRi"] - best["SI-SDRi"], abs=1e-3)
    assert found.iloc[0]["label"] == f"learning_rate={other['train_config.learning_rate']}"


def test_a_setting_trained_once_has_the_same_interval_in_both_tables(small):
    summary, _ = analyze(small)
    groups = pd.read_csv(small.files.groups)
    for row in groups.itertuples():
        same = summary.set_index("point").loc[row.network]
        assert row.unit == "song"
        for end in ("_low", "_high"):
            own = groups.set_index("group").loc[row.group, f"SI-SDRi{end}"]
            assert own == pytest.approx(same[f"SI-SDRi{end}"], rel=1e-5)
    assert not groups["best"].any()  # one training does not show which setting is best


def test_seeds_of_one_setting_never_compete(tmp_path):
    sweep = seeded(tmp_path, [0.1, 0.01, 0.001])
    _, comparisons = analyze(sweep)
    assert set(comparisons["kind"]) == {"baseline", "effect", "group", "group_pair", "group_baseline"}
    settings = comparisons[comparisons["kind"].str.startswith("group")]
    assert set(settings["question"]) == {"setting"}
    assert set(settings["unit"]) == {"song and training"}
    assert (comparisons["kind"].isin(["group", "group_pair"])).sum() == 3
    assert set(comparisons.loc[comparisons["kind"] == "effect", "key"]) == {"train_config.learning_rate"}
    assert set(comparisons.loc[comparisons["kind"] == "baseline", "question"]) == {"network"}


@pytest.mark.parametrize("missing", [1, 2])
def test_a_setting_trained_once_or_twice_gets_no_verdict(tmp_path, missing):
    sweep = seeded(tmp_path, [0.1, 0.01, 0.001])
    sweep.points = sweep.points[:-missing]
    _, comparisons = analyze(sweep)
    once = comparisons[(comparisons["point"] == "group2") & comparisons["kind"].isin(["group", "group_pair"])]
    assert set(once["verdict"]) == {"too few trainings to tell"}
    assert once["p_value"].isna().all() and once["difference_low"].isna().all()


def test_with_one_seed_no_row_is_about_a_setting(comparisons):
    assert set(comparisons["question"]) == {"network"}
    assert set(comparisons.loc[comparisons["kind"] != "effect", "unit"]) == {"song"}


def test_below_five_songs_there_are_intervals_and_no_verdict(tmp_path):
    sweep = simulate_sweep(tmp_path, {"train_config.learning_rate": [0.1, 0.01]}, num_items=12, num_songs=4)
    _, comparisons = analyze(sweep)
    found = comparisons[comparisons["kind"] != "effect"]
    assert set(found["verdict"]) == {"too few songs to tell"}
    assert found["p_value"].isna().all() and found["difference_low"].notna().all()


def test_a_family_has_one_name_and_its_own_adjustment(comparisons):
    families = comparisons.groupby("kind")["family"].unique()
    assert (families.map(len) == 1).all()
    for _, rows in comparisons.dropna(subset="p_value").groupby("family"):
        smallest = rows.loc[rows["p_value"].idxmin()]
        assert smallest["p_adjusted"] == pytest.approx(min(1, len(rows) * smallest["p_value"]), rel=1e-3)
        assert (rows["p_adjusted"] >= rows["p_value"]).all()


def test_conditions_csv_has_scores_by_mixing_condition(tmp_path):
    sweep = simulate_sweep(tmp_path, {"train_config.learning_rate": [0.1, 0.01]}, num_items=40, num_songs=8)
    for path in sweep.score_files:
        table = pd.read_parquet(path)
        low = table["snr_vocals"].rank(method="dense") <= table["snr_vocals"].nunique() / 2
        for metric in ("SI-SDR", "SI-SDRi"):
            table[metric] -= np.where(low, 3.0, 0.0)  # the effect to find
        table["coherent"] = table["item"].rank(method="dense") % 2 == 0
        table.to_parquet(path)
    analyze(sweep)
    conditions, scores = pd.read_csv(sweep.files.conditions), pd.read_parquet(sweep.files.scores)
    assert set(conditions["condition"]) == {"coherent", "snr_vocals"}
    point = sweep.points[0]["point"]
    own = conditions[conditions["point"] == point]
    levels = own[own["condition"] == "snr_vocals"]
    assert len(levels) == 4 and levels["items"].sum() == 40
    assert levels["mean"].iloc[2:].min() > levels["mean"].iloc[:2].max() + 1.0
    rows = scores[scores["point"] == point]
    for row in levels.itertuples():
        last = row.Index == levels.index[-1]
        inside = (rows["snr_vocals"] >= row[3] - 1e-4) & (
            (rows["snr_vocals"] <= row.to + 1e-4) if last else (rows["snr_vocals"] < row.to - 1e-4)
        )
        assert row.mean == pytest.approx(rows[inside]["SI-SDRi"].mean(), abs=0.05)
        assert row.low < row.mean < row.high
    coherent = own[own["condition"] == "coherent"].set_index("value")
    assert coherent.loc["yes", "mean"] == pytest.approx(rows[rows["coherent"]]["SI-SDRi"].mean(), abs=1e-4)


def name_speakers(sweep, pairs):
    """Gives the n-th item the speakers of the n-th pair, over and over."""
    for path in sweep.score_files:
        table = pd.read_parquet(path)
        number = table["item"].rank(method="dense").astype(int) - 1
        for place in (0, 1):
            table[f"speaker_{place}"] = [pairs[item % len(pairs)][place] for item in number]
        table.to_parquet(path)


def test_mixtures_of_speakers_are_counted_in_speakers(small):
    name_speakers(small, ["ab", "bc", "cd", "de", "ea", "ac"])
    _, comparisons = analyze(small)
    found = comparisons[comparisons["kind"] == "best"]
    assert set(found["unit"]) == {"speaker"} and set(found["speakers"]) == {5} and found["songs"].isna().all()
    assert set(pd.read_csv(small.files.conditions)["speakers"].dropna()) <= {2, 3, 4, 5}


def test_speakers_who_always_speak_together_are_not_enough(small):
    name_speakers(small, ["ab", "ba", "cd", "ef"])
    _, comparisons = analyze(small)
    found = comparisons[comparisons["kind"] == "best"]
    assert set(found["speakers"]) == {6} and set(found["verdict"]) == {"too few speakers to tell"}


def test_intervals_allow_for_speakers_that_occur_in_many_pairs(small):
    differences = []
    for pairs in (["ab", "cd", "ef", "gh", "ij", "kl"], ["ab", "ac", "ad", "bc", "bd", "cd"]):
        name_speakers(small, pairs)
        _, comparisons = analyze(small)
        row = comparisons[comparisons["kind"] == "best"].iloc[0]
        differences.append(row["difference_high"] - row["difference_low"])
    assert differences[1] > differences[0]


def test_best_point_is_chosen_by_validation_loss_even_if_another_scores_higher_on_test(sweep, summary):
    points = [point["point"] for point in sweep.points]
    losses = {point: pd.read_csv(sweep.folder(point).history)["validation_loss"].min() for point in points}
    lowest = min(losses, key=losses.get)
    highest = summary[summary["evaluation"] == EVALUATION].set_index("point")["SI-SDRi"].idxmax()
    assert lowest != highest
    assert summary.loc[summary["best"], "point"].tolist() == [lowest]
    row = summary.set_index("point").loc[lowest]
    assert row["validation_loss"] == pytest.approx(losses[lowest], rel=1e-5)


def test_oracle_share_is_the_closed_part_of_the_gap_to_the_ideal_binary_mask(summary, scores):
    means = scores.groupby("point")["SI-SDR"].mean()
    shares = summary.set_index("point")["oracle_share"]
    for point in summary["point"]:
        gap = means["ideal_binary_mask"] - means["mixture"]
        assert shares[point] == pytest.approx((means[point] - means["mixture"]) / gap, abs=1e-5)
    assert shares["mixture"] == 0
    assert shares["ideal_binary_mask"] == 1


def test_intervals_resample_songs_instead_of_mixtures(tmp_path, summary):
    sweep = simulate_sweep(tmp_path)
    for path in sweep.score_files:
        pd.read_parquet(path).drop(columns="songs").to_parquet(path)
    by_item, _ = analyze(sweep)
    wide = summary["SI-SDRi_high"] - summary["SI-SDRi_low"]
    narrow = by_item["SI-SDRi_high"] - by_item["SI-SDRi_low"]
    assert (wide[:8] > 1.2 * narrow[:8]).all()


def test_every_pair_of_points_is_compared_on_the_same_sources_of_the_same_items(comparisons, scores):
    points = comparisons[comparisons["kind"].isin(["best", "pair"])]
    assert (points["kind"] == "pair").sum() == 8 * 7 / 2
    assert (points["kind"] == "best").sum() == 7
    table = scores.pivot(index=["item", "source"], columns="point", values="SI-SDRi")
    for row in points.itertuples():
        difference = table[row.point] - table[row.against]
        assert row.difference == pytest.approx(difference.mean(), rel=1e-4, abs=1e-6)
        of_items = difference.groupby("item").mean()
        assert row.effect_size == pytest.approx(of_items.mean() / of_items.std(), rel=1e-4)
        assert row.share_better == pytest.approx((of_items > 0).mean(), abs=1e-5)


def test_verdicts_follow_the_adjusted_p_values(comparisons):
    judged = comparisons.dropna(subset="p_value")
    shown = judged["p_adjusted"] < 0.05
    assert (judged.loc[~shown, "verdict"] == "no difference shown").all()
    assert (judged.loc[shown & (judged["difference"] > 0), "verdict"] == "better").all()
    assert (judged.loc[shown & (judged["difference"] < 0), "verdict"] == "worse").all()
    # an interval that excludes 0 and a verdict never disagree
    assert (shown == ((judged["difference_low"] >= 0) | (judged["difference_high"] <= 0))).all()
    assert set(judged["verdict"]) == {"better", "worse", "no difference shown"}


def test_main_effects_need_three_pairs_of_trainings(comparisons):
    effects = comparisons[comparisons["kind"] == "effect"].set_index(["key", "label"])
    few = effects.loc[KEYS[0]]
    assert set(few["matched_pairs"]) == {2} and set(few["verdict"]) == {"too few pairs of trainings to tell"}
    assert few["p_value"].isna().all() and few["difference_low"].isna().all()
    enough = effects.loc[(KEYS[1], "random")]
    assert enough["matched_pairs"] == 4 and np.isfinite(enough["p_value"])
    assert enough["unit"] == "song and pair of trainings"


def test_the_best_point_is_compared_with_every_baseline(comparisons, summary):
    rows = comparisons[comparisons["kind"] == "baseline"].set_index("against")
    assert rows.index.tolist() == list(BASELINE_GAINS)
    assert rows.loc["fixed_mask", "verdict"] == "better"
    assert rows.loc["ideal_binary_mask", "verdict"] == "worse"
    means = summary.set_index("point")["SI-SDRi"]
    best = summary.loc[summary["best"], "point"].iloc[0]
    expected = means[best] - means["fixed_mask"]
    assert rows.loc["fixed_mask", "difference"] == pytest.approx(expected, abs=1e-4)


def test_effects_are_computed_over_pairs_with_all_other_keys_equal(comparisons, summary):
    effects = comparisons[comparisons["kind"] == "effect"].set_index(["key", "label"])
    means = summary.set_index(KEYS)["SI-SDRi"]
    # The best point has learning rate 0.01 and sequential excerpts
    row = effects.loc[(KEYS[0], "0.1")]
    expected = np.mean([means[0.1, way] - means[0.01, way] for way in ("sequential", "random")])
    assert row["difference"] == pytest.approx(expected, abs=1e-4)
    assert row["matched_pairs"] == 2
    row = effects.loc[(KEYS[1], "random")]
    differences = [means[rate, "random"] - means[rate, "sequential"] for rate in (0.1, 0.01, 0.001, 0.0001)]
    assert row["difference"] == pytest.approx(np.mean(differences), abs=1e-4)
    assert row["pairs_better"] == sum(difference > 0 for difference in differences)


def test_effects_without_matching_pairs_are_not_computed(small):
    for point, other in zip(small.points, ("adam", "sgd"), strict=True):
        point["swept"]["train_config.optimizer"] = other
    _, comparisons = analyze(small)
    effects = comparisons[comparisons["kind"] == "effect"]
    assert len(effects) == 2
    assert effects["difference"].isna().all()
    assert (effects["verdict"] == "never met with all else equal").all()


def test_same_input_gives_same_bytes(sweep, tmp_path):
    again = SweepFiles(tmp_path)
    for path in (sweep.files.points, sweep.files.scores):
        shutil.copy(path, tmp_path)
    summarize_sweep(again, sweep.artifacts)
    for table in ("summary", "comparisons", "groups", "conditions"):
        assert getattr(again, table).read_bytes() == getattr(sweep.files, table).read_bytes()


def test_duplicate_score_files_count_once(small):
    small.score_files.append(small.score_files[0])
    summary, _ = analyze(small)
    assert len(pd.read_parquet(small.files.scores)) == (2 + 5) * 12 * 2
    assert len(summary) == 7


def test_estimates_scored_in_two_files_are_an_error(small, tmp_path):
    copy = tmp_path / "copy.parquet"
    shutil.copy(small.score_files[0], copy)
    with pytest.raises(UserError, match="scored once"):
        collect_scores(small.points, [*small.score_files, copy], small.files)


def test_conditions_missing_from_a_file_are_null(small):
    lacking = small.score_files[-1]
    pd.read_parquet(lacking).drop(columns=["songs", "coherent"]).to_parquet(lacking)
    collect_scores(small.points, small.score_files, small.files)
    table = pd.read_parquet(small.files.scores)
    assert table.loc[table["point"] == small.points[-1]["point"], "songs"].isna().all()
    assert table.loc[table["point"] == "mixture", "songs"].notna().all()


def test_songs_may_be_lists(small):
    for path in small.score_files:
        table = pd.read_parquet(path)
        table["songs"] = [[song] for song in table["songs"]]
        table.to_parquet(path)
    _, comparisons = analyze(small)
    assert (comparisons.loc[comparisons["kind"] == "best", "songs"] == 6).all()


def test_mixtures_of_the_same_songs_depend_on_each_other_in_any_order(small):
    for path in small.score_files:
        table = pd.read_parquet(path)
        table["songs"] = np.where(table["item"].astype(int) % 2, "a+b", "b+a")
        table.to_parquet(path)
    _, comparisons = analyze(small)
    rows = comparisons[comparisons["kind"] == "best"]
    assert (rows["songs"] == 2).all()
    assert (rows["verdict"] == "too few songs to tell").all() and rows["difference_low"].isna().all()


def test_points_without_scores_keep_their_row(small):
    lost = small.points[1]["point"]
    small.score_files = [path for path in small.score_files if lost not in str(path)]
    summary, comparisons = analyze(small)
    row = summary.set_index("point").loc[lost]
    assert np.isnan(row["SI-SDRi"])
    assert row["items"] == 0
    assert lost not in set(comparisons["point"])


def test_points_without_a_finite_loss_are_never_the_best(small):
    path = small.folder(small.points[0]["point"]).history
    pd.read_csv(path).assign(validation_loss=np.nan).to_csv(path, index=False)
    summary, _ = analyze(small)
    assert summary.loc[summary["best"], "point"].tolist() == [small.points[1]["point"]]


def test_two_evaluations_of_one_training_have_a_row_each(small):
    point = small.points[0]
    file = next(path for path in small.score_files if point["point"] in str(path))
    other = pd.read_parquet(file).assign(evaluation="other-evaluation")
    other[["SI-SDR", "SI-SDRi"]] += 1
    path = file.with_name("other.parquet")
    other.to_parquet(path)
    small.score_files.append(path)
    for each in small.points:
        each["swept"]["algorithm_config.args.mask_type"] = "soft"
    small.points.append({**point, "evaluation": "other-evaluation"})
    small.points[-1]["swept"] = {**point["swept"], "algorithm_config.args.mask_type": "binary"}
    summary, comparisons = analyze(small)
    rows = summary[summary["point"] == point["point"]].set_index("evaluation")
    assert rows["algorithm_config.args.mask_type"].to_dict() == {EVALUATION: "soft", "other-evaluation": "binary"}
    assert rows.loc["other-evaluation", "SI-SDRi"] == pytest.approx(rows.loc[EVALUATION, "SI-SDRi"] + 1, abs=1e-4)
    effect = comparisons[comparisons["key"] == "algorithm_config.args.mask_type"].iloc[0]
    assert abs(effect["difference"]) == pytest.approx(1, abs=1e-4)


def test_points_are_compared_with_the_oracles_of_their_stft(small):
    for path in [path for path in small.score_files if "baselines" in str(path)]:
        table = pd.read_parquet(path).assign(evaluation="other-stft")
        table.loc[table["point"] == "ideal_binary_mask", "SI-SDR"] *= 2
        other = path.with_name("other.parquet")
        table.to_parquet(other)
        small.score_files.append(other)
    small.points[0]["baselines"], small.points[1]["baselines"] = BASELINE_EVALUATION, "other-stft"
    summary, _ = analyze(small)
    means = summary.set_index(["point", "evaluation"])["SI-SDR"]
    for point in small.points:
        row = summary[summary["point"] == point["point"]].iloc[0]
        floor, ceiling = (means[name, point["baselines"]] for name in ("mixture", "ideal_binary_mask"))
        assert row["oracle_share"] == pytest.approx((row["SI-SDR"] - floor) / (ceiling - floor), abs=1e-3)


def test_many_points_are_compared_only_with_the_best(tmp_path):
    sweep = simulate_sweep(tmp_path, {"train_config.weight_decay": list(range(25))}, num_items=6, num_songs=3)
    _, comparisons = analyze(sweep)
    assert (comparisons["kind"] == "best").sum() == 24
    assert (comparisons["kind"] == "pair").sum() == 0


def with_validation_scores(sweep, values, metric="SI-SDR"):
    """Gives each point a score on the validation split; returns the score files."""
    paths = []
    for point, value in zip(sweep.points, values, strict=True):
        folder = sweep.folder(point["point"]).validation("val-0123456789ab")
        folder.path.mkdir(parents=True)
        table = pd.read_parquet(sweep.folder(point["point"]).evaluation(EVALUATION).scores)
        table.assign(split="val", evaluation=folder.id, **{metric: value}).to_parquet(folder.scores, index=False)
        point |= {"validation": folder.id, "validation_metric": metric}
        paths.append(folder.scores)
    return paths


def test_the_best_point_follows_the_validation_score_where_there_is_one(tmp_path):
    sweep = simulate_sweep(tmp_path)
    values = [1.0, 5.0, 3.0, 2.0, 0.0, -1.0, 4.0, np.nan]
    validations = with_validation_scores(sweep, values)
    collect_scores(sweep.points, sweep.score_files, sweep.files, validations)
    summarize_sweep(sweep.files, sweep.artifacts)
    summary = pd.read_csv(sweep.files.summary)
    assert summary.loc[summary["best"], "point"].item().endswith("1"), "point 2 has the lowest loss, 3 the best test"
    assert summary["validation_score"].head(8).tolist() == pytest.approx(values, nan_ok=True)
    assert summary["validation_loss"].head(8).notna().all()
    groups = pd.read_csv(sweep.files.groups)
    assert groups["validation_score"].tolist() == pytest.approx(values, nan_ok=True)
    assert groups["validation_loss"].tolist() == pytest.approx(summary["validation_loss"].head(8).tolist(), rel=1e-4)
    found = pd.read_csv(sweep.files.comparisons)
    assert set(found.loc[found["kind"] == "best", "against"].str[-1]) == {"1"}
    plot_sweep(sweep.files, sweep.artifacts)
    render_report("scored", sweep.files, sweep.artifacts, {})
    page = sweep.files.report.read_text()
    assert "It was chosen by validation SI-SDR alone: its SI-SDR (5) is the highest of 8 trained networks." in page
    assert "The runner-up by validation SI-SDR (4) is" in page
    assert "ordered by validation SI-SDR, the best one first" in page
    assert "Does validation SI-SDR predict test score?" in page
