#!/usr/bin/env bash
# Builds the bundle of this commit like a release, signs it with a temporary key, verifies it with the signature's own tools, and
# extracts its documents: SBOMs, vulnerabilities, licences, provenance. No site trusts the key, so no site imports this bundle:
# it only tests that one can be built.
#   scripts/candidate.sh [build's options ...]      result: dist/candidate/
set -euo pipefail
cd "$(dirname "$0")/.."

readonly OUT=dist/candidate IDENTITY=candidate@airlift.invalid
python=.venv/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf "$OUT"
mkdir -p "$OUT"
ssh-keygen -q -t ed25519 -N '' -C "$IDENTITY" -f "$work/key"
printf '%s namespaces="airlift-bundle" %s\n' "$IDENTITY" "$(cut -d ' ' -f 1,2 "$work/key.pub")" > "$OUT/allowed_signers"
if [ -n "${VULNERABILITY_DATA_URL:-}" ]; then
  # What Debian's security tracker publishes: without it, packages of Debian count as not scanned.
  curl --fail --silent --show-error --location --retry 3 --output "$work/tracker.json" "$VULNERABILITY_DATA_URL"
  set -- "$@" --vulnerability-data "$work/tracker.json"
fi
AIRLIFT_SIGNING_KEY='' "$python" -m bundle build --key "$work/key" --identity "$IDENTITY" --output "$OUT" "$@"
bundle=$(ls "$OUT"/airlift-*.tar)
"$python" -m bundle verify "$bundle" --allowed-signers "$OUT/allowed_signers" --home "$work/home"
tar -tf "$bundle" | grep '^about/' > "$work/members"
while read -r member; do
  mkdir -p "$OUT/${member%/*}"
  "$python" -m bundle inspect "$bundle" --cat "$member" --allowed-signers "$OUT/allowed_signers" --home "$work/home" > "$OUT/$member"
done < "$work/members"
printf 'candidate: %s, with %d files about it in %s/about\n' "$bundle" "$(wc -l < "$work/members")" "$OUT"
