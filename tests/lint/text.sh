#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The look of text: no tabs in C, no trailing blanks, a final newline, the licence line, lines of at most
# 110 columns, files of at most 600 lines (or a reason in long_files.txt: `file reason`), no notes to
# oneself, no paths of somebody's machine.
set -eu
export LC_ALL=C.UTF-8
dir=$(dirname "$0")
. "$dir/lint_common.sh"
lint_root "${1:-}"
root=$1
list="$root/tests/lint/long_files.txt"
out=$(mktemp)
files=$(mktemp)
notes='TO''DO|FIX''ME|XX''X'
paths='(^|[^A-Za-z0-9_.$}*/-])/(wo''rk|ro''ot|tmp/no''tes)(/|[^A-Za-z0-9_-]|$)'

# Text of ours: not models, corpora, goldens, nor the licence, which is somebody else's text.
lint_files "$root" | grep -vE '^(LICENSE|tests/fuzz/corpus/.*|tests/golden/.*)$' |
    grep -vE '\.(gguf|bin|png|raw)$' >"$files"

# $1 a grep -E pattern, $2 what is wrong, $3 more options of grep; stdin: files.  Never fails.
each() {
    (cd "$root" && xargs -r -d '\n' grep -nHE ${3:-} -- "$1" /dev/null 2>/dev/null) | cut -d: -f1-2 |
        sed "s,\$,: $2," || true
}
scripts='^tests/run$|^\.ci/run$|^deploy/(quickstart|install-packages)$'
is_code() { grep -E "\.(c|h|proto|sh|py|cmake)\$|(^|/)CMakeLists\.txt\$|$scripts"; }

{
    grep -E '\.(c|h|proto)$' "$files" | each '	' 'a tab' || true
    each '[ 	]+$' 'trailing blanks' <"$files"
    is_code <"$files" | each '^.{111,}' 'longer than 110 columns' || true
    each "$notes" 'a note to oneself' -w <"$files"
    each "$paths" 'a path of one machine' <"$files"
    while IFS= read -r f; do
        [ ! -s "$root/$f" ] || [ -z "$(tail -c1 "$root/$f")" ] || echo "$f: no newline at the end"
    done <"$files"
    is_code <"$files" | grep -vE '\.cmake$|CMakeLists\.txt$' | while IFS= read -r f; do
        head -n2 "$root/$f" | grep -q 'SPDX-License-Identifier: Apache-2.0' ||
            echo "$f: the licence line is not at its head"
    done || true
    is_code <"$files" | while IFS= read -r f; do
        n=$(wc -l <"$root/$f")
        if [ "$n" -gt 600 ] && ! { [ -f "$list" ] && grep -qE "^$f +[^ ]" "$list"; }; then
            echo "$f: $n lines, at most 600 (or a reason in tests/lint/long_files.txt)"
        fi
    done || true
    if [ -f "$list" ]; then
        grep -vE '^(#|$)' "$list" | while read -r f reason; do
            if [ ! -f "$root/$f" ] || [ "$(wc -l <"$root/$f")" -le 600 ] || [ -z "$reason" ]; then
                echo "tests/lint/long_files.txt: $f is not long any more, or has no reason"
            fi
        done || true
    fi
} >"$out"
rm -f "$files"
lint_end "$out"
