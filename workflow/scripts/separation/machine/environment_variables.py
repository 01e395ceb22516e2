"""The variables, programs and packages that the workflow knows, and what it means that one is missing."""

from __future__ import annotations

#: variables in the order in which they are shown: default, and what it means that one is not set
VARIABLES = {
    "ENV_FILE": (None, "no file is sourced: variables come from the shell, else from config/config.yaml"),
    "DATA_DIRECTORY": ("results/data", "sources and mixtures lie in results/data"),
    "CACHE_DIRECTORY": ("results/cache", "training features lie in results/cache"),
    "ARTIFACTS_DIRECTORY": ("results/artifacts", "trained points lie in results/artifacts"),
    "CODE_DIRECTORY": (None, "containers mount the folder that make runs in"),
    "DOCKER_IMAGE_NAME": (None, "the image's name is `container` in config/config.yaml"),
    "JUPYTER_HOST_PORT": ("8890", "notebooks are served on port 8890"),
    "JUPYTER_HOST_IP": ("127.0.0.1", "notebooks are reachable from this machine alone"),
    "JUPYTER_PASSWORD_HASH": (None, "the notebook server prints a link with a token instead of asking for a password"),
    "TENSORBOARD_HOST_PORT": ("8891", "TensorBoard is served on port 8891"),
    "PATH_TO_GOOGLE_CREDENTIALS": (None, "no Google sheet is written; sheet.csv holds the same table"),
    "COMET_API_KEY": (None, "nothing is sent to comet.ml; trainings keep their own event logs"),
    "WANDB_API_KEY": (None, "nothing is sent to Weights & Biases"),
    "MLFLOW_TRACKING_URI": (None, "nothing is sent to MLflow"),
    "MLFLOW_TRACKING_PASSWORD": (None, "MLflow is asked without a password"),
    "MLFLOW_TRACKING_TOKEN": (None, "MLflow is asked without a token"),
    "CUDA_VISIBLE_DEVICES": (None, "jobs may use all GPUs of this machine"),
    "GPU_LOCK_DIRECTORY": ("/tmp/separation-gpus", "locks on GPUs lie in /tmp/separation-gpus"),
}
DIRECTORIES = {"DATA_DIRECTORY": "data", "CACHE_DIRECTORY": "cache", "ARTIFACTS_DIRECTORY": "artifacts"}
PORTS = ("JUPYTER_HOST_PORT", "TENSORBOARD_HOST_PORT")

#: what each program is for, where it is missing; sox is needed for the demo
PROGRAMS = {
    "sox": "mixtures cannot be made; `make setup` says how it is installed",
    "git": "reports do not say which commit made them",
    "dot": "`snakemake --dag | dot -Tsvg` draws no picture (package graphviz)",
    "ffmpeg": "MUSDB18's compressed .stem.mp4 files cannot be read; MUSDB18-HQ can",
    "nvidia-smi": "GPUs are not found unless CUDA_VISIBLE_DEVICES names them",
    "apptainer": "`--sdm apptainer` runs no job in a container",
    "docker": "no image can be built or run by docker; podman or apptainer do as well",
    "podman": "no image can be built or run by podman; docker or apptainer do as well",
    "sbatch": "this machine submits no jobs to Slurm",
    "tmux": "a run ends with its terminal, unless nohup, screen or a service keeps it",
}
NEEDED_PROGRAMS = ("sox",)
#: packages by what they are for; those of the first line are needed for the demo
PACKAGES = ("snakemake", "nussl", "scaper", "torch", "numpy", "scipy", "librosa", "soundfile", "soxr", "zarr", "pandas")
PACKAGES += ("pyarrow", "tensorboard")
EXTRA_PACKAGES = {
    "comet-ml": "comet.ml is not fed", "gspread": "no Google sheet is written", "wandb": "Weights & Biases is not fed",
    "mlflow-skinny": "MLflow is not fed", "jupyterlab": "`make jupyter` installs it when it is first run",
}  # fmt: skip
