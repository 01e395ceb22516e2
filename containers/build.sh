#!/usr/bin/env bash
# Builds the image with the first of docker, podman and apptainer that works, or with the one given as argument.
# `make images` runs it.
#   VARIANT        cuda (default) or cpu: the build of torch
#   TORCH_INDEX    the package index of torch, if the configured one has the other build
#   BASE_IMAGE     another base image than Debian's; for a file or folder with apptainer, also BOOTSTRAP=localimage
#   BUILD_OPTIONS  more options of `build`, such as --network host
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=containers/image.sh
source containers/image.sh

program=$(program_of "${1:-}" docker podman apptainer)
image=$(image_name)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
revision=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
arguments=(--build-arg "VARIANT=${VARIANT:-cuda}" --build-arg "VERSION=$version" --build-arg "REVISION=$revision")
for name in TORCH_INDEX BASE_IMAGE BOOTSTRAP PACKAGES; do
  [ -z "${!name:-}" ] || arguments+=(--build-arg "$name=${!name}")
done
# shellcheck disable=SC2206 # a list of words
options=(${BUILD_OPTIONS:-})

if [ "$program" = apptainer ]; then
  case $image in
  *.sif) file=$image ;;
  *) file=containers/$(printf '%s' "${image##*/}" | tr ':' '_').sif ;;
  esac
  apptainer build --force ${options[@]+"${options[@]}"} "${arguments[@]}" "$file" containers/separation.def
  echo "Built $file. Run jobs in it with: snakemake --profile local --sdm apptainer --config container=$file"
else
  case $image in /* | *.sif) stop "container: $image is a file, which $program cannot build; set DOCKER_IMAGE_NAME to an image's name" ;; esac
  "$program" build ${options[@]+"${options[@]}"} "${arguments[@]}" --file containers/Dockerfile --tag "$image" .
  echo "Built $image. Run the whole workflow in it with: make demo in=$program"
fi
