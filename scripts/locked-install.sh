#!/usr/bin/env bash
# Installs exactly the packages of a lock into a virtual environment, then checks that they fit together.
#   scripts/locked-install.sh PYTHON LOCK      exit code 1: pip could not install; 3: the installed packages do not fit together
#
# pip resolves nothing. Left to resolve, it asks for the newest release of whatever an extra names, and refuses it for want
# of a hash: a lock would work until the day on which something newer is released.
set -euo pipefail

readonly python=$1 lock=$2
# Settings of pip that lead to an index count here (PIP_INDEX_URL, pip.conf); those that would change what is installed, or
# where, do not. An empty value is not enough: pip then uses that of pip.conf.
export PIP_CONSTRAINT=/dev/null PIP_USER=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1

"$python" -m pip install --quiet --no-deps --require-hashes --only-binary :all: --requirement "$lock" || exit 1
# What an older lock brought would hide a gap in this one, or not fit it.
mapfile -t others < <("$python" -I - "$lock" << 'EOF'
import importlib.metadata, pathlib, re, sys
def normal(name): return re.sub(r"[-_.]+", "-", name).lower()
names = re.findall(r"^([\w.-]+)==", pathlib.Path(sys.argv[1]).read_text(), re.MULTILINE)
found = {normal(one.name) for one in importlib.metadata.distributions()}
print(*sorted(found - {"pip"} - {normal(name) for name in names}), sep="\n")
EOF
)
if [ -n "${others[*]}" ]; then "$python" -m pip uninstall --quiet --yes "${others[@]}" || exit 1; fi
if ! unfit=$("$python" -m pip check 2>&1); then
  printf '%s\n%s does not fit together: see the lines above\n' "$unfit" "$lock" >&2
  exit 3
fi
