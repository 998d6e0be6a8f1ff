#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The direction of includes: kernels <- engine <- {worker, coordinator}, proto beside engine, engine/base at
# the floor. Includes in quotes are written from the root (tests may also write them from tests/), and only
# they are looked at.
set -eu
dir=$(dirname "$0")
. "$dir/lint_common.sh"
lint_root "${1:-}"
root=$1
out=$(mktemp)

# $1 the including file, $2 what it includes: true when that is allowed.
allowed() {
    case "$1" in
        kernels/*)     case "$2" in kernels/*) return 0 ;; esac ;;
        engine/base/*) case "$2" in engine/base/*) return 0 ;; esac ;;
        engine/*)      case "$2" in engine/* | kernels/*) return 0 ;; esac ;;
        proto/*)       case "$2" in proto/* | engine/base/* | tern.pb-c.h) return 0 ;; esac ;;
        worker/*)
            case "$2" in
                worker/* | engine/* | proto/* | tern.pb-c.h) return 0 ;;
                kernels/cpu.h | kernels/kernels.h | kernels/pack.h) return 0 ;;
            esac ;;
        coordinator/*)
            case "$2" in
                coordinator/* | engine/* | proto/* | tern.pb-c.h | kernels/*.h | worker/stage.h) return 0 ;;
            esac ;;
        tests/*) return 0 ;;
    esac
    return 1
}

lint_files "$root" | grep -E '\.[ch]$' | while IFS= read -r file; do
    grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$root/$file" |
        sed -E 's/^([0-9]+):[^"]*"([^"]*)".*/\1 \2/' | while read -r line target; do
            known=no
            [ -f "$root/$target" ] && known=yes
            [ "$target" = tern.pb-c.h ] && known=yes
            case "$file" in tests/*) [ -f "$root/tests/$target" ] && known=yes ;; esac
            if [ "$known" = no ]; then
                echo "$file:$line: \"$target\" is not written from the root of the tree"
            elif ! allowed "$file" "$target"; then
                echo "$file:$line: may not include \"$target\" (direction of includes)"
            fi
        done || true
done >"$out"
lint_end "$out"
