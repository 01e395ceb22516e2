# shellcheck shell=bash
# Environment variables of the workflow. Copy this file to <name>_local.sh (git ignores those), change the copy, and name
# it in ENV_FILE: `ENV_FILE=config/environment/<name>_local.sh make demo`, or `source` it before calling snakemake.
# A variable that is set already keeps its value. Relative paths start at the root of the repository.

# Where sources and mixtures are kept. The largest of the three once real datasets are used.
export DATA_DIRECTORY="${DATA_DIRECTORY:-results/data}"

# Where precomputed training features are kept. Large, and safe to delete: they are made again when needed.
export CACHE_DIRECTORY="${CACHE_DIRECTORY:-results/cache}"

# Where every trained point has its folder: config, checkpoints, history, evaluations.
export ARTIFACTS_DIRECTORY="${ARTIFACTS_DIRECTORY:-results/artifacts}"

# The folder of this repository, for commands that mount it into a container.
export CODE_DIRECTORY="${CODE_DIRECTORY:-$PWD}"

# Name, and tag if you like, of the container image that holds the environment: owner/name:tag.
export DOCKER_IMAGE_NAME="${DOCKER_IMAGE_NAME:-separation-workflow:latest}"

# Ports of this machine on which notebooks and TensorBoard are served.
export JUPYTER_HOST_PORT="${JUPYTER_HOST_PORT:-8890}"
export TENSORBOARD_HOST_PORT="${TENSORBOARD_HOST_PORT:-8891}"

# Where notebooks are reachable from: this machine alone, unless an address of it is named (0.0.0.0 for all of them).
# export JUPYTER_HOST_IP="127.0.0.1"

# Password of the notebook server, hashed: python -c 'from jupyter_server.auth import passwd; print(passwd())'.
# Without it the server prints a link with a token. (Single quotes: the hash holds dollar signs.)
# export JUPYTER_PASSWORD_HASH='argon2:...'

# The service account that writes to the results sheet: path of its JSON file. private/ is never committed.
# export PATH_TO_GOOGLE_CREDENTIALS="private/google_credentials.json"

# Keys of trackers; without its key nothing is sent to one (docs/tracking.md).
# export COMET_API_KEY="..."
# export WANDB_API_KEY="..."
# export MLFLOW_TRACKING_URI="http://..."

# GPUs that jobs may use (numbers, UUIDs or MIG ids), and the folder of the locks by which they share them (docs/gpus.md).
# export CUDA_VISIBLE_DEVICES="0,1"
# export GPU_LOCK_DIRECTORY="/tmp/separation-gpus"
