#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Builds the whole of Tern for 64-bit ARM with Debian's cross compiler and runs it under qemu's user-mode
# emulation: at every ARM level, in one process and over two workers with encrypted links, it must write the
# tokens and probabilities that this machine's own build writes.  The unit tests can run there too.  Not a
# part of the tests: it fetches some 40 MB of packages.
#
#   tests/lab/arm64.sh [--unit] [--keep DIR]
#
#   --unit      also build the unit tests and run those that need no other program
#   --keep DIR  leave packages, sysroot and build in DIR, and use what is there (default: a temporary one)
#
# Ends with 0 when all texts are equal (and all unit tests pass), 1 when not, 2 when it did not get that far.
# Needs what Tern needs to build, and of Debian 12: gcc-aarch64-linux-gnu qemu-user.  The libraries come from
# the archive's arm64 packages, unpacked into a directory of their own: nothing is installed, no architecture
# added, and root is not needed.
set -eu

source=$(cd "$(dirname "$0")/../.." && pwd)
unit=
dir=
while [ $# -gt 0 ]; do
    case $1 in
        --unit) unit=1 ;;
        --keep)
            dir=${2:?--keep needs a directory}
            shift
            ;;
        *)
            echo "usage: $0 [--unit] [--keep DIR]" >&2
            exit 2
            ;;
    esac
    shift
done
if [ -z "$dir" ]; then
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
fi
trap 'exit 2' INT TERM HUP
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
cd "$dir"
for tool in aarch64-linux-gnu-gcc qemu-aarch64 cmake apt-get dpkg-deb; do
    command -v $tool >/dev/null && continue
    echo "arm64.sh: $tool is missing; see the head of this file" >&2
    exit 2
done

# -- a sysroot, by an apt that knows no other architecture and no installed package -----------------------
if [ ! -e sysroot/ready ]; then
    rm -rf apt sysroot
    mkdir -p apt/state/lists/partial apt/cache/archives/partial sysroot
    : >apt/status
    cat >apt.conf <<END
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
Debug::NoLocking "true";
Dir::State "$dir/apt/state";
Dir::State::status "$dir/apt/status";
Dir::Cache "$dir/apt/cache";
END
    libraries=$(sed 's/#.*//' "$source/deploy/packages" |
        awk '$1 == "build" && $2 ~ /^lib.*-dev$/ { print $2 }')
    {
        APT_CONFIG=$dir/apt.conf apt-get update
        # shellcheck disable=SC2086 # a list
        APT_CONFIG=$dir/apt.conf apt-get install -y --download-only $libraries
    } >apt.txt 2>&1 || {
        tail -5 apt.txt >&2
        echo "arm64.sh: no arm64 packages from this machine's archive; all of apt's words: apt.txt" >&2
        exit 2
    }
    for package in apt/cache/archives/*.deb; do
        dpkg-deb -x "$package" sysroot
    done
    : >sysroot/ready
fi

# -- both builds -------------------------------------------------------------------------------------------
cat >toolchain.cmake <<END
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_SYSROOT $dir/sysroot)
set(CMAKE_FIND_ROOT_PATH \${CMAKE_SYSROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64;-L;\${CMAKE_SYSROOT})
END
tests=OFF
[ -z "$unit" ] || tests=ON
{
    PKG_CONFIG_SYSROOT_DIR=$dir/sysroot \
        PKG_CONFIG_LIBDIR=$dir/sysroot/usr/lib/aarch64-linux-gnu/pkgconfig:$dir/sysroot/usr/share/pkgconfig \
        cmake -S "$source" -B arm -DCMAKE_TOOLCHAIN_FILE="$dir/toolchain.cmake" -DTERN_TESTS=$tests \
        -DCMAKE_BUILD_TYPE=RelWithDebInfo "-DCMAKE_C_FLAGS_RELWITHDEBINFO=-O3 -g1 -DNDEBUG" &&
        cmake --build arm -j2 &&
        cmake -S "$source" -B here -DTERN_TESTS=OFF -DCMAKE_BUILD_TYPE=Release &&
        cmake --build here -j2
} >build.txt 2>&1 || { tail -20 build.txt >&2; exit 2; }

# tern looks for ternd beside itself and starts it; the emulated one must start it through the emulator.
emulate="qemu-aarch64 -L $dir/sysroot"
mkdir -p run
cp arm/bin/tern run/tern
cp arm/bin/ternd run/ternd.arm64
printf '#!/bin/sh\nexec %s "%s/run/ternd.arm64" "$@"\n' "$emulate" "$dir" >run/ternd
chmod +x run/ternd

# -- the same text and probabilities -----------------------------------------------------------------------
export TERN_NO_CACHE=1
failed=0
# Everything of a run's JSON that must not depend on the machine.
tokens() {
    "$@" run -q -m "$source/deploy/models/fable.gguf" -p "Once upon a time" -n 48 --seed 7 \
        --json --logprobs 3 $options >json.txt 2>errors.txt && sed '/"finish_reason"/,$d' json.txt
}
# NAME, options of both runs, options of the emulated one alone.
compare() {
    options=$2
    tokens here/bin/tern >here.txt || { cat errors.txt; exit 2; }
    options="$2 $3"
    # shellcheck disable=SC2086 # a command line
    if tokens $emulate run/tern >arm.txt && [ -s arm.txt ] && cmp -s here.txt arm.txt; then
        echo "$1: the same"
    else
        failed=1
        echo "$1: DIFFERS"
        diff here.txt arm.txt | head -10
        head -5 errors.txt
    fi
}
for level in ref neon dotprod i8mm; do
    compare "$level" "" "--cpu $level"
done
compare "f16 between layers, a prompt in chunks of 2, 3 threads" "--wire f16" "--chunk 2 -t 3"
compare "two workers" "" "--local 2"
compare "two workers, two threads each, int8x2 between layers" "--wire int8x2" "--local 2 -t 2"
# test_hostile_gguf takes longer than its limit there, test_pipe starts ternd.
[ -z "$unit" ] ||
    ctest --test-dir arm -R '^unit\.' -E 'test_(hostile_gguf|pipe)$' --output-on-failure || failed=1
exit $failed
