#!/usr/bin/env bash
# Runs the RUN steps of the Dockerfile's stage `build` without a container engine, on what .dockerignore lets through.
#
#   bash tests/docker_build_steps.sh                            in a temporary folder, with PROFILE=dev
#   bash tests/docker_build_steps.sh --build-arg PROFILE=dist   as `docker build` does it
#   bash tests/docker_build_steps.sh DIR                        in DIR (made, and kept)
#   bash tests/docker_build_steps.sh --dry-run                  prints the steps of every stage, and runs none
#
# Three things differ from an image build: the profile is `dev` unless told otherwise, since link-time optimisation takes long and tests
# nothing of ours; a step that only installs packages is left out where all of them are installed; and $CARGO_TARGET_DIR, if set, is used.
set -euo pipefail

repository=$(cd "$(dirname "$0")/.." && pwd)
dockerfile=$repository/Dockerfile
dry_run=no folder=
declare -A arguments=([PROFILE]=dev)
while [[ $# -gt 0 ]]; do
  case $1 in
    --dry-run) dry_run=yes ;;
    --build-arg)
      [[ ${2:-} == *=* ]] || { echo "$0: --build-arg wants NAME=VALUE" >&2; exit 2; }
      arguments[${2%%=*}]=${2#*=}
      shift
      ;;
    -*) echo "$0: no option '$1'; see the head of this script" >&2; exit 2 ;;
    *) folder=$1 ;;
  esac
  shift
done

# instructions: the Dockerfile's instructions, one a line: comments dropped, continued lines joined.
instructions() {
  awk '/^[[:space:]]*#/ || /^[[:space:]]*$/ { next } { if (sub(/\\[[:space:]]*$/, "")) { printf "%s", $0 } else { print } }' "$dockerfile"
}

# steps STAGE: the commands of its RUN instructions, one a line, without flags such as --mount. Stages without a name are called `run`.
steps() {
  instructions | awk -v wanted="$1" '
    $1 == "FROM" { stage = ($(NF - 1) == "AS") ? $NF : "run" }
    $1 == "RUN" && stage == wanted { sub(/^RUN[[:space:]]+/, ""); while (sub(/^--[^[:space:]]+[[:space:]]+/, "")) {}; gsub(/[[:space:]]+/, " "); print }'
}

# Names of the packages that a step installs, if it does nothing else than that.
packages_of() {
  [[ $1 =~ ^apt-get\ update\ \&\&\ apt-get\ install\ -y\ --no-install-recommends\ ([a-z0-9.+\ -]+)\ \&\&\ rm\ -rf\ [a-z/*]+$ ]] && echo "${BASH_REMATCH[1]}"
}

all_installed() {
  command -v dpkg-query >/dev/null || return 1
  local package
  for package in $1; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || return 1
  done
}

mapfile -t build_steps < <(steps build)
mapfile -t run_steps < <(steps run)
[[ ${#build_steps[@]} -gt 0 && ${#run_steps[@]} -gt 0 ]] || { echo "$0: no RUN steps found in $dockerfile" >&2; exit 1; }

# Also the steps that are not run must at least be shell.
for step in "${build_steps[@]}" "${run_steps[@]}"; do
  sh -n -c "$step" || { echo "$0: not shell: $step" >&2; exit 1; }
done
if [[ $dry_run == yes ]]; then
  printf 'build: %s\n' "${build_steps[@]}"
  printf 'run: %s\n' "${run_steps[@]}"
  exit
fi

if [[ -z $folder ]]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
fi
mkdir -p "$folder"

# COPY . .
[[ $(grep -v '^#' "$repository/.dockerignore" | head -n 1) == '*' ]] || { echo "$0: .dockerignore no longer starts with *" >&2; exit 1; }
while read -r path; do
  [[ -e $repository/$path ]] || { echo "$0: .dockerignore lets $path through, which is not there" >&2; exit 1; }
  rm -rf "${folder:?}/$path"
  cp -a "$repository/$path" "$folder/$path"
done < <(sed -n 's/^!//p' "$repository/.dockerignore")

for name in "${!arguments[@]}"; do
  export "$name=${arguments[$name]}"
done
cd "$folder"
for step in "${build_steps[@]}"; do
  packages=$(packages_of "$step" || true)
  if [[ -n $packages ]] && all_installed "$packages"; then
    printf 'installed already: %s\n' "$packages"
    continue
  fi
  printf '+ %s\n' "$step"
  sh -e -c "$step"
done
[[ -x out/tidegate ]] || { echo "$0: the steps left no out/tidegate, which the image is made of" >&2; exit 1; }
echo "the Dockerfile's build steps work (PROFILE=${arguments[PROFILE]})"
