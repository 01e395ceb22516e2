"""Experiments as users of cookiecutter-nussl wrote them."""


def clustering_experiment(folder, **changes):
    """A deep clustering experiment; `section__key=value` changes one key."""
    split = {"folder": str(folder), "class": "Scaper"}
    content = {
        "sweep": [
            {
                "n_fft": 128,
                "hop_length": 64,
                "num_frequencies": 65,
                "num_features": 65,
                "cache": "CACHE_DIRECTORY/wsj_128",
                "populate_cache": True,
                "num_cache_workers": 0,
                "multiple_parameters_1": [
                    {"bidirectional": True, "num_mels": -1, "model_config.modules.embedding.args.hidden_size": 20},
                    {"bidirectional": False, "num_mels": -1, "model_config.modules.embedding.args.hidden_size": 10},
                ],
            }
        ],
        "dataset_config": {
            "cache": "CACHE_DIRECTORY/wsj",
            "data_keys_for_training": ["log_spectrogram", "assignments", "weights"],
            "overwrite_cache": False,
            "use_librosa_stft": False,
            "n_fft": 256,
            "hop_length": 64,
            "sample_rate": 8000,
            "output_type": "psa",
        },
        "datasets": {"train": split, "val": split, "test": split},
        "info": {
            "blocking": False,
            "num_gpus": 1,
            "output_folder": "ARTIFACTS_DIRECTORY/x/${EXPERIMENT_KEY}",
            "experiment_key": "${EXPERIMENT_KEY}",
        },
        "train_config": {
            "class": "Trainer",
            "curriculum_learning": [{"args": [400], "command": "set_current_length", "num_epoch": 0}],
            "data_parallel": True,
            "device": "cuda",
            "loss_function": [["dpcl", "embedding", 1.0]],
            "num_epochs": 2,
            "num_workers": 20,
        },
        "model_config": {
            "class": "SeparationModel",
            "modules": {
                "log_spectrogram": {"input_shape": [-1, -1, 129]},
                "normalization": {"class": "BatchNorm", "args": {"use_batch_norm": True}},
                "mel_projection": {
                    "class": "MelProjection",
                    "args": {"sample_rate": 8000, "num_frequencies": 129, "num_mels": -1, "direction": "forward"},
                },
                "recurrent_stack": {
                    "class": "RecurrentStack",
                    "args": {
                        "num_features": 129, "hidden_size": 10, "num_layers": 1, "bidirectional": True,
                        "dropout": 0.0, "rnn_type": "lstm",
                    },
                },
                "embedding": {
                    "class": "Embedding",
                    "args": {
                        "num_features": 129, "num_channels": 1, "hidden_size": 20, "embedding_size": 4,
                        "activation": ["tanh"],
                    },
                },
            },
            "connections": [
                ["mel_projection", ["log_spectrogram"]],
                ["normalization", ["mel_projection"]],
                ["recurrent_stack", ["normalization"]],
                ["embedding", ["recurrent_stack"]],
            ],
            "output": ["embedding"],
        },
        "algorithm_config": {
            "class": "DeepClustering",
            "args": {
                "clustering_options": {"posterior_alpha": 5.0},
                "enhancement_amount": 0.0,
                "model_path": "ARTIFACTS_DIRECTORY/x/${EXPERIMENT_KEY}/checkpoints/best.model.pth",
                "num_sources": 2,
                "percentile": 90,
            },
        },
        "test_config": {
            "num_workers": 10,
            "use_blocking_executor": True,
            "testers": {"ScaleInvariantSDR": {"compute_permutation": True, "scaling": False}},
        },
    }  # fmt: skip
    for key, value in changes.items():
        section, name = key.split("__")
        content[section][name] = value
    return content


def with_masks(content):
    """The experiment as mask inference: other data keys, a permutation loss, masks under another name."""
    content["train_config"]["loss_function"] = [["pit:mse", "estimates", 1.0]]
    content["dataset_config"]["data_keys_for_training"] = [
        "log_spectrogram",
        "magnitude_spectrogram",
        "source_spectrograms",
    ]
    model = content["model_config"]
    modules = model["modules"]
    modules["masks"] = modules.pop("embedding")
    modules["masks"]["args"] |= {"embedding_size": 2, "activation": ["softmax"]}
    modules["estimates"] = {"class": "Mask"}
    modules["normalization"] = {"class": "InstanceNorm", "args": {"use_instance_norm": True}}
    model["connections"][-1:] = [["masks", ["recurrent_stack"]], ["estimates", ["masks", "magnitude_spectrogram"]]]
    model["output"] = ["estimates"]
    content["algorithm_config"] = {"class": "DeepMaskEstimation", "args": {"model_path": "x"}}
    content["sweep"] = [{"n_fft": 128, "num_frequencies": 65, "num_features": 65, "num_sources": 2, "cache": ""}]
    return content
