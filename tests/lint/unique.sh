#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# File names are unique in the whole tree, so that a name in a backtrace or a sentence is enough.
# Excepted: what tools want to be called the same in each folder, and data of tests (corpora, goldens), and
# what the checks are started with.
set -eu
dir=$(dirname "$0")
. "$dir/lint_common.sh"
lint_root "${1:-}"
out=$(mktemp)
lint_files "$1" | grep -vE '^(tests/(fuzz/corpus|golden)|\.ci)/' |
    grep -vE '(^|/)(CMakeLists\.txt|README[^/]*|__init__\.[a-z]+)$' |
    awk -F/ '{ if ($NF in seen) print $0 ": has the name of " seen[$NF]; else seen[$NF] = $0 }' >"$out"
lint_end "$out"
