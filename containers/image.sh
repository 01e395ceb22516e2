# shellcheck shell=bash
# What build.sh and run.sh have in common; they source it in the root of the repository.

stop() {
  printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2
  exit 1
}

# The image: DOCKER_IMAGE_NAME, else `container` in config/config.yaml.
image_name() {
  local name
  name=${DOCKER_IMAGE_NAME:-$(sed -n 's/^container: *//p' config/config.yaml | sed 's/ *#.*//')}
  printf '%s\n' "${name#docker://}"
}

# Whether a program is there and does its work: a docker without its daemon is none.
works() {
  case $1 in
  docker) command -v docker >/dev/null && docker version >/dev/null 2>&1 ;;
  podman) command -v podman >/dev/null && podman info >/dev/null 2>&1 ;;
  *) command -v "$1" >/dev/null ;;
  esac
}

# The first of some programs that works, or the one that was asked for: program_of "$asked" docker podman
program_of() {
  local asked=$1 program
  shift
  if [ -n "$asked" ]; then
    case " $* " in *" $asked "*) ;; *) stop "expected one of $*, found '$asked'" ;; esac
    works "$asked" || stop "$asked does not work here$([ "$asked" = docker ] && echo ' (is its daemon running?)' || true)"
    printf '%s\n' "$asked"
    return
  fi
  for program in "$@"; do
    works "$program" && printf '%s\n' "$program" && return
  done
  stop "none of $* works here"
}
