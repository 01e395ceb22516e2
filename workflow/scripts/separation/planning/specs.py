"""Specs and ids of training runs, evaluations, baselines and caches: the JSON that each result depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from separation.experiment.ids import (
    CLUSTERING_VERSION,
    STAGE_VERSIONS,
    TESTER_VERSIONS,
    canonical_json,
    digest,
    joined_json,
    normalized,
    slug,
    text_digest,
    without_excluded,
)
from separation.experiment.nussl_signatures import CLUSTERING_ALGORITHMS
from separation.experiment.testers import tester_entries
from separation.experiment.waveform_losses import WAVEFORM_LOSSES, LossEntry
from separation.planning.splits import Split

# keys of dataset_config that determine a cache of features; excerpts and weights are computed on reading
CACHED_KEYS = (
    "sample_rate", "num_channels", "n_fft", "hop_length", "window_type", "group_sources", "group_names",
    "ignore_sources", "source_labels", "output_type",
)  # fmt: skip
# a cache of audio is the same for all targets and data keys
AUDIO_CACHED_KEYS = tuple(key for key in CACHED_KEYS if key != "output_type")
AUDIO_ARRAYS = ("mix_audio", "source_audio")
# keys of dataset_config that determine the input of the baselines
BASELINE_KEYS = AUDIO_CACHED_KEYS

_TRAINING_VERSIONS = canonical_json({key: STAGE_VERSIONS[key] for key in ("features", "train")})
_CLUSTERING_LOSSES = ("deepclustering", "whitenedkmeans", "dpcl")


@dataclass(frozen=True)
class JobSpec:
    """The id of a job, and the canonical JSON that its result depends on."""

    id: str
    spec: str


@dataclass(frozen=True)
class Section:
    """One section of a config.

    Attributes:
        written: Section as the sweep yields it.
        value: Section with normalized numbers.
        identity: Canonical JSON of the keys that determine results.
    """

    written: dict[str, Any]
    value: dict[str, Any]
    identity: str


def section_of(name: str, written: dict[str, Any]) -> Section:
    """A section of a config, by its name."""
    value = normalized(written)
    return Section(written, value, canonical_json(without_excluded(value, name)))


def training_parts(
    config: Mapping[str, Section],
    splits: Mapping[str, Split],
    user_class_hashes: Mapping[str, str],
    package_version: Mapping[str, str],
) -> dict[str, str]:
    """Everything but the seed that determines a point's weights, by name, each as canonical JSON.

    Args:
        config: Sections of a point's config.
        splits: Splits by train, val and test.
        user_class_hashes: Hashes of the user's own classes that the network and its losses use.
        package_version: Version of the package that the network comes from, by its name.
    """
    parts = {name: config[name].identity for name in ("dataset_config", "model_config", "train_config")}
    parts["datasets"] = canonical_json({key: splits[key].identity for key in ("train", "val")})
    parts["versions"] = _TRAINING_VERSIONS
    if user_class_hashes:
        parts["extras"] = canonical_json(user_class_hashes)
    if package_version:
        parts["packages"] = canonical_json(package_version)
    return parts


def training_spec(parts: Mapping[str, str], train_config: Mapping[str, Any], dataset: str, seed: int) -> JobSpec:
    """A training run. Its id is <method>-<dataset>-s<seed>-<hex>."""
    spec = joined_json({**parts, "info": canonical_json({"seed": seed})})
    return JobSpec(f"{method_of(train_config)}-{slug(dataset)}-s{seed}-{text_digest(spec)}", spec)


def setting_digest(parts: Mapping[str, str], evaluation: str) -> str:
    """The digest of a setting: the same for training runs that differ only in the seed, under one evaluation."""
    return text_digest(joined_json({**parts, "evaluation": canonical_json(evaluation)}))


def method_of(train_config: Mapping[str, Any]) -> str:
    """The short name of the method, by its losses: dpcl, mi, chimera or time."""
    losses = {str(loss[0]).lower() for loss in train_config["loss_function"]}
    clustering = {loss for loss in losses if any(name in loss for name in _CLUSTERING_LOSSES)}
    if clustering:
        return "chimera" if losses - clustering else "dpcl"
    entries = [LossEntry.read(str(loss[0]), loss[3] if len(loss) > 3 else {}) for loss in train_config["loss_function"]]
    on_waveforms = any(entry is not None and entry.name in WAVEFORM_LOSSES for entry in entries)
    return "time" if on_waveforms or any("sisdr" in loss or "snr" in loss for loss in losses) else "mi"


def evaluation_spec(
    algorithm_config: Mapping[str, Any],
    test_config: Mapping[str, Any],
    test: Split,
    user_class_hashes: Mapping[str, str],
) -> JobSpec:
    """An evaluation of any point. Its id is <test data>-<hex>.

    Args:
        algorithm_config, test_config: Normalized sections.
        test: Split that is separated.
        user_class_hashes: Hashes of the user's own classes that the algorithm and the metrics use.
    """
    identity = {
        "algorithm_config": without_excluded(algorithm_config, "algorithm_config"),
        "test_config": without_excluded(test_config, "test_config"),
        "test": test.identity,
        "versions": {
            "evaluate": STAGE_VERSIONS["evaluate"],
            **evaluation_versions(algorithm_config, test_config["testers"], user_class_hashes),
        },
    }
    if user_class_hashes:
        identity["extras"] = dict(user_class_hashes)
    return JobSpec(f"{slug(test.name)}-{digest(identity)}", canonical_json(identity))


def evaluation_versions(
    algorithm_config: Mapping[str, Any], testers: Any, user_class_hashes: Mapping[str, str]
) -> dict[str, int]:
    """The versions of the parts of an evaluation whose results have changed since the first release."""
    versions = tester_versions(testers)
    name, args = algorithm_config["class"], algorithm_config.get("args") or {}
    clusters = name in CLUSTERING_ALGORITHMS or name in user_class_hashes
    by_k_means = args.get("clustering_type", "KMeans") != "GaussianMixture" and args.get("fit_clusterer", True)
    # scikit-learn's defaults, at which it makes one draw
    draws_once = args.get("n_init", "auto") == "auto" and args.get("init", "k-means++") == "k-means++"
    if clusters and by_k_means and draws_once:
        versions["clustering"] = CLUSTERING_VERSION
    return versions


def tester_versions(testers: Any) -> dict[str, int]:
    """The versions of the testers whose scores have changed since the first release.

    BSSEvalV4 with an explicit window and hop gives the same scores as ever.
    """
    versions = {}
    for name, args in tester_entries(testers):
        explicit = name == "BSSEvalV4" and {"window", "hop"} <= set(args or {})
        if name in TESTER_VERSIONS and not explicit:
            versions[name] = TESTER_VERSIONS[name]
    return versions


def baselines_spec(
    dataset_config: Mapping[str, Any],
    test_config: Mapping[str, Any],
    splits: Mapping[str, Split],
    metric_hashes: Mapping[str, str],
) -> JobSpec:
    """The baselines on a test split: the fixed mask is fitted on the training split.

    Args:
        dataset_config, test_config: Normalized sections.
        splits: Splits by train, val and test.
        metric_hashes: Hashes of the user's own metrics that test_config names.
    """
    identity = {
        "dataset_config": {key: dataset_config[key] for key in BASELINE_KEYS},
        "train": splits["train"].identity,
        "test": splits["test"].identity,
        "testers": test_config["testers"],
        "versions": {"baselines": STAGE_VERSIONS["baselines"], **tester_versions(test_config["testers"])},
    }
    if metric_hashes:
        identity["extras"] = dict(metric_hashes)
    return JobSpec(f"{slug(splits['test'].name)}-{digest(identity)}", canonical_json(identity))


def cache_spec(dataset_config: Mapping[str, Any], split: Split) -> JobSpec:
    """The cache of a dataset split."""
    if dataset_config["cache_kind"] == "audio":
        keys, arrays = AUDIO_CACHED_KEYS, list(AUDIO_ARRAYS)
    else:
        keys = CACHED_KEYS
        arrays = sorted(name for name in dataset_config["data_keys_for_training"] if name != "weights")
    identity = {
        "dataset": split.identity["id"],
        "opener": split.nussl_class,
        "dataset_config": {name: dataset_config[name] for name in keys},
        "keys": arrays,
        "kind": dataset_config["cache_kind"],
        "versions": {"features": STAGE_VERSIONS["features"]},
    }
    return JobSpec(f"{slug(split.name)}-{digest(identity)}", canonical_json(identity))
