"""``priorkit merge-adapters`` as its users meet it: golden merges, exit codes, bad input, bytes."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from priorkit.cli.main import run
from priorkit.core.manifest import CHECKSUM
from priorkit.core.options import recipe as recipes
from priorkit.merging import deltas as deltas_module
from priorkit.merging import tensors as tensors_module
from priorkit.merging.deltas import Device

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = GOLDEN / "tiny-llama"
ADAPTERS = {name: GOLDEN / "lora" / f"adapter_{name}" for name in "abcd"}
FULL_CASES = json.loads((GOLDEN / "merge.json").read_text())["cases"]
METHOD_CASES = json.loads((GOLDEN / "merge_methods.json").read_text())["cases"]
LORA_CASES = json.loads((GOLDEN / "lora_merge.json").read_text())["cases"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The four golden models as folders."""
    root = tmp_path_factory.mktemp("models")
    for name in ("base", "m1", "m2", "m3"):
        (root / name).mkdir()
        shutil.copy(GOLDEN / "merge" / f"{name}.safetensors", root / name / "model.safetensors")
        shutil.copy(GOLDEN / "merge" / "config.json", root / name)
    return root


@pytest.fixture
def merge(tmp_path, capsys):
    """Run the command; returns exit code, standard error and the output's folder."""

    def call(*arguments):
        capsys.readouterr()
        code = run(["merge-adapters", *map(str, arguments), "--out", str(tmp_path / "out")])
        return code, capsys.readouterr().err, tmp_path / "out"

    return call


def repeated(flag, values):
    return [part for value in values for part in (flag, value)]


def edited(source, target, **changes):
    """A copy of a model folder with other tensors (None drops one)."""
    shutil.copytree(source, target)
    found = load_file(source / "model.safetensors")
    for name, value in changes.items():
        if value is None:
            del found[name]
        else:
            found[name] = value
    save_file(found, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.mark.parametrize("case", FULL_CASES, ids=lambda case: case["expected"]["file"].split("/")[1])
def test_full_models_equal_mergekits_merge(case, models, merge):
    settings = case["input"]
    given = settings["models"]
    arguments = [models / Path(model["file"]).stem for model in given]
    arguments += ["--method", settings["merge_method"], *repeated("--weight", [m["weight"] for m in given])]
    arguments += repeated("--density", [m["density"] for m in given if "density" in m])
    if settings["base"]:
        arguments += ["--base", models / "base"]
    options = settings["parameters"]
    if "normalize" in options:
        arguments.append("--normalize" if options["normalize"] else "--no-normalize")
    if "lambda" in options:
        arguments += ["--lambda", options["lambda"]]
    code, _, out = merge(*arguments)
    assert code == 0
    compare(load_file(out / "model.safetensors"), load_file(GOLDEN / case["expected"]["file"]))


@pytest.mark.parametrize("case", METHOD_CASES, ids=lambda case: case["input"]["method"])
def test_further_methods_equal_mergekits(case, models, merge):
    given = case["input"]
    arguments = [*(models / name for name in given["inputs"]), "--method", given["method"]]
    if given["base"]:
        arguments += ["--base", models / "base"]
    for name, value in given["options"].items():
        flag = "--" + name.rstrip("_").replace("_", "-")
        if value is True:
            arguments.append(flag)
        else:
            arguments += repeated(flag, value if isinstance(value, list) else [value])
    code, _, out = merge(*arguments)
    assert code == 0
    compare(load_file(out / "model.safetensors"), load_file(GOLDEN / case["expected"]["file"]))


def compare(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert (found[name] - tensor).abs().max() <= tolerance, name


@pytest.mark.parametrize("case", LORA_CASES, ids=lambda case: str(case["input"]["weights"]))
def test_adapters_fold_to_the_weighted_sum_of_their_changes(case, merge):
    arguments = [GOLDEN / path for path in case["input"]["adapters"]]
    arguments += [*repeated("--weight", case["input"]["weights"]), "--no-normalize", "--base", TINY]
    code, _, out = merge(*arguments)
    assert code == 0
    base, found = load_file(TINY / "model.safetensors"), load_file(out / "model.safetensors")
    changed = set()
    for name, expected in case["expected"]["per_tensor"].items():
        change = found[name].double() - base[name].double()
        assert abs(float(change.norm()) - expected["frobenius"]) <= 1e-5 * max(expected["frobenius"], 1)
        assert abs(float(change.sum()) - expected["sum"]) <= 1e-5 * max(expected["frobenius"], 1)
        np.testing.assert_allclose(change.reshape(-1)[:4], expected["first4"], atol=2e-6)
        changed.add(name)
    for name in base.keys() - changed:
        assert torch.equal(found[name], base[name])
    for companion in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "config.json"):
        assert (out / companion).read_bytes() == (TINY / companion).read_bytes()


def test_the_manifest_names_kind_inputs_and_change(merge):
    code, _, out = merge(ADAPTERS["a"], "--base", TINY)
    manifest = json.loads((out / "priorkit.json").read_text())
    assert code == 0
    assert manifest["kind"] == "llm"
    assert [record["setting"] for record in manifest["inputs"]] == ["inputs.0", "base"]
    report = json.loads((out / "merge.json").read_text())
    assert manifest["metrics"]["change_norm"] == report["change_norm"] > 0
    assert report["tensors"]["model.layers.0.self_attn.q_proj.weight"]["change_norm"] > 0
    assert report["tensors"]["lm_head.weight"]["change_norm"] == 0


def test_without_a_base_the_result_is_an_adapter(merge):
    code, _, out = merge(ADAPTERS["a"], ADAPTERS["b"], "--weight", "0.5,0.25", "--no-normalize")
    assert code == 0
    assert json.loads((out / "priorkit.json").read_text())["kind"] == "adapter"
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["r"] == 8
    assert config["rank_pattern"]["model.layers.0.self_attn.q_proj"] == 12
    assert config["base_model_name_or_path"] == "../../tiny-llama"


def test_the_rank_of_a_merged_adapter_can_be_cut(merge):
    code, _, out = merge(ADAPTERS["b"], ADAPTERS["d"], "--rank", 3)
    assert code == 0
    assert json.loads((out / "adapter_config.json").read_text())["r"] == 3
    assert 0 < json.loads((out / "merge.json").read_text())["relative_error"] < 1


def test_selections_over_adapters_report_what_their_rank_loses(merge):
    code, _, out = merge(ADAPTERS["a"], ADAPTERS["d"], "--method", "ties", "--density", 0.5)
    assert code == 0
    report = json.loads((out / "merge.json").read_text())
    assert report["tensors"]["model.layers.0.self_attn.q_proj"]["rank"] == 10
    assert report["relative_error"] > 0


@pytest.mark.parametrize("method", ["dare_ties", "della_linear", "ties", "slerp"])
def test_bytes_do_not_depend_on_threads_and_do_on_the_seed(method, models, tmp_path):
    digests = []
    for number, (workers, seed) in enumerate(((1, 1), (2, 1), (2, 2))):
        out = tmp_path / str(number)
        arguments = [models / "m1", models / "m2", "--method", method, "--workers", workers, "--seed", seed]
        arguments += [] if method == "slerp" else ["--base", models / "base", "--density", 0.5]
        assert run(["merge-adapters", *map(str, arguments), "--out", str(out)]) == 0
        digests.append((out / "model.safetensors").read_bytes())
    assert digests[0] == digests[1]
    assert (digests[1] != digests[2]) == method.startswith(("dare", "della"))


def test_rules_address_parts_of_the_model(models, merge):
    rules = ["*=0", "layers.1-1=1", "1:lm_head=1"]
    arguments = [models / "m1", "--base", models / "base", "--method", "task_arithmetic"]
    code, _, out = merge(*arguments, *repeated("--weight-rule", rules))
    assert code == 0
    found = load_file(out / "model.safetensors")
    base, other = (load_file(models / name / "model.safetensors") for name in ("base", "m1"))
    for name, tensor in found.items():
        wanted = other if "layers.1." in name or name == "lm_head.weight" else base
        torch.testing.assert_close(tensor, wanted[name], rtol=0, atol=1e-6)


def test_another_type_is_cast_once_and_noted(models, merge):
    code, _, out = merge(models / "m1", models / "m2", "--dtype", "bfloat16", "--precision", "fp64")
    assert code == 0
    one, two = (load_file(models / name / "model.safetensors") for name in ("m1", "m2"))
    for name, tensor in load_file(out / "model.safetensors").items():
        expected = (0.5 * one[name].double() + 0.5 * two[name].double()).float().bfloat16()
        assert torch.equal(tensor, expected)
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


def test_shards_of_the_base_are_kept(models, tmp_path, merge):
    tensors = load_file(models / "base" / "model.safetensors")
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    shutil.copy(models / "base" / "config.json", sharded)
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[:9], names[9:]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, sharded / file)
        weight_map.update(dict.fromkeys(part, file))
    (sharded / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    code, _, out = merge(models / "m1", "--base", sharded, "--method", "task_arithmetic")
    assert code == 0
    assert json.loads((out / "model.safetensors.index.json").read_text())["weight_map"] == weight_map
    expected = load_file(models / "m1" / "model.safetensors")
    found = {k: v for file in sorted(set(weight_map.values())) for k, v in load_file(out / file).items()}
    compare(found, expected, 1e-6)


def test_analysis_compares_the_changes(merge):
    from safetensors.numpy import load_file as load_arrays

    code, _, out = merge(ADAPTERS["a"], ADAPTERS["b"], ADAPTERS["a"], "--analyse")
    assert code == 0
    assert json.loads((out / "priorkit.json").read_text())["kind"] == "scores"
    scores = load_arrays(out / "scores.safetensors")
    assert scores["cosine"].shape == (3, 3)
    assert scores["cosine"][0, 2] == pytest.approx(1)
    assert scores["sign_agreement"][0, 2] == 1
    assert abs(scores["cosine"][0, 1]) < 0.2
    assert 0.4 < scores["sign_agreement"][0, 1] < 0.6
    assert scores["layer_norm"].shape == (3, 2)
    assert scores["spectrum"][0, 3] == pytest.approx(1)
    assert scores["spectrum"][1, 6] < 1
    assert scores["spectrum"][1, 7] == pytest.approx(1)
    expected = LORA_CASES[0]["expected"]["per_tensor"].values()
    total = sum(tensor["frobenius"] ** 2 for tensor in expected) ** 0.5
    assert np.sqrt((scores["layer_norm"][0] ** 2).sum()) == pytest.approx(total, rel=1e-5)
    assert (out / "table.parquet").is_file()
    assert (out / "analysis.png").stat().st_size > 1000


def test_a_plan_reads_headers_only_and_makes_nothing(models, tmp_path, merge):
    broken = edited(models / "m1", tmp_path / "nan")
    data = bytearray((broken / "model.safetensors").read_bytes())
    data[-4:] = b"\xff\xff\xff\xff"
    (broken / "model.safetensors").write_bytes(bytes(data))
    code, err, out = merge(broken, models / "m2", "--check")
    assert code == 0
    assert "linear (weight [1.0], normalize True)" in err
    assert not out.exists()


def test_the_recipe_that_travels_along_makes_the_same_bytes(models, tmp_path, merge):
    rules = repeated("--weight-rule", ["2:mlp=0.5", "layers.1-1=0,1"])
    code, _, out = merge(
        models / "m1", models / "m2", "--base", models / "base", "--method", "ties",
        "--density", "0.5,0.3", "--lambda", "0.8", *rules,
    )  # fmt: skip
    assert code == 0
    again = tmp_path / "again"
    assert run(["merge-adapters", "--recipe", str(out / "recipe.toml"), "--out", str(again)]) == 0
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["fold", "ties"])
def test_the_shipped_recipes_run(name, models, merge):
    recipe = recipes.shipped()[f"merge/{name}"]
    inputs = [ADAPTERS["a"], "--base", TINY] if name == "fold" else [models / "m1", "--base", models / "base"]
    assert merge(*inputs, "--recipe", recipe)[0] == 0


@pytest.mark.parametrize("method", ["ties", "dare_ties", "della", "breadcrumbs", "sce"])
def test_torch_selects_what_numpy_selects(method, models, tmp_path, monkeypatch):
    found = []
    for number, device in enumerate((Device(), Device(torch.device("cpu")))):
        monkeypatch.setattr(deltas_module, "device_of", lambda *_, device=device: device)
        out = tmp_path / str(number)
        inputs = [models / "m1", models / "m2", "--base", models / "base", "--method", method]
        inputs += [] if method == "sce" else ["--density", 0.5]
        assert run(["merge-adapters", *map(str, inputs), "--out", str(out)]) == 0
        found.append(load_file(out / "model.safetensors"))
    compare(found[1], found[0], 1e-6)


def test_running_again_is_up_to_date(models, merge):
    assert merge(models / "m1", models / "m2")[0] == 0
    code, err, _ = merge(models / "m1", models / "m2")
    assert code == 0
    assert "up to date" in err


USAGE = {
    "unknown method": (["m1", "m2", "--method", "tiess"], "did you mean 'ties'"),
    "unknown parameter": (["m1", "m2", "--epsilon", "0.1"], "linear has no such parameter"),
    "a single input to slerp": (["m1", "--method", "slerp"], "slerp merges 2 inputs, got 1"),
    "a single input to model stock": (
        ["m1", "--base", "base", "--method", "model_stock"],
        "at least 2 inputs, got 1",
    ),
    "weights that sum to 0": (["m1", "m2", "--weight", "1", "--weight", "-1"], "sum to 0"),
    "too many weights": (["m1", "m2", "--weight", "1,2,3"], "3 values for 2 inputs"),
    "a density of 0": (["m1", "--base", "base", "--method", "ties", "--density", "0"], "share above 0"),
    "ties without a base": (["m1", "m2", "--method", "ties"], "merges deltas from a base"),
    "a rule that fits nothing": (["m1", "m2", "--weight-rule", "vision=0"], "no tensor matches vision"),
    "an unreadable rule": (["m1", "m2", "--weight-rule", "mlp=lots"], "is no rule"),
    "a rank for a model": (["m1", "m2", "--rank", "4"], "--extract"),
    "extraction without a size": (
        ["m1", "--base", "base", "--method", "task_arithmetic", "--extract"],
        "needs a size",
    ),
    "weights for a method that finds its own": (
        ["m1", "m2", "--base", "base", "--method", "sce", "--weight", "0.5"],
        "computes its own weights",
    ),
    "no input": ([], "missing"),
}


@pytest.mark.parametrize("name", USAGE)
def test_usage_errors(name, models, merge):
    arguments, words = USAGE[name]
    known = {item.name: item for item in models.iterdir()}
    code, err, out = merge(*(known.get(argument, argument) for argument in arguments))
    assert code == 2, err
    assert words in err
    assert "Traceback" not in err
    assert not out.exists()


def input_error(merge, *arguments):
    code, err, out = merge(*arguments)
    assert code == 3, err
    assert "Traceback" not in err
    assert not out.exists()
    assert not out.with_name("out.partial").exists()
    return err


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", ["linear", "ties"])
def test_nan_and_infinity_are_named(bad, method, models, tmp_path, merge):
    tensor = load_file(models / "m1" / "model.safetensors")["model.norm.weight"]
    tensor[3] = bad
    broken = edited(models / "m1", tmp_path / "broken", **{"model.norm.weight": tensor})
    err = input_error(merge, broken, models / "m2", "--base", models / "base", "--method", method)
    assert "NaN or infinite" in err
    assert "tensor model.norm.weight" in err
    assert "broken" in err


def test_missing_extra_and_misshapen_tensors_are_all_listed(models, tmp_path, merge):
    broken = edited(
        models / "m1",
        tmp_path / "broken",
        **{
            "model.layers.0.mlp.up_proj.weight": None,
            "model.layers.2.mlp.up_proj.weight": torch.zeros(64, 32),
            "model.embed_tokens.weight": torch.zeros(100, 32),
        },
    )
    err = input_error(merge, broken, models / "m2", "--base", models / "base", "--check")
    assert "missing tensors: model.layers.0.mlp.up_proj.weight" in err
    assert "do not have: model.layers.2.mlp.up_proj.weight" in err
    assert "model.embed_tokens.weight [96, 32] expected, got [100, 32]" in err


def test_an_adapter_for_a_base_of_another_shape(models, merge):
    err = input_error(merge, ADAPTERS["b"], "--base", models / "base")
    assert "shapes differ" in err
    assert "[32, 32] expected, got [64, 64]" in err


def test_an_adapter_for_deeper_base(models, tmp_path, merge):
    shallow = edited(
        TINY,
        tmp_path / "shallow",
        **{name: None for name in load_file(TINY / "model.safetensors") if ".layers.1." in name},
    )
    err = input_error(merge, ADAPTERS["a"], "--base", shallow)
    assert "the base has no model.layers.1.self_attn.q_proj.weight" in err


def test_adapters_that_name_different_bases(tmp_path, merge):
    other = tmp_path / "other"
    shutil.copytree(ADAPTERS["a"], other)
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(
        json.dumps({**config, "base_model_name_or_path": "another/model"})
    )
    err = input_error(merge, ADAPTERS["a"], other)
    assert "different bases" in err
    code, err, _ = merge(ADAPTERS["a"], other, "--base", TINY)
    assert code == 0
    assert "warning" in err
    assert "another/model" in err


def test_an_adapter_artifact_trained_on_a_model_of_another_digest(models, tmp_path, merge):
    base = tmp_path / "base"
    assert run(["merge-adapters", str(ADAPTERS["b"]), "--base", str(TINY), "--out", str(base)]) == 0
    adapter = tmp_path / "adapter"
    arguments = [str(base), "--base", str(TINY), "--extract", "--rank", "2", "--method", "task_arithmetic"]
    assert run(["merge-adapters", *arguments, "--out", str(adapter)]) == 0
    manifest = json.loads((adapter / "priorkit.json").read_text())
    for record in manifest["inputs"]:
        record.update(kind="llm", digest="0" * 64)
    del manifest[CHECKSUM]
    (adapter / "priorkit.json").write_text(json.dumps(manifest))
    err = input_error(merge, adapter, "--base", base)
    assert "the adapter was trained on" in err


def test_a_quantised_base(tmp_path, merge):
    base = tmp_path / "base"
    shutil.copytree(TINY, base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    err = input_error(merge, ADAPTERS["a"], "--base", base)
    assert "quantised (gptq)" in err


def test_packed_weights(models, tmp_path, merge):
    packed = edited(
        models / "m1", tmp_path / "packed", **{"lm_head.weight": torch.zeros(96, 32, dtype=torch.uint8)}
    )
    assert "type U8 cannot be merged" in input_error(merge, packed, models / "m2")


def test_pickles_are_refused_with_the_way_out(tmp_path, merge):
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    shutil.copy(TINY / "config.json", pickled)
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04")
    err = input_error(merge, ADAPTERS["a"], "--base", pickled)
    assert "pickle" in err
    assert "safetensors" in err


def test_other_tokenizers_are_refused(models, tmp_path, merge):
    for name, words in (("one", {"a": 0, "b": 1}), ("two", {"a": 1, "b": 0})):
        shutil.copytree(models / "m1", tmp_path / name)
        text = json.dumps({"model": {"vocab": words}, "added_tokens": []})
        (tmp_path / name / "tokenizer.json").write_text(text)
    err = input_error(merge, tmp_path / "one", tmp_path / "two")
    assert "differs from that of" in err
    assert "'a' is 0 and 1" in err


def test_slerp_between_changes_one_of_which_is_zero(tmp_path, merge):
    still = tmp_path / "still"
    shutil.copytree(ADAPTERS["a"], still)
    tensors = load_file(still / "adapter_model.safetensors")
    zeroed = {name: value * 0 if "lora_B" in name else value for name, value in tensors.items()}
    save_file(zeroed, still / "adapter_model.safetensors")
    err = input_error(merge, ADAPTERS["a"], still, "--base", TINY, "--method", "slerp", "--t", "0.5")
    assert "the second input is zero here" in err
    assert "layers.0.self_attn.q_proj" in err


def test_a_tied_model_merges_with_untied_ones(models, tmp_path, merge):
    tied = edited(models / "m1", tmp_path / "tied", **{"lm_head.weight": None})
    config = json.loads((tied / "config.json").read_text())
    (tied / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    code, _, out = merge(tied, models / "m2", "--weight", "1,0")
    assert code == 0
    found, expected = load_file(out / "model.safetensors"), load_file(tied / "model.safetensors")
    compare(found, {**expected, "lm_head.weight": expected["model.embed_tokens.weight"]})
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False


def reconfigured(source, target, **fields):
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **fields}))
    return target


STRUCTURE = {
    "num_attention_heads": 8,
    "hidden_act": "gelu",
    "num_hidden_layers": 3,
    "num_key_value_heads": 1,
}


@pytest.mark.parametrize("field", STRUCTURE)
def test_models_of_another_structure_are_refused_by_name(field, models, tmp_path, merge):
    other = reconfigured(models / "m2", tmp_path / "other", **{field: STRUCTURE[field]})
    assert f"{field} is {STRUCTURE[field]!r}, not" in input_error(merge, models / "m1", other)


FUNCTION = {
    "rope_parameters": ({"rope_theta": 5e5, "rope_type": "default"}, "rope"),
    "rms_norm_eps": (1e-3, "rms_norm_eps is 0.001, not"),
    "max_position_embeddings": (77, "max_position_embeddings is 77"),
}


@pytest.mark.parametrize("field", FUNCTION)
def test_models_that_compute_something_else_are_warned_of_once_by_name(field, models, tmp_path, merge):
    value, words = FUNCTION[field]
    other = reconfigured(models / "m2", tmp_path / "other", **{field: value})
    code, err, _ = merge(models / "m1", other)
    assert code == 0
    assert words in err
    assert err.count("the configuration differs") == 1


def test_configurations_that_only_spell_defaults_out_are_equal(models, tmp_path, merge):
    from transformers import LlamaConfig

    config = json.loads((models / "m1" / "config.json").read_text())
    other = tmp_path / "other"
    shutil.copytree(models / "m2", other)
    (other / "config.json").write_text(json.dumps(LlamaConfig(**config).to_dict()))
    code, err, _ = merge(models / "m1", other)
    assert code == 0
    assert "configuration" not in err


@pytest.mark.parametrize(
    "name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight", "model.embed_tokens.weight"]
)
def test_a_base_that_lacks_a_tensor_is_refused_by_name(name, tmp_path, merge):
    base = edited(TINY, tmp_path / "base", **{name: None})
    err = input_error(merge, ADAPTERS["a"], "--base", base)
    assert f"lack tensors that a model of type 'llama' has: {name}" in err


def test_a_shard_index_left_next_to_a_single_file_is_ignored(models, tmp_path, merge):
    base = tmp_path / "base"
    shutil.copytree(models / "base", base)
    old = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00009.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(old))
    code, _, out = merge(models / "m1", "--base", base, "--method", "task_arithmetic")
    assert code == 0
    compare(load_file(out / "model.safetensors"), load_file(models / "m1" / "model.safetensors"), 1e-6)
    assert not (out / "model.safetensors.index.json").exists()


def test_a_weight_that_normalizing_undoes_is_warned_of(merge):
    code, err, _ = merge(ADAPTERS["a"], "--base", TINY, "--weight", "0.5")
    assert code == 0
    assert "the weight 0.5 has no effect: linear normalizes" in err
    assert "--no-normalize" in err


@pytest.mark.parametrize("arguments", [("--weight", "1"), ("--weight", "0.5", "--no-normalize")])
def test_a_weight_that_has_its_effect_is_not(arguments, merge):
    code, err, _ = merge(ADAPTERS["a"], "--base", TINY, *arguments)
    assert code == 0
    assert "warning" not in err


def test_tensors_of_one_fault_are_one_problem(tmp_path, merge):
    broken = tmp_path / "broken"
    shutil.copytree(ADAPTERS["a"], broken)
    tensors = load_file(broken / "adapter_model.safetensors")
    integers = {name: (value * 8).to(torch.int8) for name, value in tensors.items()}
    save_file(integers, broken / "adapter_model.safetensors")
    err = input_error(merge, broken, "--base", TINY)
    assert err.count("expected tensors of floats") == 1


def test_another_architecture(models, tmp_path, merge):
    other = edited(models / "m1", tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "mistral"}))
    assert "type 'mistral'" in input_error(merge, models / "m2", other)


def test_a_full_disk_leaves_nothing(models, merge, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensors_module.os, "pwrite", full)
    code, err, out = merge(models / "m1", models / "m2")
    assert code == 4
    assert "the disk is full" in err
    assert not out.exists()
    assert not out.with_name("out.partial").exists()


def test_interruption_leaves_nothing(models, merge, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("priorkit.merging.execute._write_tensor", stop)
    code, _, out = merge(models / "m1", models / "m2")
    assert code == 130
    assert not out.exists()
    assert not out.with_name("out.partial").exists()


def test_neither_torch_nor_transformers_is_imported():
    import subprocess
    import sys

    program = (
        "import sys; from priorkit.cli.main import run; "
        f"code = run(['merge-adapters', {str(ADAPTERS['a'])!r}, '--base', {str(TINY)!r}, "
        "'--device', 'cpu', '--out', sys.argv[1]]); "
        "sys.exit(code or sum(name in sys.modules for name in ('torch', 'transformers', 'peft')))"
    )
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", program, folder + "/out"], capture_output=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
