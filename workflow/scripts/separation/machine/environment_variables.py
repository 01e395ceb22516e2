"""Variables, programs and packages that the workflow uses, and the consequences of missing ones."""

from __future__ import annotations

#: variables in display order: default, and meaning when unset
VARIABLES = {
    "ENV_FILE": (None, "no file is sourced: variables come from the shell, then from config/config.yaml"),
    "DATA_DIRECTORY": ("results/data", "sources and mixtures are in results/data"),
    "CACHE_DIRECTORY": ("results/cache", "training features are in results/cache"),
    "ARTIFACTS_DIRECTORY": ("results/artifacts", "trained points are in results/artifacts"),
    "CODE_DIRECTORY": (None, "containers mount the folder in which make runs"),
    "DOCKER_IMAGE_NAME": (None, "`container` in config/config.yaml names the image"),
    "JUPYTER_HOST_PORT": ("8890", "notebooks are served on port 8890"),
    "JUPYTER_HOST_IP": ("127.0.0.1", "notebooks are reachable only from this machine"),
    "JUPYTER_PASSWORD_HASH": (None, "the notebook server prints a link with a token instead of asking for a password"),
    "TENSORBOARD_HOST_PORT": ("8891", "TensorBoard is served on port 8891"),
    "PATH_TO_GOOGLE_CREDENTIALS": (None, "no Google sheet is written; sheet.csv has the same table"),
    "COMET_API_KEY": (None, "nothing is sent to comet.ml; training runs keep their own event logs"),
    "WANDB_API_KEY": (None, "nothing is sent to Weights & Biases"),
    "MLFLOW_TRACKING_URI": (None, "nothing is sent to MLflow"),
    "MLFLOW_TRACKING_PASSWORD": (None, "MLflow is used without a password"),
    "MLFLOW_TRACKING_TOKEN": (None, "MLflow is used without a token"),
    "CUDA_VISIBLE_DEVICES": (None, "jobs may use all GPUs of this machine"),
    "GPU_LOCK_DIRECTORY": ("/tmp/separation-gpus", "GPU locks are in /tmp/separation-gpus"),
}
PORTS = ("JUPYTER_HOST_PORT", "TENSORBOARD_HOST_PORT")

#: consequence of each missing program; the demo needs sox
PROGRAMS = {
    "sox": "no datasets can be mixed; `make setup` prints how to install it",
    "git": "reports do not name the commit they were made with",
    "dot": "`snakemake --dag | dot -Tsvg` draws no picture (package graphviz)",
    "ffmpeg": "the compressed .stem.mp4 files of MUSDB18 cannot be read; MUSDB18-HQ can",
    "nvidia-smi": "GPUs are found only if CUDA_VISIBLE_DEVICES names them",
    "apptainer": "`--sdm apptainer` cannot run jobs in a container",
    "docker": "docker cannot build or run images; podman and apptainer also can",
    "podman": "podman cannot build or run images; docker and apptainer also can",
    "sbatch": "this machine cannot submit jobs to Slurm",
    "tmux": "a run ends when its terminal closes, unless nohup, screen or a service keeps it running",
}
NEEDED_PROGRAMS = ("sox",)
#: packages that the demo needs
PACKAGES = ("snakemake", "nussl", "scaper", "torch", "numpy", "scipy", "librosa", "soundfile", "soxr", "zarr", "pandas")
PACKAGES += ("pyarrow", "tensorboard")
EXTRA_PACKAGES = {
    "comet-ml": "nothing is sent to comet.ml",
    "gspread": "no Google sheet is written",
    "wandb": "nothing is sent to Weights & Biases",
    "mlflow-skinny": "nothing is sent to MLflow",
    "jupyterlab": "`make jupyter` installs it on its first run",
}
