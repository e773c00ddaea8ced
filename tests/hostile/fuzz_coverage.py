"""Have atheris look for inputs that take new paths through the code: ``make fuzz-coverage``.

The arguments are the name of a target and those of libFuzzer, such as -max_total_time=600. Inputs
begin with the target's seeds; half of the changes to them are ours, half are libFuzzer's.
"""

import importlib
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

atheris: Any = importlib.import_module("atheris")  # of the extra ``fuzz``, without types


def main() -> None:
    """Fuzz one target until libFuzzer ends the process."""
    with atheris.instrument_imports(include=["converter"]):
        targets = importlib.import_module("fuzz_targets")
    _, name, *flags = sys.argv
    with tempfile.TemporaryDirectory() as folder:
        corpus, scratch = Path(folder, "corpus"), Path(folder, "scratch")
        corpus.mkdir()
        scratch.mkdir()
        target = targets.TARGETS[name](scratch)
        for number, seed in enumerate(target.seeds):
            (corpus / str(number)).write_bytes(seed)

        def change(text: bytes, longest: int, seed: int) -> bytes:
            chance = random.Random(seed)
            if chance.random() < 0.5:
                return bytes(atheris.Mutate(text, longest))
            return bytes(target.change(text, chance))[:longest]

        limits = ["-timeout=20", "-rss_limit_mb=3072", "-max_len=20000"]
        arguments = [sys.argv[0], *limits, *flags, str(corpus)]
        atheris.Setup(arguments, target.check, custom_mutator=change)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
