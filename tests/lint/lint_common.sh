# SPDX-License-Identifier: Apache-2.0
# What the lints share; sourced.  A lint gets the root of the tree as its first argument, prints one line a
# violation and ends with 0 when there is none, 1 when there are some, 2 when it could not look.

# The files of the tree, one a line, relative to it: what git tracks or would track, or everything outside
# build/ without git.
lint_files() {
    if git -C "$1" rev-parse --is-inside-work-tree >/dev/null 2>&1 && [ -e "$1/.git" ]; then
        git -C "$1" ls-files --cached --others --exclude-standard | sort -u | while IFS= read -r f; do
            [ -f "$1/$f" ] && printf '%s\n' "$f"
        done
    else
        (cd "$1" && find . \( -name .git -o -path ./build -o -name __pycache__ \) -prune -o -type f -print) |
            sed 's,^\./,,' | sort
    fi
}

lint_root() {
    if [ -z "${1:-}" ] || [ ! -d "$1" ]; then
        echo "usage: $(basename "$0") ROOT: the first argument is the directory of the source tree" >&2
        exit 2
    fi
}

# Ends the lint by what stands in the file of violations.
lint_end() {
    n=$(wc -l <"$1" | tr -d ' ')
    cat "$1"
    rm -f "$1"
    if [ "$n" -gt 0 ]; then
        echo "$(basename "$0"): $n violation(s)"
        exit 1
    fi
    exit 0
}
