#!/usr/bin/env bash
# Builds the image, `make images`: by docker, podman or apptainer, whichever works; or containers/build.sh apptainer.
#   VARIANT        cuda (default) or cpu: the build of torch
#   TORCH_INDEX    the package index that torch comes from, where the configured one gives the other build
#   BASE_IMAGE     another base than Debian's; BOOTSTRAP=localimage where it is a file or folder for apptainer
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
  echo "The image is $file. Jobs run in it by: snakemake --profile local --sdm apptainer --config container=$file"
else
  case $image in /* | *.sif) stop "container: $image is a file, which $program does not build; name an image in DOCKER_IMAGE_NAME" ;; esac
  "$program" build ${options[@]+"${options[@]}"} "${arguments[@]}" --file containers/Dockerfile --tag "$image" .
  echo "The image is $image. The whole workflow runs in it by: make demo in=$program"
fi
