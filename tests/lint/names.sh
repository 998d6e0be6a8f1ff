#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# names.sh BUILD: every global symbol of the libraries begins with tern_, and a kernel level exports its
# init function alone. Not looked at: generated protobuf code (a library of its own, libtern_pb.a) and what
# the sanitizers add.
set -eu
build=${1:?names.sh: the argument is the build directory}
dir=$(dirname "$0")
. "$dir/lint_common.sh"
out=$(mktemp)
sanitizers='^(__asan_|__odr_asan|__ubsan_|__tsan_|__sancov_|__sanitizer_|__llvm_|__start___|__stop___)'

for lib in engine/libtern_base.a engine/libtern_engine.a kernels/libtern_kernels.a proto/libtern_proto.a \
    worker/libtern_stage.a; do
    if [ ! -f "$build/$lib" ]; then
        echo "names.sh: $build/$lib is missing: build first" >&2
        rm -f "$out"
        exit 2
    fi
    nm -A -g --defined-only "$build/$lib" 2>/dev/null | awk '{ print $NF, $1 }' |
        grep -vE "$sanitizers" | grep -vE '^tern_[a-z0-9_]+ ' |
        sed "s,^,$lib: symbol without the prefix tern_: ," >>"$out" || true
done

# One name, one meaning: the linker takes whichever definition it meets first.
for lib in engine/libtern_base.a engine/libtern_engine.a kernels/libtern_kernels.a proto/libtern_proto.a \
    worker/libtern_stage.a; do
    nm -g --defined-only "$build/$lib" 2>/dev/null | awk 'NF == 3 { print $3 }' |
        grep -vE "$sanitizers" || true
done | sort | uniq -d | sed 's/$/: defined twice/' >>"$out"

for level in ref avx2 avxvnni avx512 avx512vbmi neon dotprod i8mm; do
    object="kernels_$level.c.o"
    names=$(nm -g --defined-only "$build/kernels/libtern_kernels.a" 2>/dev/null |
        awk -v want="$object:" '/:$/ { on = ($0 == want) } on && NF == 3 { print $3 }' |
        grep -vE "$sanitizers" || true)
    count=$(printf '%s' "$names" | grep -c . || true)
    if [ "$count" != 1 ] || ! printf '%s' "$names" | grep -q init; then
        names=$(echo "${names:-nothing}" | tr '\n' ' ')
        echo "kernels/$object: exports $names: want its init function alone" >>"$out"
    fi
done
lint_end "$out"
