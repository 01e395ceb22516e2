"""Wrong experiment files and recipes, each with its error message."""

from pathlib import Path

import pytest

from experiments import TINY, experiment, plan
from separation.errors import UserError
from separation.planning.expansion import load_workflow

LEARNING_RATE = "learning_rate: 0.01"

# (text in the file, its replacement, reported key, message)
EDITS = [
    ("num_epochs: 2", "num_epoch: 2", "train_config.num_epoch", "unknown key; did you mean 'num_epochs'?"),
    ("num_epochs: 2", "", "train_config", "missing key 'num_epochs'"),
    ("num_epochs: 2", "num_epochs: 0", "train_config.num_epochs", "expected at least 1, found 0"),
    ("num_epochs: 2", "num_epochs: 2.5", "train_config.num_epochs", "expected a whole number, found 2.5"),
    ("num_epochs: 2", "num_epochs: two", "train_config.num_epochs", "expected a whole number, found 'two'"),
    ("num_epochs: 2", "num_epochs: true", "train_config.num_epochs", "expected a whole number, found true"),
    ("num_epochs: 2", "num_epochs: [2]", "train_config.num_epochs", "expected a whole number, found [2]"),
    ("num_epochs: 2", "num_epochs:", "train_config.num_epochs", "expected a whole number, found null"),
    ("num_epochs: 2", "num_epochs: ${NO_SUCH_VARIABLE}", "train_config.num_epochs", "${NO_SUCH_VARIABLE} is not set"),
    (LEARNING_RATE, "learning_rate: fast", "train_config.learning_rate", "expected a number, found 'fast'"),
    (LEARNING_RATE, "learning_rate: 0", "train_config.learning_rate", "expected more than 0, found 0"),
    (LEARNING_RATE, "learning_rate: -1e-3", "train_config.learning_rate", "expected more than 0, found -0.001"),
    (LEARNING_RATE, "learning_rate: .inf", "train_config.learning_rate", "expected a finite number, found inf"),
    (LEARNING_RATE, "learning_rate: .nan", "train_config.learning_rate", "expected a finite number, found nan"),
    (LEARNING_RATE, "learning_rate: 1:30", "train_config.learning_rate", "expected a number, found '1:30'"),
    (LEARNING_RATE, "learning_rate_decay: 1", "train_config.learning_rate_decay", "expected less than 1, found 1"),
    (LEARNING_RATE, "sample_strategy: shuffled", "train_config.sample_strategy", "expected one of 'sequential', 'random', found 'shuffled'"),
    (LEARNING_RATE, "sample_strategy: randon", "train_config.sample_strategy", "did you mean 'random'?"),
    (LEARNING_RATE, "patience: -1", "train_config.patience", "expected at least 0, found -1"),
    (LEARNING_RATE, "data_parallel: yes", "train_config.data_parallel", "expected true or false, found 'yes'"),
    (LEARNING_RATE, "device: gpu", "train_config.device", "expected text that matches"),
    (LEARNING_RATE, "curriculum_learning: [{command: set_length, args: [1], num_epoch: 0}]", "train_config.curriculum_learning[0].command", "expected 'set_current_length', found 'set_length'"),
    (LEARNING_RATE, "curriculum_learning: [{args: [1], num_epoch: 0}]", "train_config.curriculum_learning[0]", "missing key 'command'"),
    (LEARNING_RATE, "weight_decay: -0.1", "train_config.weight_decay", "expected at least 0, found -0.1"),
    (LEARNING_RATE, f"{LEARNING_RATE}\n  {LEARNING_RATE}", "train_config.learning_rate", "duplicate key"),
    ("[DeepClusteringLoss, embedding, 1.0]", "[DeepClusterLoss, embedding, 1.0]", "train_config.loss_function[0]", "unknown loss 'DeepClusterLoss'; did you mean 'DeepClusteringLoss'?"),
    ("[DeepClusteringLoss, embedding, 1.0]", "[DeepClusteringLoss, embeding, 1.0]", "train_config.loss_function[0]", "the model has no output 'embeding'; did you mean 'embedding'?"),
    ("[DeepClusteringLoss, embedding, 1.0]", "[DeepClusteringLoss]", "train_config.loss_function[0]", "expected at least 2 entries, found 1"),
    ("[DeepClusteringLoss, embedding, 1.0]", "[L1Loss, embedding, 1.0]", "train_config.loss_function[0]", "L1Loss needs 'source_magnitudes' in dataset_config.data_keys_for_training"),
    ("    - [DeepClusteringLoss, embedding, 1.0]", "    []", "train_config.loss_function", "expected at least 1 entry, found 0"),
    ("sample_rate: 8000", "sample_rate: 16000", "dataset_config.sample_rate", "expected 8000 (sample_rate of dataset tiny_music), found 16000"),
    ("sample_rate: 8000", "sample_rate: 8k", "dataset_config.sample_rate", "expected a whole number, found '8k'"),
    ("sample_rate: 8000", "num_channels: 2\n  sample_rate: 8000", "model_config.modules.recurrent_stack.args.num_features", "expected 130 ((n_fft // 2 + 1) x num_channels), found 65"),
    ("n_fft: 128", "n_fft: 256", "model_config.modules.recurrent_stack.args.num_features", "expected 129 (n_fft // 2 + 1), found 65"),
    ("n_fft: 128", "n_fft: 1", "dataset_config.n_fft", "expected at least 2, found 1"),
    ("n_fft: 128", "window_type: hanning\n  n_fft: 128", "dataset_config.window_type", "found 'hanning'"),
    ("n_fft: 128", "weight_type: [threshold]\n  n_fft: 128", "dataset_config.weight_type", "'threshold' is no longer supported; use dataset_config.weight_threshold"),
    ("n_fft: 128", "excerpt_selection_strategy: balanced\n  n_fft: 128", "dataset_config.excerpt_selection_strategy", "'balanced' is no longer supported; use random"),
    ("n_fft: 128", "fraction_of_dataset: 0\n  n_fft: 128", "dataset_config.fraction_of_dataset", "expected more than 0, found 0"),
    ("n_fft: 128", "remix: {}\n  n_fft: 128", "dataset_config.remix", "expected cache_kind: audio (remixing needs the audio of the sources), found features"),
    ("n_fft: 128", "cache_kind: audio\n  remix: {gain: [3, -3]}\n  n_fft: 128", "dataset_config.remix.gain", "expected the lower gain first, found [3, -3]"),
    ("n_fft: 128", "cache_kind: audio\n  remix: {gains: [0, 3]}\n  n_fft: 128", "dataset_config.remix.gains", "did you mean 'gain'?"),
    ("n_fft: 128", "cache_kind: audio\n  remix: {probability: 0}\n  n_fft: 128", "dataset_config.remix.probability", "expected more than 0, found 0"),
    ("n_fft: 128", "format: cnn\n  n_fft: 128", "dataset_config.format", "expected 'rnn', found 'cnn'"),
    ("n_fft: 128", "data_keys_for_training: [mix_magnitude, ideal_binary_masc]\n  n_fft: 128", "dataset_config.data_keys_for_training[1]", "did you mean 'ideal_binary_mask'?"),
    ("n_fft: 128", "data_keys_for_training: [mix_magnitude, weights]\n  n_fft: 128", "train_config.loss_function[0]", "DeepClusteringLoss needs 'ideal_binary_mask'"),
    ("group_sources: [drums, bass, other]", "group_sources: [drum, bass, other]", "dataset_config.group_sources[0]", "the dataset tiny_music has no source 'drum'; did you mean 'drums'?"),
    ("group_sources: [drums, bass, other]", "group_sources: [[drums, bas]]", "dataset_config.group_sources[0][1]", "did you mean 'bass'?"),
    ("group_sources: [drums, bass, other]", "group_sources: drums", "dataset_config.group_sources", "expected a list, found 'drums'"),
    ("group_sources: [drums, bass, other]", "ignore_sources: [piano]", "dataset_config.ignore_sources[0]", "has no source 'piano'; it has vocals, bass, drums, other"),
    ("train: {dataset: tiny_music}", "train: {dataset: tiny_musik}", None, "no such dataset; did you mean 'tiny_music'?"),
    ("train: {dataset: tiny_music}", "train: {dataset: tiny_music, split: trian}", "datasets.train", "the dataset tiny_music has no split 'trian'; it has train, val, test"),
    ("train: {dataset: tiny_music}", "train: {folder: no/such, class: Scaper}", "datasets.train.folder", "no such folder: no/such"),
    ("train: {dataset: tiny_music}", "train: {folder: config, class: MixSourcesFolder}", "datasets.train.class", "unknown class 'MixSourcesFolder'; did you mean 'MixSourceFolder'?"),
    ("train: {dataset: tiny_music}", "train: {folder: config, class: OnTheFly, num_mixtures: 9}", "datasets.train.class", "use dataset_config.remix for new mixtures in each epoch"),
    ("train: {dataset: tiny_music}", "train: {folder: config, class: WHAM, mix_foldr: mix_both}", "datasets.train.mix_foldr", "unknown argument; did you mean 'mix_folder'?"),
    ("train: {dataset: tiny_music}", "train: {folder: no/such}", "datasets.train", "expected 'dataset' or 'folder' and 'class'"),
    ("train: {dataset: tiny_music}", "train: tiny_music", "datasets.train", "expected a mapping"),
    ("test: {dataset: tiny_music}", "tset: {dataset: tiny_music}", "datasets.tset", "did you mean 'test'?"),
    ("test: {dataset: tiny_music}", "", "datasets", "missing key 'test'"),
    ("hidden_size: 8,", "hidden_size: 9,", "model_config.modules.embedding.args.hidden_size", "expected 18 (2 x hidden_size of recurrent_stack), found 16"),
    ("bidirectional: true", "bidirectional: false", "model_config.modules.embedding.args.hidden_size", "expected 8 (hidden_size of recurrent_stack), found 16"),
    ("{num_features: 65, hidden_size: 16", "{num_features: 33, hidden_size: 16", "model_config.modules.embedding.args.num_features", "expected 65 (n_fft // 2 + 1), found 33"),
    ("embedding_size: 4", "embeding_size: 4", "model_config.modules.embedding.args.embeding_size", "did you mean 'embedding_size'?"),
    ("num_layers: 1, ", "", "model_config.modules.recurrent_stack.args", "missing argument 'num_layers'"),
    ("class: RecurrentStack", "class: recurrentstack", "model_config.modules.recurrent_stack.class", "did you mean 'RecurrentStack'?"),
    ("{class: BatchNorm}", "{class: GaussianMixture}", "model_config.modules.normalization.class", "'GaussianMixture' is no longer supported; use GaussianMixtureTorch"),
    ("{class: BatchNorm}", "{klass: BatchNorm}", "model_config.modules.normalization.klass", "did you mean 'class'?"),
    ("[normalization, [log_spectrogram]]", "[normalisation, [log_spectrogram]]", "model_config.connections[1]", "unknown module 'normalisation'; did you mean 'normalization'?"),
    ("[normalization, [log_spectrogram]]", "[normalization, [log_spektrogram]]", "model_config.connections[1]", "unknown input 'log_spektrogram'; did you mean 'log_spectrogram'?"),
    ("[normalization, [log_spectrogram]]", "[normalization, [embedding]]", "model_config.connections[1]", "'normalization' uses 'embedding' before it is computed"),
    ("[normalization, [log_spectrogram]]", "[normalization]", "model_config.connections[1]", "expected at least 2 entries, found 1"),
    ("output: [embedding]", "output: [embed]", "model_config.output[0]", "no connection computes 'embed'"),
    ("output: [embedding]", "output: []", "model_config.output", "expected at least 1 entry, found 0"),
    ("class: DeepClustering\n", "class: DeepClusterin\n", "algorithm_config.class", "did you mean 'DeepClustering'?"),
    ("class: DeepClustering\n", "class: DeepMaskEstimation\n", "algorithm_config.class", "DeepMaskEstimation needs a model with the output 'mask', found embedding"),
    ("num_sources: 2, ", "", "algorithm_config.args", "missing argument 'num_sources'"),
    ("num_sources: 2, ", "num_sources: 2, mask_typ: soft, ", "algorithm_config.args.mask_typ", "did you mean 'mask_type'?"),
    ("num_sources: 2, ", "num_sources: 2, enhancement_amount: 0.5, ", "algorithm_config.args.enhancement_amount", "enhancement is no longer supported; remove this key"),
    ("name: tiny_dpcl", "name: a/b", "info.name", "expected text that matches"),
    ("name: tiny_dpcl", "seed: -1", "info.seed", "expected at least 0, found -1"),
    ("notes: tiny", "note: tiny", "info.note", "did you mean 'notes'?"),
    ("info:", "inof:", "inof", "did you mean 'info'?"),
    ("sweep:\n", "test_config: {testers: []}\nsweep:\n", "test_config.testers", "expected at least 1 entry, found 0"),
    ("sweep:\n  - ", "sweep:\n    ", "sweep", "expected a list"),
    ("sweep:\n", "test_config: {testers: [{BSSScale: {}}]}\nsweep:\n", "test_config.testers", "BSSEvalScale, BSSEvalV4"),
    ("sweep:\n", "test_config: {testers: [{BSSEvalV4: {win: 1}}]}\nsweep:\n", "test_config.testers.BSSEvalV4", "'win'"),
    ("sweep:\n", "test_config: {testers: [{PESQ: {mode: xb}}]}\nsweep:\n", "test_config.testers.PESQ", "mode: expected"),
]  # fmt: skip


@pytest.mark.parametrize("before, after, key, message", EDITS, ids=[f"{e[2]}-{i}" for i, e in enumerate(EDITS)])
def test_mistakes_in_experiment_files_are_reported_in_one_line_with_file_line_and_key(
    tmp_path, before, after, key, message
):
    text = TINY.read_text()
    assert before in text
    path = tmp_path / "wrong.yml"
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(UserError) as raised:
        load_workflow({"sweep": str(path)}, {"DATA_DIRECTORY": str(tmp_path)})
    line = str(raised.value)
    assert message in line and "\n" not in line
    if key is None:
        return
    file, number, named, _ = line.split(":", 3)
    assert Path(file).name == "wrong.yml" and named.strip() == key
    # the line is that of the key, or of the section around it
    written = path.read_text().splitlines()
    last = key.rsplit(".", 1)[-1].split("[")[0]
    window = "\n".join(written[: int(number)])
    assert 1 <= int(number) <= len(written) and last in window


RECIPE_EDITS = [
    ("\nsample_rate: 8000", "\nsample_rate: 8k", "sample_rate", "expected a whole number, found '8k'"),
    ("num_mixtures: 6", "num_mixture: 6", "mixture_parameters.train.num_mixture", "did you mean 'num_mixtures'?"),
    ("num_mixtures: 6", "num_mixtures: 0", "mixture_parameters.train.num_mixtures", "expected at least 1, found 0"),
    ("kind: toy_music", "kind: toy_musik", "source.kind", "found 'toy_musik'; did you mean 'toy_music'?"),
    ("by: class", "by: klass", "organize.by", "found 'klass'; did you mean 'class'?"),
    ("snr: [uniform, -1, 1]", "snr: [unifrm, -1, 1]", "event_parameters.snr", ""),
    ("coherent: true", "coherent: 1", "coherent", "expected true or false, found 1"),
    ("ref_db: -40", "ref_dB: -40", "ref_dB", "did you mean 'ref_db'?"),
    ("bitdepth: 16", "bitdepth: 12", "bitdepth", "found 12"),
]


@pytest.mark.parametrize("before, after, key, message", RECIPE_EDITS)
def test_mistakes_in_recipes_are_reported_in_one_line_with_file_line_and_key(
    tmp_path, monkeypatch, before, after, key, message
):
    text = (TINY.parents[2] / "config/datasets/tiny_music.yml").read_text()
    assert before in text
    (tmp_path / "config/datasets").mkdir(parents=True)
    (tmp_path / "config/datasets/tiny_music.yml").write_text(text.replace(before, after, 1))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        load_workflow({"sweep": str(TINY)}, {})
    line = str(raised.value)
    file, number, named, _ = line.split(":", 3)
    assert file == "config/datasets/tiny_music.yml" and named.strip().startswith(key) and message in line
    assert key.rsplit(".", 1)[-1] in text.replace(before, after, 1).splitlines()[int(number) - 1]


@pytest.mark.parametrize(
    "text, message", [("", "the file is empty"), ("just words", "expected a mapping"), ("[1]", "expected a mapping")]
)
def test_files_without_an_experiment_are_rejected(tmp_path, text, message):
    (tmp_path / "wrong.yml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_workflow({"sweep": str(tmp_path / "wrong.yml")}, {})


def test_a_wrong_size_from_a_sweep_is_reported_at_the_line_of_the_sweep(tmp_path):
    with pytest.raises(UserError) as raised:
        plan(experiment(sweep=[{"hidden_size": [8, 16]}]), tmp_path)
    assert (
        "model_config.modules.embedding.args.hidden_size: expected 16 (2 x hidden_size of recurrent_stack), found 8"
        in str(raised.value)
    )
    number = int(str(raised.value).split(":")[1])
    assert "8" in (tmp_path / "experiment.yml").read_text().splitlines()[number - 1]
