#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The tour of one token in README.md names files and functions: each function must be defined in the file
# named before it. A line of the tour is a table row with code in backquotes: a path with a slash and then
# one or more function names.
set -eu
dir=$(dirname "$0")
. "$dir/lint_common.sh"
lint_root "${1:-}"
root=$1
out=$(mktemp)
rows() { awk '/^## / { on = /tour of one token/ } on && /^\| *[0-9]+ *\|/' "$root/README.md"; }

steps=$(rows | wc -l)
[ "$steps" -ge 13 ] || echo "README.md: the tour of one token has $steps steps, want 13" >"$out"
rows | while IFS= read -r row; do
    file=
    for word in $(printf '%s\n' "$row" | grep -oE '`[^`]+`' | tr -d '`'); do
        case "$word" in
            */*)
                file=$word
                [ -f "$root/$file" ] || echo "README.md: the tour names $file, which does not exist" ;;
            *)
                name=${word%()}
                if [ -z "$file" ] || ! grep -E "^[a-z_].*[^A-Za-z0-9_]\**$name\(" "$root/$file" 2>/dev/null |
                    grep -qvE ';[[:space:]]*$'; then
                    echo "README.md: the tour names $name in ${file:-no file}, which does not define it"
                fi ;;
        esac
    done
done >>"$out"
lint_end "$out"
