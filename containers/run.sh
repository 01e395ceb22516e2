#!/usr/bin/env bash
# Runs a command in the container image with docker or podman: containers/run.sh docker snakemake --profile local
# The repository and DATA, CACHE and ARTIFACTS are mounted at their own paths, and written files belong to the current
# user, as without a container. Keys are passed by name: no command line shows their values.
#   CONTAINER_OPTIONS  more options of `run`, such as --volume /corpora:/corpora:ro for recordings in another folder
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=containers/image.sh
source containers/image.sh

program=$(program_of "${1:-}" docker podman)
shift
code=$PWD
user=$(id -u):$(id -g)
arguments=(--rm --init --workdir "$code" --volume "$code:$code" --user "$user" --env HOME=/tmp)
# rootless podman: the user inside is the one outside
if [ "$program" = podman ] && [ "$(id -u)" != 0 ]; then arguments+=(--userns keep-id); fi

for name in DATA_DIRECTORY CACHE_DIRECTORY ARTIFACTS_DIRECTORY PATH_TO_GOOGLE_CREDENTIALS; do
  path=${!name:-}
  [ -n "$path" ] || continue
  arguments+=(--env "$name")
  case $path in /*) ;; *) path=$code/$path ;; esac
  [ "$name" = PATH_TO_GOOGLE_CREDENTIALS ] || mkdir -p "$path"
  case $path in "$code"/*) ;; *) arguments+=(--volume "$path:$path") ;; esac
done
for name in COMET_API_KEY COMET_WORKSPACE WANDB_API_KEY MLFLOW_TRACKING_URI DOCKER_IMAGE_NAME; do
  [ -z "${!name:-}" ] || arguments+=(--env "$name")
done

if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
  locks=${GPU_LOCK_DIRECTORY:-/tmp/separation-gpus} # shared with jobs outside the container
  # shellcheck disable=SC2174 # the folders above it keep the usual rights
  mkdir -p -m 1777 "$locks"
  if [ "$program" = docker ]; then arguments+=(--gpus all); else arguments+=(--device nvidia.com/gpu=all); fi
  arguments+=(--env "GPU_LOCK_DIRECTORY=$locks" --volume "$locks:$locks")
  [ -z "${CUDA_VISIBLE_DEVICES+set}" ] || arguments+=(--env CUDA_VISIBLE_DEVICES)
fi
# shellcheck disable=SC2206 # a list of words
options=(${CONTAINER_OPTIONS:-})
exec "$program" run "${arguments[@]}" ${options[@]+"${options[@]}"} "$(image_name)" "$@"
