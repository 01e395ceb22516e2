from pathlib import Path

import numpy as np
import pandas
import pytest

from separation.errors import UserError
from separation.evaluation.baselines import FixedMask, evaluate_baselines, phase_sensitive_mask
from separation.experiment.options import DatasetOptions
from separation.files.score_table import BASELINES
from small_dataset import DATASET_CONFIG, SAMPLE_RATE, open_items, source_audio, write_split

OPTIONS = DatasetOptions.read(DATASET_CONFIG)
TESTERS = [{"BSSEvalScale": {"compute_permutation": True, "best_permutation_key": "SI-SDR"}}]
PLAIN = {**DATASET_CONFIG, "group_sources": [], "group_names": None}


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return {
        "train": write_split(folder / "train", items=6, seed=1, name="train"),
        "test": write_split(folder / "test", items=4, seed=2),
    }


@pytest.fixture(scope="module")
def table(tmp_path_factory, splits):
    scores = tmp_path_factory.mktemp("scores") / "scores.parquet"
    evaluate_baselines(OPTIONS, TESTERS, **splits, scores=scores, evaluation="e")
    return pandas.read_parquet(scores)


def learn(split, config=PLAIN):
    return FixedMask(open_items(split, config), file=Path(split["folder"]))


def test_every_baseline_is_in_the_table(table):
    assert list(table["point"].unique()) == list(BASELINES)
    assert (table.groupby("point").size() == 8).all()
    assert set(table["evaluation"]) == {"e"} and set(table["source"]) == {"vocals", "accompaniment"}
    assert {"SI-SDR", "SI-SDRi", "SNR", "coherent", "snr_vocals"} <= set(table.columns)


def test_the_mixture_has_no_improvement_and_oracles_improve_more_than_the_fixed_mask(table):
    improvement = table.groupby("point")["SI-SDRi"].mean()
    assert improvement["mixture"] == 0.0
    assert improvement["fixed_mask"] > 0.5
    for oracle in ("ideal_binary_mask", "ideal_ratio_mask", "phase_sensitive_mask"):
        assert improvement[oracle] > improvement["fixed_mask"] + 2


def test_the_phase_sensitive_mask_has_the_highest_snr_of_all_masks(table):
    # it leaves the least squared error in every bin, so that no mask of the same range can have less noise
    snr = table.pivot_table(index=["item", "source"], columns="point", values="SNR")
    for name in BASELINES:
        assert (snr["phase_sensitive_mask"] >= snr[name] - 0.1).all()


def test_baselines_are_reproducible(tmp_path, splits, table):
    evaluate_baselines(
        DatasetOptions.read(DATASET_CONFIG), TESTERS, **splits, scores=tmp_path / "scores.parquet", evaluation="e"
    )
    pandas.testing.assert_frame_equal(pandas.read_parquet(tmp_path / "scores.parquet"), table, check_exact=True)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.parquet"]


def test_the_fixed_mask_separates_sources_without_common_frequencies(tmp_path):
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    tones = {"low": 0.1 * np.sin(2 * np.pi * 500 * time), "high": 0.1 * np.sin(2 * np.pi * 2000 * time)}
    split = write_split(tmp_path, items=2, audio=lambda i: tones)
    masks = learn(split).masks
    bins = {"low": 500 * 256 // SAMPLE_RATE, "high": 2000 * 256 // SAMPLE_RATE}
    for name, other in (("low", "high"), ("high", "low")):
        assert masks[name][bins[name]] > 0.99
        assert masks[name][bins[other]] < 0.01


def test_the_fixed_mask_of_two_noises_is_their_power_share(tmp_path):
    rng = np.random.default_rng(0)

    def audio(index):
        return {"strong": 0.1 * rng.normal(size=8 * SAMPLE_RATE), "weak": 0.05 * rng.normal(size=8 * SAMPLE_RATE)}

    masks = learn(write_split(tmp_path, items=3, audio=audio)).masks
    # power 4 : 1; with little data per frequency the shares scatter
    assert np.mean(masks["strong"]) == pytest.approx(0.8, abs=0.02)
    assert np.mean(masks["weak"]) == pytest.approx(0.2, abs=0.02)


def test_the_fixed_mask_leaves_less_error_on_its_training_data_than_any_other(tmp_path):
    split = write_split(tmp_path, items=3)
    items = open_items(split, PLAIN)
    mask = learn(split).masks["vocals"]

    def error(candidate):
        return sum(
            np.square(np.abs(item.sources["vocals"].stft() - candidate[:, None, None] * item.mixture.stft())).sum()
            for item in items
        )

    rng = np.random.default_rng(0)
    least = error(mask)
    for size in (0.01, 0.1, 1.0):
        assert least < error(np.clip(mask + size * rng.uniform(-1, 1, mask.shape), 0, 1))


def test_sources_unseen_in_training_get_the_masks_of_their_positions(tmp_path):
    rng = np.random.default_rng(0)
    seen = write_split(
        tmp_path / "train", items=2, audio=lambda i: {k: source_audio(k, rng) for k in ("bass", "vocals")}
    )
    others = {"anna": source_audio("bass", rng), "ben": source_audio("vocals", rng)}
    unseen = write_split(tmp_path / "test", items=1, audio=lambda i: others)
    fixed = learn(seen)
    estimates = fixed(open_items(unseen, PLAIN)[0])
    assert np.array_equal(fixed.masks[0], fixed.masks["bass"])
    assert len(estimates) == 2 and np.linalg.norm(estimates[0] - estimates[1]) > 0
    three = write_split(tmp_path / "three", items=1, audio=lambda i: {**others, "cara": source_audio("drums", rng)})
    with pytest.raises(UserError, match="3 sources, more than any training mixture"):
        fixed(open_items(three, PLAIN)[0])


def test_ideal_masks_restore_sources_that_do_not_overlap(tmp_path):
    rng = np.random.default_rng(0)
    half = np.arange(SAMPLE_RATE) < SAMPLE_RATE // 2
    audio = {"first": source_audio("vocals", rng) * half, "second": source_audio("vocals", rng) * ~half}
    item = open_items(write_split(tmp_path, items=1, audio=lambda i: audio), PLAIN)[0]
    for estimate, source in zip(phase_sensitive_mask(item), item.sources.values(), strict=True):
        error = np.sum((estimate - source.audio_data) ** 2) / np.sum(source.audio_data**2)
        assert error < 0.01
