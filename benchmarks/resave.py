"""What transformers does to a checkpoint: ``python resave.py FOLDER OUT`` loads and saves it."""

from __future__ import annotations

import importlib
import sys

if __name__ == "__main__":
    transformers = importlib.import_module("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
    model.save_pretrained(sys.argv[2], max_shard_size="1000GB")
