"""A model as its rule file has it: what it is made of, and where its checkpoints come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from converter import resources
from converter.errors import ConverterError
from converter.manifest import Dim
from converter.rules.bundle_file import BundleFile, BundleSource
from converter.rules.expand import expand
from converter.rules.rule_file import Derived, RuleFile
from converter.rules.settings import resolve


@dataclass(frozen=True, slots=True)
class Membership:
    """A bundle that has the model as a member, and the source that the member is read from."""

    bundle: str
    member: str
    source: BundleSource


@dataclass(frozen=True, slots=True)
class Model:
    """A rule file, with what follows from it and from what comes with this package.

    ``derived`` are values at the dims of the file, and ``taken`` and ``made`` how many tensors a
    conversion with these reads and writes; None where the file needs a variant to be chosen.
    ``steps`` are in the order of their first use; ``has_network`` says whether the runtime builds
    the model.
    """

    rule_file: RuleFile
    derived: Mapping[str, Dim | None]
    taken: int | None
    made: int | None
    steps: tuple[str, ...]
    has_network: bool
    members: tuple[Membership, ...]


def model_of(rule_file: RuleFile, bundles: Iterable[BundleFile]) -> Model:
    """Describe a model; ``bundles`` are those that it may be a member of."""
    calls = (call.name for rule in rule_file.rules for call in rule.steps)
    members = tuple(
        Membership(bundle.bundle, name, bundle.sources[member.source])
        for bundle in bundles
        for name, member in bundle.members.items()
        if member.model == rule_file.model
    )
    derived: dict[str, Dim | None] = dict.fromkeys(rule_file.derived)
    taken = made = None
    try:
        settings = resolve(rule_file)
        derived = {name: settings.dims[name] for name in rule_file.derived}
        units = expand(rule_file, settings).units
        taken = sum(len(unit.sources) for unit in units)
        made = sum(len(unit.names) for unit in units)
    except ConverterError:  # lint says it of the file; here there is nothing to work out
        pass
    has_network = resources.has_network(rule_file.model)
    steps = tuple(dict.fromkeys(calls))
    return Model(rule_file, derived, taken, made, steps, has_network, members)


def expression(derived: Derived) -> str:
    """Return a derived value as it is written."""
    if isinstance(derived.value, tuple):
        return f"[{', '.join(item.text for item in derived.value)}]"
    return derived.value.text
