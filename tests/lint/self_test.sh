#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# self_test.sh LINT [CC]: proves that a lint can fail.  Builds a small clean tree in a temporary directory,
# on which the lint must be silent, and then plants one violation after another, each of which the lint must
# find and name.
set -eu
lint=${1:?self_test.sh: the argument is the name of a lint}
cc=${2:-cc}
here=$(cd "$(dirname "$0")" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
tree=$tmp/tree
spdx='/* SPDX-License-Identifier: Apache-2.0 */'
bad=0

fresh() {
    rm -rf "$tree"
    mkdir -p "$tree/kernels" "$tree/engine/base" "$tree/proto" "$tree/worker" "$tree/coordinator" \
        "$tree/tests/lint" "$tree/build/proto"
    for h in kernels/cpu kernels/math engine/base/status engine/model proto/wire worker/stage worker/state \
        coordinator/pipe; do
        printf '%s\n#include <stddef.h>\nsize_t tern_f(size_t n);\n' "$spdx" >"$tree/$h.h"
    done
    {
        printf '%s\n#include "engine/model.h"\n\n#include "kernels/cpu.h"\n\n' "$spdx"
        printf 'size_t tern_model_open(size_t n)\n{\n    return n;\n}\n'
    } >"$tree/engine/model.c"
    printf '%s\n#include "worker/stage.h"\n' "$spdx" >"$tree/coordinator/pipe.c"
    {
        echo '## The tour of one token'
        for i in 1 2 3 4 5 6 7 8 9 10 11 12 13; do
            echo "| $i | \`engine/model.c\` | \`tern_model_open\` |"
        done
    } >"$tree/README.md"
}

run() {
    case "$lint" in
        names) "$here/names.sh" "$tree/build" ;;
        headers) "$here/headers.sh" "$tree" "$tree/build" "$cc" ;;
        *) "$here/$lint.sh" "$tree" ;;
    esac >"$tmp/out" 2>&1
}

clean() {
    if run; then
        echo "ok: silent on a clean tree"
    else
        echo "FAILED: not silent on a clean tree:"
        cat "$tmp/out"
        bad=1
    fi
}

# finds WORDS: the lint must fail and say WORDS.
finds() {
    if run; then
        echo "FAILED: did not find: $1"
        bad=1
    elif ! grep -qF -- "$1" "$tmp/out"; then
        echo "FAILED: failed, but did not say: $1"
        cat "$tmp/out"
        bad=1
    else
        echo "ok: found: $1"
    fi
}

# plant FILE TEXT WORDS: a file of the fresh tree gets one more line.
plant() {
    fresh
    printf '%b\n' "$2" >>"$tree/$1"
    finds "$3"
}

lines() { # $1 lines of the text $2
    i=0
    while [ $i -lt "$1" ]; do
        printf '%s\n' "$2"
        i=$((i + 1))
    done
}

# A library that holds one object with the functions named.
library() { # $1 path under build, $2 object, $3... functions
    path=$1
    object=$2
    shift 2
    mkdir -p "$tree/build/$(dirname "$path")"
    for f in "$@"; do echo "int $f(void); int $f(void) { return 1; }"; done >"$tmp/$object.c"
    "$cc" -c "$tmp/$object.c" -o "$tmp/$object.c.o"
    ar rcs "$tree/build/$path" "$tmp/$object.c.o"
}

libraries() {
    fresh
    library engine/libtern_base.a status tern_err_set
    library engine/libtern_engine.a model tern_model_open
    library proto/libtern_proto.a wire tern_wire_put
    library worker/libtern_stage.a stage tern_stage_new
    for l in ref avx2 avxvnni avx512 avx512vbmi neon dotprod i8mm; do
        library kernels/libtern_kernels.a "kernels_$l" "tern_kernels_init_$l"
    done
}

case "$lint" in
    layers)
        fresh
        clean
        plant kernels/cpu.h '#include "engine/base/status.h"' 'kernels/cpu.h:4: may not include "engine/base'
        plant engine/base/status.h '#include "engine/model.h"' 'may not include "engine/model.h"'
        plant engine/model.h '#include "proto/wire.h"' 'may not include "proto/wire.h"'
        plant proto/wire.h '#include "engine/model.h"' 'may not include "engine/model.h"'
        plant proto/wire.h '#include "kernels/cpu.h"' 'may not include "kernels/cpu.h"'
        plant worker/stage.h '#include "kernels/math.h"' 'may not include "kernels/math.h"'
        plant worker/stage.h '#include "coordinator/pipe.h"' 'may not include "coordinator/pipe.h"'
        plant coordinator/pipe.h '  #  include "worker/state.h"' 'may not include "worker/state.h"'
        plant engine/model.h '#include "cpu.h"' 'is not written from the root'
        ;;
    unique)
        fresh
        clean
        plant worker/wire.h "$spdx" 'has the name of'
        ;;
    headers)
        fresh
        clean
        plant worker/state.h 'uint8_t tern_g(void);' 'worker/state.h: does not compile alone'
        plant worker/state.h 'struct twice { int x; };' 'worker/state.h: does not compile alone'
        ;;
    functions)
        fresh
        clean
        fresh
        { echo 'int worker_long(int x)'; echo '{'; lines 101 '    x++;'; echo '}'; } >>"$tree/worker/state.c"
        finds 'worker/state.c: worker_long has 101 lines'
        echo 'worker/state.c worker_long one table' >"$tree/tests/lint/long_functions.txt"
        clean
        echo 'worker/state.c worker_gone a reason' >>"$tree/tests/lint/long_functions.txt"
        finds 'worker_gone is not long any more'
        ;;
    names)
        libraries
        clean
        libraries
        library engine/libtern_engine.a stray model_open
        finds 'symbol without the prefix tern_: model_open'
        libraries
        library kernels/libtern_kernels.a math tern_wire_put
        finds 'tern_wire_put: defined twice'
        libraries
        library kernels/libtern_kernels.a kernels_avx2 tern_kernels_init_avx2 tern_dot_avx2
        finds 'kernels/kernels_avx2.c.o: exports'
        ;;
    text)
        fresh
        clean
        plant kernels/cpu.h '\tint x;' 'kernels/cpu.h:4: a tab'
        plant kernels/cpu.h 'int x; ' 'kernels/cpu.h:4: trailing blanks'
        plant kernels/cpu.h "$(printf '/* %0120d */' 0)" 'longer than 110 columns'
        plant kernels/cpu.h '/* TO''DO */' 'a note to oneself'
        plant README.md 'see /wo''rk/main' 'a path of one machine'
        plant README.md 'see /ro''ot' 'a path of one machine'
        fresh
        printf '%s\nint x;' "$spdx" >"$tree/worker/state.c"
        finds 'worker/state.c: no newline at the end'
        fresh
        echo 'int x;' >"$tree/worker/state.c"
        finds 'worker/state.c: the licence line is not at its head'
        fresh
        { echo "$spdx"; lines 600 'extern int x;'; } >"$tree/worker/state.c"
        finds 'worker/state.c: 601 lines, at most 600'
        echo 'worker/state.c one table' >"$tree/tests/lint/long_files.txt"
        clean
        echo 'worker/gone.c a reason' >>"$tree/tests/lint/long_files.txt"
        finds 'worker/gone.c is not long any more'
        ;;
    tour)
        fresh
        clean
        plant README.md '| 14 | `engine/gone.c` | `tern_model_open` |' 'engine/gone.c, which does not exist'
        plant README.md '| 14 | `engine/model.c` | `tern_model_shut` |' 'which does not define it'
        fresh
        sed -i '/| 13 /d' "$tree/README.md"
        finds 'has 12 steps, want 13'
        ;;
    *)
        echo "self_test.sh: there is no lint named $lint" >&2
        exit 2
        ;;
esac
exit $bad
