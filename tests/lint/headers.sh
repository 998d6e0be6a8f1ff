#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every header compiles alone, and twice in one unit.  headers.sh ROOT BUILD [CC]: BUILD is where
# tern.pb-c.h was generated.
set -eu
dir=$(dirname "$0")
. "$dir/lint_common.sh"
lint_root "${1:-}"
root=$1
build=${2:?headers.sh: the second argument is the build directory}
cc=${3:-cc}
out=$(mktemp)
packages=$(pkg-config --cflags libzmq libsodium libprotobuf-c libpcre2-8 jansson libmicrohttpd \
    2>/dev/null || true)
cmocka='#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>'
lint_files "$root" | grep -E '\.h$' | while IFS= read -r header; do
    # Test helpers may build on cmocka, whose own header asks for these four before it.
    case "$header" in tests/*) before=$cmocka ;; *) before= ;; esac
    if ! printf '%s\n#include "%s"\n#include "%s"\n' "$before" "$header" "$header" |
        "$cc" -std=c11 -D_GNU_SOURCE -DTERN_VERSION='"0"' -DTERN_SOURCE_DIR='"."' \
            -fsyntax-only -Wall -Wextra -Werror -Wno-unused \
            -I"$root" -I"$root/tests" -I"$build/proto" $packages -x c - 2>"$out.err"; then
        why=$(grep -m1 error "$out.err" || head -n1 "$out.err")
        echo "$header: does not compile alone: $why"
    fi
done >"$out"
rm -f "$out.err"
lint_end "$out"
