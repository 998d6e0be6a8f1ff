#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Functions past 60 lines are listed; past 100 lines they fail, unless long_functions.txt gives a reason
# (`file function reason`). A function is what stands between a brace in the first column and the next
# closing one there.
set -eu
dir=$(dirname "$0")
. "$dir/lint_common.sh"
lint_root "${1:-}"
root=$1
list="$root/tests/lint/long_functions.txt"
out=$(mktemp)
found=$(mktemp)
lint_files "$root" | grep -E '\.[ch]$' | while IFS= read -r file; do
    awk -v file="$file" '
        /^[A-Za-z_].*\(/ && !/;[ \t]*$/ {
            name = $0
            sub(/\(.*/, "", name)
            sub(/.*[^A-Za-z0-9_]/, "", name)
        }
        /^\{/ { start = FNR }
        /^\}/ {
            if (start && FNR - start - 1 > 60)
                print FNR - start - 1, file, name
            start = 0
        }' "$root/$file"
done >"$found"
while read -r lines file name; do
    reason=
    if [ -f "$list" ]; then
        reason=$(awk -v f="$file" -v n="$name" '$1 == f && $2 == n && NF > 2 { print "yes" }' "$list")
    fi
    if [ "$lines" -gt 100 ] && [ -z "$reason" ]; then
        echo "$file: $name has $lines lines: at most 100, or a reason in long_functions.txt" >>"$out"
    else
        echo "note: $file: $name has $lines lines"
    fi
done <"$found"
if [ -f "$list" ]; then
    grep -vE '^(#|$)' "$list" | while read -r file name reason; do
        grep -qE "^[0-9]+ $file $name\$" "$found" && [ -n "$reason" ] ||
            echo "tests/lint/long_functions.txt: $file $name is not long any more, or has no reason" >>"$out"
    done
fi
rm -f "$found"
lint_end "$out"
