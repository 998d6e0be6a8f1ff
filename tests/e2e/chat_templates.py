# SPDX-License-Identifier: Apache-2.0
"""The templates that `tern convert` writes are true ones: Jinja, as Hugging Face's tokenizers run it, makes
the texts of them that Tern makes of the formats.  Skipped where python has no jinja2."""
import json
import os
import subprocess
import sys

from lab import SKIPPED, Lab

try:
    from jinja2.sandbox import ImmutableSandboxedEnvironment
except ImportError:
    print("skipped: python has no jinja2")
    sys.exit(SKIPPED)
lab = Lab()
jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
formats = json.loads(subprocess.run([os.path.join(lab.build, "bin", "chat_texts")], stdout=subprocess.PIPE,
                                    check=True).stdout)
lab.check(len(formats) >= 12, "there are formats")
for f in formats:
    template = jinja.from_string(f["template"])
    wrong = []
    for case in f["texts"]:
        text = template.render(messages=case["messages"], add_generation_prompt=case["ask"], bos_token="<B>",
                               eos_token="<E>")
        if text != case["text"]:
            wrong.append((text, case["text"]))
    lab.check(not wrong and len(f["texts"]) == 18, f["name"], wrong)
lab.end()
