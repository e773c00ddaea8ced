"""The models and bundles that there are, and one of them whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from converter.describe_model import Membership, Model, expression, model_of
from converter.finding import counted
from converter.manifest import Scalar
from converter.report import Report
from converter.rules.bundle_file import BundleFile, BundleSource, Member
from converter.rules.expression import Expression
from converter.rules.rule_file import RuleFile, Scope, Variant
from converter.sheet import Sheet, Slots, Table


def of_models(rule_files: Sequence[RuleFile], bundle_files: Sequence[BundleFile]) -> Report:
    """Report the models and the bundles that come with the package."""
    models = [(rule_file.model, rule_file.title) for rule_file in rule_files]
    bundles = [(file.bundle, f"{file.title} ({len(file.members)} models)") for file in bundle_files]
    sheet = Sheet(
        [
            Table(models, ("model", "what it is")),
            "",
            "Bundles, for --bundle:",
            Table(bundles, ("bundle", "what it is")),
        ]
    )

    def details() -> dict[str, object]:
        return {
            "models": [_model_json(model_of(rule_file, bundle_files)) for rule_file in rule_files],
            "bundles": [_bundle_json(bundle_file) for bundle_file in bundle_files],
        }

    return Report("models", sheet.text(), details, sheet=sheet)


def of_model(model: Model) -> Report:
    """Report one model: its dims, variants and conventions, and where it comes from."""
    rules = model.rule_file
    rows = [("about", " ".join(rules.about.split()))] if rules.about else []
    rows += [("origin", rules.origin)]
    rows += [("source", _membership(member)) for member in model.members]
    rows += [("rules", rules.name), ("scope", _scope(rules.scope))]
    rows += [("dtypes", ", ".join(rules.dtypes))]
    rows += [("dim", f"{name} = {value}") for name, value in rules.dims.items()]
    for name, derived in rules.derived.items():
        value = model.derived[name]
        worked_out = "" if value is None else f" = {value}"
        rows.append(("derived", f"{name} = {expression(derived)}{worked_out}"))
    rows += [("require", f"{item.that.text}: {item.because}") for item in rules.require]
    rows += [("variant", line) for line in _variants(rules)]
    facts = {"convention": rules.conventions, "audio": _audio(rules)}
    rows += [
        (kind, f"{key}: {value if isinstance(value, str) else json.dumps(value)}")
        for kind, values in facts.items()
        for key, value in values.items()
    ]
    rows += [("steps", ", ".join(model.steps) or "none: tensors are renamed alone")]
    if model.taken is not None and model.made is not None:
        rows.append(("tensors", f"{counted(model.taken, 'tensor')} to {model.made:,}"))
    loads = f'runtime.load_model gives "{rules.model}" as a module'
    rows += [("network", loads if model.has_network else "none: load_tensors, or load_into yours")]
    sheet = Sheet([f"{rules.model}: {rules.title}", Slots(rows)])
    return Report("models", sheet.text(), {"models": [_model_json(model)]}, sheet=sheet)


def of_bundle_file(bundle_file: BundleFile) -> Report:
    """Report one bundle: its sources, its members, and what they must agree on."""
    sources = [
        ("  source", name, source.file, _said_of(source))
        for name, source in bundle_file.sources.items()
    ]
    members = [
        ("  member", name, _rules_of(member), f"from {member.source}")
        for name, member in bundle_file.members.items()
    ]
    agreed = [f"  agree   {item.that.text}: {item.because}" for item in bundle_file.agree]
    sheet = Sheet(
        [
            f"{bundle_file.bundle}: {bundle_file.title}",
            Table([*sources, *members]),
            *agreed,
            f"  rules   {bundle_file.name}",
        ]
    )
    result = {"models": [], "bundles": [_bundle_json(bundle_file)]}
    return Report("models", sheet.text(), result, sheet=sheet)


def _membership(member: Membership) -> str:
    said = _said_of(member.source)
    return f"bundle {member.bundle}, {member.member}: {member.source.file}" + (said and f"; {said}")


def _scope(scope: Scope) -> str:
    if scope.excluded:
        return f"all but {', '.join(scope.excluded)}"
    return ", ".join(prefix for prefix in scope.prefixes if prefix) or "the whole file"


def _variants(rules: RuleFile) -> Iterator[str]:
    for axis, choices in rules.variants.items():
        yield f"{axis}: {', '.join(map(_named, choices.items()))}"
        for name, variant in choices.items():
            if changes := ", ".join(_changes(variant)):
                yield f"  {name} sets {changes}"


def _named(choice: tuple[str, Variant]) -> str:
    name, variant = choice
    return f"{name} (default)" if variant.is_default else name


def _changes(variant: Variant) -> Iterator[str]:
    yield from (f"{name} = {value}" for name, value in variant.dims.items())
    yield from (f"{{{word}}} = {text!r}" for word, text in variant.words.items())
    yield from (f"{name}: {json.dumps(value)}" for name, value in variant.conventions.items())
    if variant.scope is not None:
        yield f"scope {_scope(variant.scope)}"


def _said_of(source: BundleSource) -> str:
    """Return how a source is read, and what it is imported from."""
    said = [f"prefix {source.source_prefix}"] if source.source_prefix else []
    if (original := source.original) is not None:
        unwrapped = f" ({original.unwrap})" if original.unwrap else ""
        said.append(f"imported from {original.file}{unwrapped}")
    return "; ".join(said)


def _rules_of(member: Member) -> str:
    """Return what a member's rules are, with its variant and the dims that it sets."""
    chosen = [*member.variant, *(f"{name} = {value}" for name, value in member.dims.items())]
    rules = member.model or member.rules or ""
    return f"{rules} ({', '.join(chosen)})" if chosen else rules


def _model_json(model: Model) -> dict[str, object]:
    rules = model.rule_file
    return {
        "name": rules.model,
        "title": rules.title,
        "about": rules.about,
        "origin": rules.origin,
        "rules": rules.name,
        "sha256": rules.sha256,
        "scope": _scope_json(rules.scope),
        "dtypes": list(rules.dtypes),
        "dims": dict(rules.dims),
        "derived": {
            name: {"expression": expression(derived), "value": model.derived[name]}
            for name, derived in rules.derived.items()
        },
        "require": [{"that": item.that.text, "because": item.because} for item in rules.require],
        "variants": {axis: list(choices) for axis, choices in rules.variants.items()},
        "variant_changes": {
            name: _changes_json(variant)
            for choices in rules.variants.values()
            for name, variant in choices.items()
        },
        "conventions": dict(rules.conventions),
        "audio": _audio(rules),
        "steps": list(model.steps),
        "taken": model.taken,
        "made": model.made,
        "network": model.has_network,
        "bundles": [
            {
                "bundle": member.bundle,
                "member": member.member,
                "file": member.source.file,
                "import": member.source.original and asdict(member.source.original),
            }
            for member in model.members
        ],
    }


def _changes_json(variant: Variant) -> dict[str, object]:
    return {
        "dims": dict(variant.dims),
        "words": dict(variant.words),
        "conventions": dict(variant.conventions),
        "scope": variant.scope and _scope_json(variant.scope),
    }


def _scope_json(scope: Scope) -> dict[str, object]:
    return {"prefixes": list(scope.prefixes), "except": list(scope.excluded)}


def _audio(rule_file: RuleFile) -> Mapping[str, Scalar]:
    return {
        key: value.text if isinstance(value, Expression) else value
        for key, value in rule_file.audio.items()
    }


def _bundle_json(bundle_file: BundleFile) -> dict[str, object]:
    return {
        "name": bundle_file.bundle,
        "title": bundle_file.title,
        "about": bundle_file.about,
        "rules": bundle_file.name,
        "sha256": bundle_file.sha256,
        "sources": {
            name: {
                "file": source.file,
                "source_prefix": source.source_prefix,
                "import": source.original and asdict(source.original),
            }
            for name, source in bundle_file.sources.items()
        },
        "members": {
            name: {
                "source": member.source,
                "rules": member.model or member.rules,
                "variant": list(member.variant),
                "dims": dict(member.dims),
            }
            for name, member in bundle_file.members.items()
        },
        "agree": [{"that": a.that.text, "because": a.because} for a in bundle_file.agree],
    }
