# shellcheck shell=bash
# Shared functions of build.sh and run.sh, which source it in the repository root.

stop() {
  printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2
  exit 1
}

# Prints the image: DOCKER_IMAGE_NAME, else `container` in config/config.yaml.
image_name() {
  local name
  name=${DOCKER_IMAGE_NAME:-$(sed -n 's/^container: *//p' config/config.yaml | sed 's/ *#.*//')}
  printf '%s\n' "${name#docker://}"
}

# Whether a program is installed and works; docker needs its daemon.
works() {
  case $1 in
  docker) command -v docker >/dev/null && docker version >/dev/null 2>&1 ;;
  podman) command -v podman >/dev/null && podman info >/dev/null 2>&1 ;;
  *) command -v "$1" >/dev/null ;;
  esac
}

# Prints the requested program, or the first one that works: program_of "$requested" docker podman
program_of() {
  local requested=$1 program
  shift
  if [ -n "$requested" ]; then
    case " $* " in *" $requested "*) ;; *) stop "expected one of $*, found '$requested'" ;; esac
    local hint=
    if [ "$requested" = docker ]; then hint=' (is its daemon running?)'; fi
    works "$requested" || stop "$requested does not work here$hint"
    printf '%s\n' "$requested"
    return
  fi
  for program in "$@"; do
    works "$program" && printf '%s\n' "$program" && return
  done
  stop "none of $* works here"
}
