#!/usr/bin/env bash
# Installs the system packages that Kekkai needs and this machine lacks, and says which.
#   softhsm2      the PKCS#11 token that stands in for a hardware security module
#   python3-venv  makes the Python environment (only where Python lacks it)
# Root is used only when something is missing.
set -euo pipefail

missing=()
[ -e /usr/lib/softhsm/libsofthsm2.so ] || compgen -G '/usr/lib/*/softhsm/libsofthsm2.so' >/dev/null \
  || command -v softhsm2-util >/dev/null || missing+=(softhsm2)
"${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
command -v git >/dev/null || missing+=(git)

if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "setup: please install: ${missing[*]} (this script knows Debian and Ubuntu only)" >&2
  exit 1
fi
run=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "setup: please install as root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  run=(sudo)
fi
echo "setup: installing system packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${run[@]}" apt-get update -qq
"${run[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
