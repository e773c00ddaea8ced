"""Which variants would fit a source that the chosen ones do not fit. Said in hints only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice, product

from converter.errors import ConverterError
from converter.rules.expand import Expansion, expand
from converter.rules.indices import MAX_WORK, Allowance
from converter.rules.rule_file import RuleFile
from converter.rules.settings import Settings, choices, resolve
from converter.spec import Header

Fits = Callable[[Settings, Expansion], bool]

_MOST_TRIED = 256
_MOST_WORK = MAX_WORK // 4  # whisper, with the most variants to combine, takes a tenth of MAX_WORK
_MOST_TOLD = 3


def fitting_hint(rule_file: RuleFile, header: Header, settings: Settings, fits: Fits) -> str | None:
    """Name the variants with which a source fits whole; those that differ least from the defaults.

    ``fits`` says of settings and their expansion whether they leave no finding.
    """
    found: dict[tuple[str, ...], int] = {}
    tried = list(islice(product(*rule_file.variants.values()), _MOST_TRIED))
    for candidate, expansion in _expansions(rule_file, tried, settings, _MOST_WORK):
        if _may_fit(expansion, header) and fits(candidate, expansion):
            found[candidate.variant] = len(_told(rule_file, candidate.variant))
    if not found:
        return None
    nearest = [variant for variant, changes in found.items() if changes == min(found.values())]
    options = " or with ".join(_option(rule_file, variant) for variant in nearest[:_MOST_TOLD])
    alone = "" if settings.own_dims else ", without --set or --dims"
    return f"with {options} every name and shape fits{alone}"


def naming_hint(rule_file: RuleFile, header: Header, settings: Settings) -> str | None:
    """Name the variants of which some names are in the source, when the chosen ones have none."""
    best, most = None, 0
    variants = list(choices(rule_file))
    for candidate, expansion in _expansions(rule_file, variants, settings, MAX_WORK):
        found = sum(name in header for unit in expansion.units for name in unit.sources)
        if found > most:
            best, most = candidate.variant, found
    if best is None:
        return None
    return f"with {_option(rule_file, best)} the rules name {most} tensors of this source"


def _expansions(
    rule_file: RuleFile, variants: Sequence[tuple[str, ...]], settings: Settings, work: int
) -> Iterator[tuple[Settings, Expansion]]:
    """Yield what the rules are with each choice that can be, within ``work`` for all of them."""
    scope, prefix = settings.options.get("scope"), settings.source_prefix
    for variant in variants:
        allowance = Allowance(work)
        try:
            candidate = resolve(
                rule_file, variant=variant, scope=scope, source_prefix=prefix, allowance=allowance
            )
        except ConverterError:
            continue
        expansion = expand(rule_file, candidate, allowance)
        work = allowance.work
        yield candidate, expansion


def _may_fit(expansion: Expansion, header: Header) -> bool:
    """Whether every source that must be there is, in its shape: what is quick to see."""
    return not expansion.findings and all(
        name in header and header[name].shape == shape
        for unit in expansion.units
        if not unit.rule.absent
        for name, shape in zip(unit.sources, unit.form.source_shapes or (), strict=False)
    )


def _told(rule_file: RuleFile, variant: tuple[str, ...]) -> list[str]:
    axes = zip(rule_file.variants.values(), variant, strict=True)
    return [name for variants, name in axes if not variants[name].is_default]


def _option(rule_file: RuleFile, variant: tuple[str, ...]) -> str:
    names = ",".join(_told(rule_file, variant))
    return f"--variant {names}" if names else "no --variant at all"
