# shellcheck shell=bash
# Environment variables of the workflow. Copy this file to <name>_local.sh (git ignores those), change the copy, and use
# it with `ENV_FILE=config/environment/<name>_local.sh make demo`, or `source` it before you call snakemake.
# A variable that is already set keeps its value. Relative paths start at the root of the repository.

# Folder of sources and mixtures. The largest of the three with real datasets.
export DATA_DIRECTORY="${DATA_DIRECTORY:-results/data}"

# Folder of precomputed training features. Large, and safe to delete: they are rebuilt when needed.
export CACHE_DIRECTORY="${CACHE_DIRECTORY:-results/cache}"

# Folder of all trained points: config, checkpoints, history, evaluations.
export ARTIFACTS_DIRECTORY="${ARTIFACTS_DIRECTORY:-results/artifacts}"

# Folder of this repository, for commands that mount it into a container.
export CODE_DIRECTORY="${CODE_DIRECTORY:-$PWD}"

# Name, with an optional tag, of the container image: owner/name:tag.
export DOCKER_IMAGE_NAME="${DOCKER_IMAGE_NAME:-separation-workflow:latest}"

# Ports for notebooks and TensorBoard on this machine.
export JUPYTER_HOST_PORT="${JUPYTER_HOST_PORT:-8890}"
export TENSORBOARD_HOST_PORT="${TENSORBOARD_HOST_PORT:-8891}"

# Address on which notebooks are served: only this machine by default, 0.0.0.0 for all addresses.
# export JUPYTER_HOST_IP="127.0.0.1"

# Password of the notebook server, hashed: python -c 'from jupyter_server.auth import passwd; print(passwd())'.
# Without it the server prints a link with a token. (Single quotes: the hash contains dollar signs.)
# export JUPYTER_PASSWORD_HASH='argon2:...'

# Path of the JSON key of the service account that writes to the results sheet. private/ is never committed.
# export PATH_TO_GOOGLE_CREDENTIALS="private/google_credentials.json"

# Keys of trackers; a tracker without its key receives nothing (docs/tracking.md).
# export COMET_API_KEY="..."
# export WANDB_API_KEY="..."
# export MLFLOW_TRACKING_URI="http://..."

# GPUs that jobs may use (numbers, UUIDs or MIG ids), and the folder of their locks (docs/gpus.md).
# export CUDA_VISIBLE_DEVICES="0,1"
# export GPU_LOCK_DIRECTORY="/tmp/separation-gpus"
