#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other, each for a count of runs or a time. A count ends
# reliably; at the end of a time go test now and then fails with its own "context deadline exceeded".
set -euo pipefail
time=${1:?usage: test/fuzz.sh COUNT-OR-TIME, for example 5000x or 1m}
count=0
while IFS=: read -r file target; do
  echo "fuzz $target in $(dirname "$file")"
  go test "./$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x -parallel 2
  count=$((count + 1))
done < <(git ls-files --cached --others --exclude-standard '*_test.go' ':!test/kubernetes/**' | xargs grep -oE '^func Fuzz[A-Za-z0-9_]+' | sed 's/func //')
if [ "$count" -eq 0 ]; then
  echo "no fuzz target was found" >&2
  exit 1
fi
echo "$count fuzz targets"
