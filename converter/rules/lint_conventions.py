"""Conventions that others imply: what the vocabulary makes a fact, and no shape can show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from converter.finding import Finding
from converter.manifest import Scalar
from converter.rules.expand import Expansion
from converter.rules.rule_file import RuleFile
from converter.rules.settings import Settings

_Facts = Mapping[str, Scalar]


class _Implied(NamedTuple):
    """A fact that must be stated where another is, or is one of some values."""

    section: str
    fact: str
    values: frozenset[str] | None
    needs: str


def _needs(section: str, fact: str, needs: str, *values: str) -> _Implied:
    return _Implied(section, fact, frozenset(values) or None, needs)


_IMPLIED = (
    _needs("conventions", "position_embedding", "rope", "rope"),
    _needs("conventions", "position_embedding", "relative_distance", "relative_key"),
    _needs("conventions", "rope", "rope_base", "interleaved", "half_split"),
    _needs("conventions", "rope_base", "rope"),
    _needs("conventions", "norm", "norm_eps"),
    _needs("conventions", "norm", "norm_groups", "group_norm"),
    _needs("conventions", "activation", "activation_eps", "snake_beta"),
    _needs("conventions", "activation", "activation_parameters", "snake_beta"),
    _needs("conventions", "activation_oversampling", "activation_padding"),
    _needs("conventions", "timestep_scale", "timestep_embedding"),
    _needs("audio", "n_mels", "mel_scale"),
    _needs("audio", "n_mels", "mel_norm"),
    _needs("audio", "n_mels", "log"),
    _needs("audio", "n_fft", "sample_rate"),
    _needs("audio", "n_fft", "hop_length"),
    _needs("audio", "n_fft", "window"),
    _needs("audio", "spectrum", "magnitude_eps", "magnitude"),
    _needs("audio", "normalize", "normalize_eps", "mean_std"),
)
_ATTENTION = ("attention", "encoder_attention", "decoder_attention")
_FUSED = {"qkv": "qkv_order", "query_key_value": "qkv_order", "gate_up": "glu"}
_STEPS = {"permute_rope": "rope"}


def missing_conventions(
    rule_file: RuleFile, settings: Settings, expansion: Expansion
) -> Iterator[Finding]:
    """Yield a finding for every fact that other facts, names or steps call for."""
    for implied in _IMPLIED:
        facts: _Facts = getattr(settings, implied.section)
        value = facts.get(implied.fact)
        if value is None or (implied.values is not None and value not in implied.values):
            continue
        if implied.needs not in facts:
            because = f"{implied.fact}: {value}"
            yield _missing(rule_file.name, implied.section, implied.needs, because)
    yield from _called_for_by_names(rule_file, settings.conventions, expansion)
    yield from _called_for_by_steps(rule_file, settings.conventions)


def _missing(where: str, section: str, fact: str, because: str) -> Finding:
    return Finding(
        "convention",
        f"{section} do not say {fact}" if section == "conventions" else f"audio lacks {fact}",
        where,
        expected=f"{fact}, which {because} calls for",
        got="nothing",
        hint=f"no shape shows it: look it up in the original's code, and say it under {section}",
    )


def _called_for_by_names(
    rule_file: RuleFile, stated: _Facts, expansion: Expansion
) -> Iterator[Finding]:
    """Yield facts of attention, where queries and keys are made, and of what stays fused.

    Names are a weak sign: they count only where the file states conventions at all.
    """
    if not stated:
        return
    parts: dict[str, str] = {}
    for unit in expansion.units:
        for name in unit.names:
            for part in name.split("."):
                parts.setdefault(part, name)
    if {"q_proj", "k_proj"} <= parts.keys() and not stated.keys() & {*_ATTENTION}:
        because = f"a target such as {parts['q_proj']}"
        yield _missing(rule_file.name, "conventions", "attention", because)
    for word, fact in _FUSED.items():
        names = [name for part, name in parts.items() if word in part]
        if names and fact not in stated:
            yield _missing(rule_file.name, "conventions", fact, f"a target such as {names[0]}")


def _called_for_by_steps(rule_file: RuleFile, stated: _Facts) -> Iterator[Finding]:
    for rule in rule_file.rules:
        for call in rule.steps:
            fact = _STEPS.get(call.name)
            if fact is not None and fact not in stated:
                where = rule_file.where(call.line)
                yield _missing(where, "conventions", fact, f"the step {call.name}")
