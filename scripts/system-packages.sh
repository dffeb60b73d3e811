#!/usr/bin/env bash
# Installs the system packages that Kekkai needs and this machine lacks; says which, and what for.
# Changes nothing, and needs no root, where nothing is missing.
set -euo pipefail

missing=()
need() { # package, what for
  missing+=("$1")
  echo "setup: $1 is missing: $2"
}

if ! compgen -G '/usr/lib/softhsm/libsofthsm2.so' >/dev/null \
  && ! compgen -G '/usr/lib/*/softhsm/libsofthsm2.so' >/dev/null \
  && ! command -v softhsm2-util >/dev/null; then
  need softhsm2 "the PKCS#11 token that stands in for a hardware security module"
fi
if ! compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null && ! command -v postgres >/dev/null; then
  need postgresql "the key service's store when it runs in replicas"
fi
command -v prometheus >/dev/null || need prometheus "the signals that services are scaled by"
"${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null || need python3-venv "makes the Python environment"
command -v git >/dev/null || need git "checks that generated files are up to date"
command -v make >/dev/null || need make "runs the project's targets"

if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "setup: please install them: ${missing[*]} (this script knows Debian and Ubuntu only)" >&2
  exit 1
fi
root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "setup: please run as root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  root=(sudo)
fi
echo "setup: installing ${missing[*]}${root[0]:+ with sudo}"
export DEBIAN_FRONTEND=noninteractive
"${root[@]}" apt-get update -qq
"${root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
