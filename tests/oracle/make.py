# SPDX-License-Identifier: Apache-2.0
"""make.py FOLDER: all tiny models as files and folders, and manifest.json with what there is.

make.py FOLDER --goldens DIR: also computes the goldens of all models into DIR; needs numpy.
"""
import argparse
import concurrent.futures
import json
import os

import gguf_file
import hf_folder
import layouts
from tiny import FAMILIES, Model


def entry(family, variant, path, tiles):
    """What a reader must know of a file: how it is to be opened, and whether its numbers are the model's."""
    rounded = variant.startswith("tq") and not family.exact_tq
    return {"name": variant, "path": path, "tiles": tiles, "exact": not rounded,
            "i2s_layout": variant[5:].upper() if variant in ("i2_s-b", "i2_s-c") else "A"}


def make(index, top, goldens):
    family = FAMILIES[index]
    model = Model(family)
    folder = os.path.join(top, family.name)
    os.makedirs(folder, exist_ok=True)
    found = []
    for variant in family.files:
        path, tiles = gguf_file.make(model, variant, folder)
        found.append(entry(family, variant, path, tiles))
    for variant in family.folders:
        found.append(entry(family, variant, hf_folder.make(model, variant, folder), []))
    if goldens:
        import oracle_golden
        oracle_golden.make(model, os.path.join(goldens, family.name + ".golden"))
        if family.embedding:
            oracle_golden.make_vectors(model, os.path.join(goldens, family.name + ".json"))
    return {"name": family.name, "arch": family.arch, "embedding": family.embedding,
            "digest": model.digest(), "files": found}


def is_made(top):
    """What is there was made by these very scripts."""
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        made = os.path.getmtime(os.path.join(top, "manifest.json"))
    except OSError:
        return False
    return all(os.path.getmtime(os.path.join(here, n)) < made for n in os.listdir(here) if n.endswith(".py"))


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    args.add_argument("folder")
    args.add_argument("--goldens", metavar="DIR")
    o = args.parse_args()
    layouts.self_test()
    top = os.path.abspath(o.folder)
    os.makedirs(top, exist_ok=True)
    if o.goldens:
        os.makedirs(o.goldens, exist_ok=True)
    elif is_made(top):
        return
    with concurrent.futures.ProcessPoolExecutor() as pool:
        n = len(FAMILIES)
        models = list(pool.map(make, range(n), [top] * n, [o.goldens] * n))
    with open(os.path.join(top, "manifest.json.new"), "w", encoding="utf-8") as f:
        json.dump({"models": models}, f, indent=1)
    os.replace(f.name, os.path.join(top, "manifest.json"))


if __name__ == "__main__":
    main()
