"""Importing what torch.save wrote: exactly the expected names, and exactly the same bytes."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from click.testing import CliRunner
from pickles import contents, import_it, nested, save, saved, tensors_of
from pickles import in_this_process as in_this_process
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from converter import api, pickle_describe, resources
from converter.cli import main
from converter.dims import read_dims
from converter.errors import ExecutionError, SourceError, UsageError
from converter.finding import Finding
from converter.pickle_scan import PLAIN_GLOBALS
from converter.pickle_select import SAFETENSORS_DTYPES
from converter.torch_dtypes import TORCH_DTYPES

TESTS = Path(__file__).parent
LATE_DTYPES = {name for name in TORCH_DTYPES if name[:3] == "F8_"} | {"U16", "U32", "U64"}
in_here = pytest.mark.usefixtures("in_this_process")
both_layouts = pytest.mark.parametrize("is_archive", [True, False], ids=["archive", "stream"])


def adam(tensors: Mapping[str, Tensor]) -> list[tuple[str, dict[str, Any]]]:
    """Return an optimizer's state as the trainer of s2mel saves it."""
    state = {
        n: {"step": torch.tensor(7.0), "exp_avg": tensor, "exp_avg_sq": tensor * tensor}
        for n, tensor in enumerate(tensors.values())
    }
    return [("cfm", {"state": state, "param_groups": [{"lr": 1e-4, "params": [*state]}]})]


def same(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Require a file to hold exactly these tensors, to the byte."""
    plain = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    expected = path.with_name("expected.safetensors")
    save_file(plain, expected)
    assert contents(path) == contents(expected)


# What originals look like


@in_here
@both_layouts
def test_s2mel_with_its_optimizer_imports_to_the_names_of_its_net(
    is_archive: bool, tmp_path: Path
) -> None:
    tensors = {name.removeprefix("net."): t for name, t in tensors_of("s2mel").items()}
    checkpoint = {
        "net": nested(tensors, "cfm", "length_regulator", "gpt_layer"),
        "optimizer": adam(tensors),
        "scheduler": [("cfm", {"last_epoch": 3, "_last_lr": [1e-4]})],
        "iters": 120_000,
        "epoch": 4,
    }
    path = save(tmp_path / "s2mel.pth", checkpoint, is_archive=is_archive)
    imported = import_it(path, "net")
    same(imported.out, tensors)
    assert len(tensors) == 284
    assert imported.selection.left_out == {
        "optimizer": "a list of 1, 852 tensors inside",
        "scheduler": "a list of 1, 0 tensors inside",
        "iters": "a value of type int",
        "epoch": "a value of type int",
    }
    assert not imported.warnings


@in_here
@both_layouts
@pytest.mark.parametrize(
    ("header", "depth", "unwrap", "names"),
    [
        ("bigvgan_generator", "generator", None, "generator."),
        ("bigvgan_generator", "generator", "generator", ""),
        ("indextts2-gpt", "model", "model", ""),
        ("indextts2-gpt", "", None, ""),
        ("campplus_cn_common", "", None, ""),
        ("wav2vec2bert_stats", "", None, ""),
        ("soprano-1.1-80m-decoder", "", None, ""),
    ],
)
def test_an_original_imports_to_exactly_its_names(
    header: str, depth: str, unwrap: str | None, names: str, is_archive: bool, tmp_path: Path
) -> None:
    prefix = "generator." if depth == "generator" else ""
    tensors = {name.removeprefix(prefix): t for name, t in tensors_of(header).items()}
    path = save(tmp_path / "a.pth", {depth: tensors} if depth else tensors, is_archive=is_archive)
    imported = import_it(path, unwrap)
    same(imported.out, {names + name: tensor for name, tensor in tensors.items()})
    assert not imported.selection.left_out


def test_an_imported_checkpoint_converts_to_the_same_as_its_safetensors(tmp_path: Path) -> None:
    golden = TESTS / "golden" / "s2mel" / "checkpoint.safetensors"
    tensors = {name.removeprefix("net."): t for name, t in load_file(golden).items()}
    net = nested(tensors, "cfm", "length_regulator", "gpt_layer")
    path = save(tmp_path / "s2mel.pth", {"net": net, "optimizer": adam(tensors), "iters": 3})
    imported = import_it(path, "net")
    assert {"cpu", "files", "memory"} <= {*imported.sandbox.limits}
    options: Any = {"model": "dit", "dims": read_dims(TESTS / "models/dit/golden-dims.yaml", [])}
    ours = api.convert(imported.out, tmp_path / "ours", **options)
    theirs = api.convert(golden, tmp_path / "theirs", source_prefix="net.", **options)
    assert ours.manifest.content_sha256 == theirs.manifest.content_sha256


# Which part is meant


@in_here
def test_without_unwrap_a_file_with_more_than_tensors_is_refused_with_the_way_out(
    tmp_path: Path,
) -> None:
    checkpoint = {"net": {"a": {"w": torch.ones(2)}}, "ema": {"w": torch.ones(2)}, "iters": 3}
    path = save(tmp_path / "a.pth", checkpoint)
    with pytest.raises(SourceError) as caught:
        import_it(path)
    (finding,) = caught.value.findings
    held = "net: a dict with 1 tensor; ema: a dict with 1 tensor; iters: a value of type int"
    assert finding.got == held
    assert finding.hint == "say which part is meant: --unwrap net or --unwrap ema"


@in_here
def test_deeper_subtrees_are_found_and_taken(tmp_path: Path) -> None:
    w, y = torch.arange(3), torch.ones(2)
    model = {"x.y": y, "z": {"w": w}}
    path = save(tmp_path / "a.ckpt", {"run": {"model": model, "step": 3}, "seed": 1})
    with pytest.raises(SourceError, match=r"--unwrap run\.model$"):
        import_it(path)
    imported = import_it(path, "run.model")
    same(imported.out, {"x.y": y, "z.w": w})
    other = "a value of type int"
    assert imported.selection.left_out == {"run.step": other, "seed": other}


@in_here
def test_several_subtrees_of_tensors_alone_need_no_unwrap(tmp_path: Path) -> None:
    model, ema = torch.ones(2), torch.zeros(2)
    path = save(tmp_path / "a.pth", {"model": {"w": model}, "ema": {"w": ema}})
    same(import_it(path).out, {"model.w": model, "ema.w": ema})


@in_here
def test_a_subtree_that_is_not_there_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", {"model": {"w": torch.ones(2)}, "iters": 1})
    with pytest.raises(SourceError, match="did you mean --unwrap model"):
        import_it(path, "mode")
    with pytest.raises(SourceError, match=r"nothing below 'model\.w'"):
        import_it(path, "model.w")
    with pytest.raises(SourceError, match="nothing below 'iters'"):
        import_it(path, "iters")


@in_here
def test_a_key_with_a_dot_is_no_subtree(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", {"net.w": torch.ones(2), "epoch": 1})
    with pytest.raises(SourceError, match="nothing below 'net'"):
        import_it(path, "net")


@in_here
def test_below_the_subtree_everything_is_a_tensor_or_named(tmp_path: Path) -> None:
    net = {"w": torch.ones(2), "step": 3, "deep": {"list": [torch.ones(1)]}}
    path = save(tmp_path / "a.pth", {"net": net})
    with pytest.raises(SourceError) as caught:
        import_it(path, "net")
    assert {(f.tensor, f.got) for f in caught.value.findings} == {
        ("net.step", "a value of type int"),
        ("net.deep.list", "a list of 1, 1 tensor inside"),
    }


# What tensors look like


@in_here
@both_layouts
def test_tensors_of_every_dtype_keep_their_bytes(is_archive: bool, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    data = torch.randint(0, 256, (6, 16), dtype=torch.uint8, generator=generator)
    # The old layout has none of the dtypes that came after it.
    dtypes = [d for name, d in TORCH_DTYPES.items() if is_archive or name not in LATE_DTYPES]
    tensors = {
        str(dtype): (data > 128 if dtype == torch.bool else data.clone().flatten().view(dtype))
        for dtype in dtypes
    }
    imported = import_it(save(tmp_path / "a.pth", tensors, is_archive=is_archive))
    same(imported.out, tensors)
    assert len({piece.spec.dtype for piece in imported.selection.pieces}) == len(dtypes)


def test_the_names_of_dtypes_are_those_of_torch() -> None:
    names = {str(theirs).removeprefix("torch."): ours for ours, theirs in TORCH_DTYPES.items()}
    assert names == SAFETENSORS_DTYPES


@in_here
@both_layouts
def test_views_are_written_row_by_row(is_archive: bool, tmp_path: Path) -> None:
    base = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
    tensors = {
        "transposed": base.transpose(1, 3).clone(memory_format=torch.preserve_format),
        "channels last": base.clone().to(memory_format=torch.channels_last),
        "slice": base.clone()[:, 1:, ::2, 3],
        "offset": torch.arange(10)[4:],
        "scalar": torch.arange(10)[3],
        "empty": torch.zeros(0, 3),
        "empty inside": torch.ones(4, 0, 2)[1:],
        "of one": torch.ones(4).expand(1, 4),
    }
    assert not tensors["channels last"].is_contiguous()
    same(import_it(save(tmp_path / "a.pth", tensors, is_archive=is_archive)).out, tensors)


@in_here
def test_parameters_and_the_state_of_a_module_are_tensors(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    parameters = {"p": nn.Parameter(torch.ones(3)), **module.state_dict()}
    module.register_parameter("marked", nn.Parameter(torch.ones(2)))
    module.get_parameter("marked").tag = "decays"  # type: ignore[attr-defined]
    kept = module.state_dict(keep_vars=True)
    path = save(tmp_path / "a.pth", {"plain": parameters, "kept": kept})
    expected = {f"plain.{name}": tensor for name, tensor in parameters.items()}
    same(import_it(path).out, expected | {f"kept.{name}": t for name, t in kept.items()})


@in_here
def test_tensors_of_a_gpu_are_read_without_one(tmp_path: Path) -> None:
    w = torch.arange(4)
    for is_archive in (True, False):
        data = saved({"w": w}, is_archive=is_archive)
        (tmp_path / "a.pth").write_bytes(data.replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0"))
        if is_archive:
            continue  # the lengths in the archive would be wrong
        same(import_it(tmp_path / "a.pth").out, {"w": w})


@in_here
@both_layouts
def test_tied_weights_are_written_in_full_and_reported(is_archive: bool, tmp_path: Path) -> None:
    embed, fused = torch.arange(12.0).reshape(3, 4), torch.arange(30.0)
    tensors = {
        "embed.weight": embed,
        "head.weight": embed,
        "q": fused[:20],
        "k": fused[10:],
        "apart.0": torch.arange(4)[:2],
        "alone": torch.arange(5),
    }
    imported = import_it(save(tmp_path / "a.pth", tensors, is_archive=is_archive))
    same(imported.out, tensors)
    groups = {g.names: (g.stored_bytes, g.written_bytes) for g in imported.selection.shared}
    assert groups == {("embed.weight", "head.weight"): (48, 96), ("q", "k"): (120, 160)}
    assert {w.code for w in imported.warnings} == {"shared"}
    assert {w.severity for w in imported.warnings} == {"warning"}
    assert [w.tensor for w in imported.warnings] == ["embed.weight, head.weight", "q, k"]


@in_here
def test_slices_of_one_storage_that_have_nothing_in_common_share_nothing(tmp_path: Path) -> None:
    whole = torch.arange(10.0)
    imported = import_it(save(tmp_path / "a.pth", {"a": whole[:5], "b": whole[5:]}))
    assert imported.selection.shared == ()


@in_here
def test_both_layouts_import_to_the_same_file(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(4), "a": torch.ones(100, 64), "c": torch.ones(3).bfloat16()}
    for name, is_archive in (("x", True), ("y", False)):
        import_it(save(tmp_path / f"{name}.pth", tensors, is_archive=is_archive))
    first, second = (tmp_path / f"{name}.safetensors" for name in "xy")
    assert first.read_bytes() == second.read_bytes()


@in_here
def test_a_checkpoint_without_checksums_is_taken(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = save(tmp_path / "a.pth", {"a": torch.arange(5)})
    finally:
        torch.serialization.set_crc32_options(True)
    same(import_it(path).out, {"a": torch.arange(5)})


def test_fake_tensors_say_the_same_as_tensors_on_meta(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3).t(), "b": {"c": torch.ones(2, 2)}, "d": 3}
    loaders = pickle_describe.load_on_meta, pickle_describe.load_as_fakes
    told = []
    for load in loaders:
        loader = pickle_describe.ArchiveLoader(load, tells_sizes=True)
        with (save(tmp_path / "a.pth", tensors)).open("rb") as file:
            told.append(pickle_describe.describe_archive(loader, file))
    assert told[0] == told[1]
    assert len(told[0]["tensors"]) == 2


def test_what_is_taken_is_on_the_list_of_torch_too() -> None:
    from torch._weights_only_unpickler import _get_allowed_globals

    def mapped(name: str) -> str:
        return name.replace("__builtin__", "builtins").replace(" ", ".")

    theirs = _get_allowed_globals()
    strangers = {mapped(name) for name in PLAIN_GLOBALS} - theirs.keys()
    assert all(name.startswith("torch.cuda.") for name in strangers)


# The file that is made


@in_here
def test_the_file_is_plain_and_of_the_same_mode_everywhere(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        imported = import_it(save(tmp_path / "a.pth", {"a": torch.ones(3)}))
    finally:
        os.umask(before)
    assert imported.out.stat().st_mode & 0o777 == 0o644
    assert dict(api.inspect(imported.out).metadata) == {"format": "pt"}


@in_here
def test_an_existing_target_is_kept_unless_overwritten(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", {"a": torch.ones(3)})
    out = tmp_path / "a.safetensors"
    out.write_text("precious")
    with pytest.raises(ExecutionError, match="the target exists"):
        import_it(path)
    assert out.read_text() == "precious"
    import_it(path, overwrite=True)
    same(out, {"a": torch.ones(3)})


@in_here
@pytest.mark.parametrize("name", ["a.pth", "a", "a.safetensors.bak"])
def test_the_target_bears_the_suffix_that_convert_reads(name: str, tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", {"a": torch.ones(3)})
    with pytest.raises(UsageError, match="not a name for the target"):
        api.import_checkpoint(path, tmp_path / name)


@in_here
def test_safetensors_are_not_imported(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(SourceError, match="convert takes it as it is"):
        api.import_checkpoint(tmp_path / "a.safetensors", tmp_path / "b.safetensors")


@in_here
def test_a_source_that_is_absent_or_no_file_is_refused(tmp_path: Path) -> None:
    for path, code in ((tmp_path / "a.pth", "absent"), (tmp_path, "kind")):
        with pytest.raises(SourceError) as caught:
            api.import_checkpoint(path, tmp_path / "b.safetensors")
        assert caught.value.findings[0].code == code
    assert not [*tmp_path.iterdir()]


@in_here
def test_a_failure_while_values_are_copied_leaves_nothing(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", {"a": torch.ones(3)})

    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "new" / "folder" / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        api.import_checkpoint(path, out, progress=fail)
    assert [*tmp_path.iterdir()] == [path]


@in_here
@both_layouts
def test_progress_adds_up(is_archive: bool, tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", {"a": torch.ones(3000)}, is_archive=is_archive)
    steps: list[tuple[int, int]] = []
    import_it(path, progress=lambda done, total: steps.append((done, total)))
    assert sum(done for done, _ in steps) == steps[-1][1] == 12_000 * (2 if is_archive else 1)


@in_here
def test_a_file_of_the_old_layout_is_told_of_before_it_is_read(tmp_path: Path) -> None:
    said: list[Finding] = []
    import_it(save(tmp_path / "a.pth", {"a": torch.ones(3)}), notice=said.append)
    assert not said
    path = save(tmp_path / "b.pth", {"a": torch.ones(3)}, is_archive=False)
    import_it(path, notice=said.append)
    (finding,) = said
    assert finding.code == "whole-in-memory"
    assert finding.got == f"{path.stat().st_size:,} bytes"


# The command


def run(*arguments: str | Path) -> tuple[int, dict[str, Any], str]:
    done = CliRunner().invoke(main, ["import", *map(str, arguments), "--json"])
    report: Any = json.loads(done.stdout)
    jsonschema.validate(report, resources.schema("report"))
    assert done.exit_code == report["exit_code"]
    return done.exit_code, report, done.stderr


def test_the_command_reports_what_it_did_by_its_schema(tmp_path: Path) -> None:
    tied = torch.ones(3)
    checkpoint = {"net": {"a": tied, "b": tied}, "iters": 3}
    path = save(tmp_path / "a.pth", checkpoint, is_archive=False)
    code, report, stderr = run(path, tmp_path / "b.safetensors", "--unwrap", "net")
    assert (code, stderr) == (0, "")
    assert [f["code"] for f in report["findings"]] == ["whole-in-memory", "shared"]
    result = report["result"]
    assert result["unwrap"] == "net"
    assert result["layout"] == "stream"
    assert result["totals"] == {"tensors": 2, "parameters": 6, "bytes": 24}
    assert result["left_out"] == [{"name": "iters", "what": "a value of type int"}]
    assert result["shared"] == [{"names": ["a", "b"], "stored_bytes": 12, "written_bytes": 24}]
    assert isinstance(result["sandbox"]["network_dropped"], bool)


@in_here
def test_the_command_says_in_text_what_matters(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", {"net": {"a": torch.ones(3)}, "iters": 3}, is_archive=False)
    out = tmp_path / "b.safetensors"
    done = CliRunner().invoke(main, ["import", str(path), str(out), "--unwrap", "net"])
    assert done.exit_code == 0
    assert "1 tensor, 3 parameters, 12 B F32" in done.stdout
    assert "left out  iters: a value of type int" in done.stdout
    assert "it is read into memory whole" in done.stderr
    assert "network" in done.stdout


@in_here
def test_a_failure_of_the_command_is_one_error_in_json(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", {"net": {"a": torch.ones(3)}, "iters": 3})
    code, report, _ = run(path, tmp_path / "b.safetensors")
    assert code == 4
    assert report["result"] == {}
    (finding,) = report["findings"]
    assert finding["hint"] == "say which part is meant: --unwrap net"


@pytest.mark.parametrize("option", ["--unwrap=net", "--overwrite"])
def test_options_of_one_file_do_not_apply_to_a_bundle(option: str, tmp_path: Path) -> None:
    code, report, _ = run(tmp_path, tmp_path / "out", "--bundle", "indextts2", option)
    assert code == 2
    assert option.partition("=")[0] in report["findings"][0]["what"]
