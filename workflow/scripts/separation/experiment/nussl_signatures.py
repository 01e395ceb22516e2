"""Names and arguments of nussl 1.1.9's modules, algorithms, datasets and losses, without importing nussl.

Planning checks experiments against these tables; a test compares them with nussl's signatures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Arguments by class of nussl.ml.networks.modules
MODULES: dict[str, tuple[str, ...]] = {
    "Alias": (),
    "AmplitudeToDB": (),
    "BatchNorm": ("num_features", "feature_dim"),
    "Concatenate": ("dim",),
    "ConvolutionalStack2D": (
        "in_channels", "channels", "dilations", "filter_shapes", "residuals", "batch_norm", "use_checkpointing",
    ),
    "DualPath": ("num_layers", "chunk_size", "hop_size", "in_features", "bottleneck_size", "skip_connection"),
    "DualPathBlock": ("n_features", "hidden_size", "intra_processor", "inter_processor"),
    "Embedding": (
        "num_features", "hidden_size", "embedding_size", "activation", "num_audio_channels", "dim_to_embed", "bias",
        "reshape",
    ),
    "Expand": (),
    "FilterBank": (
        "num_filters", "filter_length", "hop_length", "window_type", "dilation", "direction", "requires_grad",
    ),
    "GaussianMixtureTorch": ("n_components", "n_iter", "covariance_type", "covariance_init", "reg_covar"),
    "GroupNorm": ("num_features", "num_groups", "feature_dim"),
    "InstanceNorm": ("num_features", "feature_dim"),
    "LayerNorm": ("num_features", "feature_dims"),
    "LearnedFilterBank": (
        "num_filters", "filter_length", "hop_length", "window_type", "dilation", "direction", "requires_grad",
    ),
    "Mask": (),
    "MelProjection": ("sample_rate", "num_frequencies", "num_mels", "direction", "clamp", "trainable", "normalize"),
    "RecurrentStack": (
        "num_features", "hidden_size", "num_layers", "bidirectional", "dropout", "rnn_type", "batch_first",
        "init_forget",
    ),
    "STFT": ("num_filters", "filter_length", "hop_length", "window_type", "dilation", "direction", "requires_grad"),
    "ShiftAndScale": ("learn_scale", "learn_shift"),
    "Split": ("split_sizes", "dim"),
}  # fmt: skip

# Modules that pass further arguments on to a torch module; the list of these arguments may be incomplete
FORWARDED_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "BatchNorm": ("eps", "momentum", "affine", "track_running_stats"),
    "GroupNorm": ("eps", "affine"),
    "InstanceNorm": ("eps", "momentum", "affine", "track_running_stats"),
    "LayerNorm": ("eps", "elementwise_affine", "bias"),
    "DualPath": ("hidden_size", "intra_processor", "inter_processor"),
    "DualPathBlock": (),
}

_MASKS = ("mask_type", "mask_threshold")
_CLUSTERING = ("num_sources", "clustering_type", "fit_clusterer", "percentile", "beta", *_MASKS)
# arguments of sklearn's KMeans, MiniBatchKMeans and GaussianMixture, which nussl's clustering passes on
_CLUSTERERS = (
    "init", "n_init", "max_iter", "tol", "random_state", "algorithm", "batch_size", "max_no_improvement", "init_size",
    "reassignment_ratio", "covariance_type", "reg_covar", "init_params", "warm_start",
)  # fmt: skip

# Arguments by class of nussl.separation.deep, without the audio signal
ALGORITHMS: dict[str, tuple[str, ...]] = {
    "DeepAudioEstimation": ("model_path", "device"),
    "DeepClustering": ("model_path", "device", *_CLUSTERING, *_CLUSTERERS),
    "DeepMaskEstimation": ("model_path", "device", *_MASKS),
}

# Algorithms of nussl.separation that cluster by k-means unless `clustering_type` says otherwise
CLUSTERING_ALGORITHMS = ("DeepClustering", "EnsembleClustering", "SpatialClustering", "TimbreClustering")

_AUDIO = ("sample_rate", "num_channels", "strict_sample_rate")
# Arguments, without the folder, by class of nussl.datasets that reads a folder; nothing is downloaded here
DATASETS: dict[str, tuple[str, ...]] = {
    "FUSS": ("split", "num_channels"),
    "MUSDB18": ("is_wav", "subsets", "split", *_AUDIO),
    "MixSourceFolder": ("mix_folder", "source_folders", "ext", "make_mix", *_AUDIO),
    "Scaper": _AUDIO,
    "WHAM": ("mix_folder", "mode", "split", "sample_rate", "num_channels"),
}

# Classes of torch.optim, in lower case
OPTIMIZERS: tuple[str, ...] = (
    "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw",
    "asgd", "lbfgs", "muon", "nadam", "radam", "rmsprop", "rprop", "sgd", "sparseadam",
)  # fmt: skip
# optimizers that need sparse gradients, which no network here has
SPARSE_OPTIMIZERS = ("sparseadam",)

# Model output that each deep algorithm of nussl reads
OUTPUT_OF_ALGORITHM = {"DeepClustering": "embedding", "DeepMaskEstimation": "mask", "DeepAudioEstimation": "audio"}

# Inputs by loss of nussl.ml.train.loss: the model's output (first), then keys of the batch
LOSSES: dict[str, tuple[str, ...]] = {
    "CombinationInvariantLoss": ("estimates", "source_magnitudes"),
    "DeepClusteringLoss": ("embedding", "ideal_binary_mask", "weights"),
    "KLDivLoss": ("estimates", "source_magnitudes"),
    "L1Loss": ("estimates", "source_magnitudes"),
    "MSELoss": ("estimates", "source_magnitudes"),
    "PermutationInvariantLoss": ("estimates", "source_magnitudes"),
    "SISDRLoss": ("audio", "source_audio"),
    "WhitenedKMeansLoss": ("embedding", "ideal_binary_mask", "weights"),
}


def keys_of_loss(name: str, arguments: Mapping[str, Any], losses: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Inputs of a loss: the output of the model, then data keys. Permutation losses take those of their inner loss."""
    inner = arguments.get("loss_function")
    if name in ("PermutationInvariantLoss", "CombinationInvariantLoss") and inner == "SISDRLoss":
        return losses[inner]
    return losses[name]


# Arguments of any module or algorithm; a plain sweep key that matches nothing in a file may be one of them
ARGUMENT_NAMES: frozenset[str] = frozenset(
    name for table in (MODULES, FORWARDED_ARGUMENTS, ALGORITHMS) for names in table.values() for name in names
)


def arguments_of(class_name: str) -> tuple[str, ...] | None:
    """Arguments of a module or algorithm; () for classes outside nussl (of torch, or the user's own)."""
    if class_name in MODULES:
        return MODULES[class_name] + FORWARDED_ARGUMENTS.get(class_name, ())
    return ALGORITHMS.get(class_name, ())
