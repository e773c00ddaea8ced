"""Offline checkpoint conversion: declarative rules, canonical safetensors, a thin torch runtime.

    rules/dit.yaml ──parse──▶ RuleFile ──lint──▶ findings
                                 │
    source header  ──────────bind──▶ Plan ──▶ findings (all at once)
                                 │
    source bytes ──execute──▶ tensors at known offsets ──write──▶ out/model.safetensors
                                 │
                           Plan + digests + statistics ──▶ out/manifest.json ──▶ verify
    ═════════════════════════════════ wall ═════════════════════════════════
    converter.runtime:  out/ ──load──▶ tensors, or an nn.Module, on CPU or CUDA

``converter.api`` is everything that the command line does, as functions; ``converter.runtime``
loads canonical directories and knows nothing of rules. Importing this package imports neither.
"""

__version__ = "0.1.0"
