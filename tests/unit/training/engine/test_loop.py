from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from priorkit.core.errors import GuardError, InputError, Interrupted, UsageError
from priorkit.core.options.specs import build
from priorkit.core.process import runtime
from priorkit.data.shuffling import sample_ids
from priorkit.training.engine import checkpoint
from priorkit.training.engine.guard import describe_spike
from priorkit.training.engine.loop import train
from priorkit.training.engine.metrics_log import MetricsLog
from priorkit.training.engine.micro_batches import step_positions
from priorkit.training.engine.optimizer import Muon, Optimizer, build_optimizer
from priorkit.training.engine.settings import TrainingSettings
from priorkit.training.engine.training_run import TrainingSummary
from priorkit.training.objectives.base import Loss, to_device


class Regression:
    """Least squares on points whose weight differs from sample to sample."""

    unit = "points"

    def __init__(self, seed: int = 0, dropout: float = 0.0, poison: int = -1, stop_at: int = -1) -> None:
        torch.manual_seed(seed)
        self.module: nn.Module = nn.Sequential(
            nn.Linear(3, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1)
        )
        generator = torch.Generator().manual_seed(1)
        self.points = torch.randn(20, 3, generator=generator)
        self.targets = self.points.sum(dim=1, keepdim=True)
        self.poison, self.stop_at = poison, stop_at
        self.seen: list[int] = []

    def __len__(self) -> int:
        return len(self.points)

    def sample(self, index: int, position: int) -> tuple[int, int]:
        self.seen.append(index)
        if position == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return index, 1 + index % 3

    def collate(self, samples: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        return {
            "index": torch.tensor([i for i, _ in samples]),
            "weight": torch.tensor([w for _, w in samples]),
        }

    def weight(self, batch: dict[str, Tensor]) -> int:
        return int(batch["weight"].sum())

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        error = (self.module(self.points[batch["index"]]) - self.targets[batch["index"]]).square()[:, 0]
        if self.poison in batch["index"].tolist():
            error = error * math.nan
        return Loss((error * batch["weight"]).sum(), {"count": batch["weight"].sum()})

    def learning_rate_scale(self, name: str) -> float:
        return 2.0 if name.startswith("3") else 1.0


def settings(**values: Any) -> TrainingSettings:
    defaults = {"steps": 6, "batch_size": 8, "learning_rate": 0.01, "precision": "fp32", "device": "cpu"}
    return build(TrainingSettings, {**defaults, **values})


def learn(folder: Path, objective: Regression, **values: Any) -> TrainingSummary:
    folder.mkdir(parents=True, exist_ok=True)
    chosen = settings(**values)
    started = runtime.start(chosen.seed, "cpu", "fp32")
    return train(objective, chosen, started, folder, folder / "state", chosen.total_steps(20, 1), "test")


def weights(objective: Regression) -> bytes:
    return b"".join(value.numpy().tobytes() for value in objective.module.state_dict().values())


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_loss_and_gradient_do_not_depend_on_the_micro_batch(tmp_path: Path) -> None:
    """The first step's loss is the weighted mean, and its gradient norm that of the weighted mean."""
    reference = Regression()
    ids = torch.from_numpy(sample_ids(42, 0, 8, 20))
    weight = 1 + ids % 3
    error = (reference.module(reference.points[ids]) - reference.targets[ids]).square()[:, 0]
    loss = (error * weight).sum() / weight.sum()
    loss.backward()
    norm = torch.cat([p.grad.flatten() for p in reference.module.parameters() if p.grad is not None]).norm()
    for size in (0, 1, 3, 8):
        learn(tmp_path / str(size), Regression(), steps=1, micro_batch_size=size)
        (row,) = rows(tmp_path / str(size))
        assert row["loss"] == pytest.approx(loss.item(), rel=1e-6)
        assert row["gradient_norm"] == pytest.approx(float(norm), rel=1e-6)
        assert row["weight"] == row["points"] == int(weight.sum())
        assert row["count"] == pytest.approx(1)


def test_the_optimizer_is_torchs_adamw_with_decay_only_of_matrices(tmp_path: Path) -> None:
    ours, reference = Regression(), Regression()
    learn(tmp_path, ours, steps=3, weight_decay=0.3, schedule="constant", clip=0.0)
    parameters = dict(reference.module.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p], "lr": 0.01 * reference.learning_rate_scale(n), "weight_decay": 0.3 * (p.ndim > 1)}
            for n, p in parameters.items()
        ],
        betas=(0.9, 0.95),
    )
    for step in range(3):
        positions = step_positions(step, 8)
        ids = torch.from_numpy(sample_ids(42, positions.start, positions.stop, 20))
        weight = 1 + ids % 3
        error = (reference.module(reference.points[ids]) - reference.targets[ids]).square()[:, 0]
        optimizer.zero_grad()
        ((error * weight).sum() / weight.sum()).backward()
        optimizer.step()
    for name, value in ours.module.named_parameters():
        torch.testing.assert_close(value, parameters[name], rtol=1e-5, atol=1e-7)


def test_frozen_parameters_are_neither_trained_nor_saved(tmp_path: Path) -> None:
    objective = Regression()
    first = objective.module.get_submodule("0")
    first.requires_grad_(False)
    before = first.weight.clone()
    learn(tmp_path, objective, checkpoint_every=3)
    assert torch.equal(first.weight, before)
    assert len(build_optimizer(objective, settings()).param_groups) == 2
    from safetensors.torch import load_file

    assert set(load_file(tmp_path / "state" / "step-00000006" / "trained.safetensors")) == {
        "3.weight",
        "3.bias",
    }


def test_nothing_to_train_and_no_samples_are_refused(tmp_path: Path) -> None:
    objective = Regression()
    objective.points = objective.points[:0]
    with pytest.raises(InputError, match="no samples"):
        learn(tmp_path, objective)
    objective = Regression()
    objective.module.requires_grad_(False)
    with pytest.raises(UsageError, match="no parameters are trainable"):
        learn(tmp_path, objective)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_stopped_run_resumes_to_the_same_bytes(tmp_path: Path, dropout: float) -> None:
    whole = Regression(dropout=dropout)
    summary = learn(tmp_path / "whole", whole)
    with pytest.raises(Interrupted, match="interrupted at step 3 of 6"):
        learn(tmp_path / "cut", Regression(dropout=dropout, stop_at=2 * 8 + 3))
    assert not (tmp_path / "cut" / "metrics.jsonl").exists()
    resumed = Regression(seed=5, dropout=dropout)
    again = learn(tmp_path / "cut", resumed)
    assert len(resumed.seen) == 3 * 8
    assert weights(resumed) == weights(whole)
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (
        tmp_path / "whole" / "metrics.jsonl"
    ).read_bytes()
    assert (again.loss, again.weight) == (summary.loss, summary.weight)


def test_a_damaged_state_is_passed_over_for_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = Regression()
    learn(tmp_path / "whole", whole)
    with pytest.raises(Interrupted):
        learn(tmp_path / "cut", Regression(stop_at=4 * 8), checkpoint_every=2, keep=3)
    state = tmp_path / "cut" / "state"
    assert sorted(path.name for path in state.glob("step-*")) == [
        "step-00000002",
        "step-00000004",
        "step-00000005",
    ]
    newest = state / "step-00000005" / "optimizer.safetensors"
    newest.write_bytes(newest.read_bytes()[:50])
    (state / "step-00000004" / "progress.json").write_text("{")
    (state / "step-00000009.tmp").mkdir()
    resumed = Regression()
    learn(tmp_path / "cut", resumed)
    assert caplog.text.count("is skipped") == 2
    assert len(resumed.seen) == 4 * 8
    assert weights(resumed) == weights(whole)
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (
        tmp_path / "whole" / "metrics.jsonl"
    ).read_bytes()


@pytest.mark.parametrize("name", ["trained.safetensors", "optimizer.safetensors", "progress.json"])
def test_a_flipped_bit_in_a_state_is_found(name: str, tmp_path: Path) -> None:
    whole = Regression()
    learn(tmp_path / "whole", whole)
    with pytest.raises(Interrupted):
        learn(tmp_path / "cut", Regression(stop_at=4 * 8), checkpoint_every=4, keep=2)
    rng = random.Random(0)
    for _ in range(12):
        run = shutil.copytree(tmp_path / "cut", tmp_path / "again", dirs_exist_ok=True)
        newest = run / "state" / "step-00000005"
        content = bytearray((newest / name).read_bytes())
        position = rng.randrange(len(content))
        content[position] ^= 1 << rng.randrange(8)
        (newest / name).write_bytes(content)
        resumed = Regression()
        learn(run, resumed)
        assert len(resumed.seen) == 2 * 8  # from step 4
        assert weights(resumed) == weights(whole)
        shutil.rmtree(run)


def test_a_number_written_otherwise_is_found(tmp_path: Path) -> None:
    """No other value, but other bytes than were written."""
    with pytest.raises(Interrupted):
        learn(tmp_path, Regression(stop_at=4 * 8), checkpoint_every=4)
    (newest,) = (tmp_path / "state").glob("step-*")
    record = json.loads((newest / "progress.json").read_text())
    text = (newest / "progress.json").read_text()
    (newest / "progress.json").write_text(text.replace(repr(record["seconds"]), f"{record['seconds']!r}0"))
    with pytest.raises(InputError, match="its files changed"):
        learn(tmp_path, Regression())


def test_a_run_whose_states_are_all_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        learn(tmp_path, Regression(stop_at=4 * 8), checkpoint_every=4)
    (newest,) = (tmp_path / "state").glob("step-*")
    file = newest / "trained.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"is damaged \(step-00000005: its files changed") as caught:
        learn(tmp_path, Regression())
    assert f"remove {tmp_path}" in str(caught.value)
    assert newest.is_dir()


def test_a_state_of_an_earlier_version_without_a_digest_is_resumed(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        learn(tmp_path, Regression(stop_at=4 * 8))
    (newest,) = (tmp_path / "state").glob("step-*")
    record = json.loads((newest / "progress.json").read_text())
    del record["sha256"]
    (newest / "progress.json").write_text(json.dumps(record))
    resumed = Regression()
    learn(tmp_path, resumed)
    assert len(resumed.seen) == 8


def test_a_checkpoint_reads_back_bitwise(tmp_path: Path) -> None:
    objective = Regression()
    optimizer = build_optimizer(objective, settings())
    objective.loss(objective.collate([(0, 1)])).total.backward()
    optimizer.step()
    mark = checkpoint.TrainingProgress(7, 11, 13, 1.5)
    with checkpoint.CheckpointWriter(tmp_path, keep=1) as saver:
        saver.save(objective.module, optimizer, mark)
    other = Regression(seed=9)
    fresh = build_optimizer(other, settings())
    assert checkpoint.load_latest(tmp_path, other.module, fresh) == mark
    assert weights(other) == weights(objective)
    for one, two in zip(objective.module.parameters(), other.module.parameters(), strict=True):
        kept, found = optimizer.state_of(one), fresh.state_of(two)
        assert set(kept) == set(found) == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(value, found[key]) for key, value in kept.items())
    assert checkpoint.load_latest(tmp_path / "none", other.module, fresh) is None
    stranger = nn.Linear(2, 2)
    untrained = Optimizer(torch.optim.AdamW(stranger.parameters()))
    assert checkpoint.load_latest(tmp_path, stranger, untrained) is None


def test_a_non_finite_loss_stops_with_step_samples_and_tensor(tmp_path: Path) -> None:
    ids = sample_ids(42, 0, 20, 20).tolist()
    before = Regression()
    with pytest.raises(GuardError) as caught:
        learn(tmp_path, Regression(poison=ids[18]), checkpoint_every=10)
    text = str(caught.value)
    assert "step 3: loss nan; the first non-finite tensor is the gradient of 3.bias" in text
    assert f"samples {ids[16]}, {ids[17]}" in text
    assert "--learning-rate" in text
    saved = checkpoint.load_latest(tmp_path / "state", before.module, build_optimizer(before, settings()))
    assert saved is not None
    assert saved.step == 2


def test_the_first_output_that_is_not_finite_is_named(tmp_path: Path) -> None:
    class Overflowing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / 0 if self.training else x

    objective = Regression()
    objective.module = nn.Sequential(
        nn.Linear(3, 8), nn.Sequential(nn.Tanh(), Overflowing()), nn.Linear(8, 1)
    )
    with pytest.raises(GuardError, match=r"first non-finite tensor is the output of 1\.1 \(Overflowing\)"):
        learn(tmp_path, objective)
    broken = Regression()
    with torch.no_grad():
        broken.module[3].weight[0, 2] = math.inf
    with pytest.raises(GuardError, match=r"first non-finite tensor is the weight 3\.weight"):
        learn(tmp_path, broken)


def test_a_guard_keeps_the_state_before_its_step(tmp_path: Path) -> None:
    """However far the last save is; resuming from it ends at the same step."""
    ids = sample_ids(42, 0, 40, 20).tolist()
    poison = next(index for index in ids[16:] if index not in ids[:16])
    for _ in range(2):
        with pytest.raises(GuardError, match=r"(?s)step 3: .*the state before this step is kept"):
            learn(tmp_path, Regression(poison=poison), checkpoint_every=100)
        assert [path.name for path in (tmp_path / "state").glob("step-*")] == ["step-00000002"]


def test_a_kill_while_the_metrics_are_truncated_loses_no_line(tmp_path: Path) -> None:
    """They are truncated in place, not rewritten."""
    path = tmp_path / "metrics.jsonl"
    line = json.dumps({"step": 1, "loss": 0.5, "weight": 1}) + "\n"
    path.write_text(line + line + "half")
    inode = path.stat().st_ino
    MetricsLog(path, len(line))
    assert path.read_text() == line
    assert path.stat().st_ino == inode


def test_a_loss_spike_stops_the_run(tmp_path: Path) -> None:
    """The targets jump at step 53; without a limit the run continues."""

    class Jumping(Regression):
        def sample(self, index: int, position: int) -> tuple[int, int]:
            return (index + (100 if position >= 8 * 53 else 0), 1)

        def loss(self, batch: dict[str, Tensor]) -> Loss:
            far = batch["index"] >= 100
            points, index = self.points[batch["index"] % 100], batch["index"] % 100
            error = (self.module(points) - self.targets[index] - 50.0 * far[:, None]).square()[:, 0]
            return Loss((error * batch["weight"]).sum())

    with pytest.raises(
        GuardError,
        match=r"step 54: the loss [0-9.e+]+ is over 10 times the largest of .*(?s:.*)--spike-limit 0",
    ):
        learn(tmp_path / "a", Jumping(), steps=60, spike_limit=10)
    learn(tmp_path / "b", Jumping(), steps=60)
    assert len(rows(tmp_path / "b")) == 60
    learn(tmp_path / "a", Jumping(), steps=60)
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


@pytest.mark.parametrize(
    ("loss", "recent", "limit", "spikes"),
    [
        (5.9, [1.1] * 49 + [3.3], 3, False),  # mixed text in small batches, a healthy run
        (10.0, [1.1] * 49 + [3.3], 3, True),
        (7.4, [2.5] * 50, 3, False),
        (7.6, [2.5] * 50, 3, True),
        (7.6, [2.5] * 48 + [7.0, 7.4], 3, False),  # it lasts for three steps of five, but is not three times
        (8.0, [2.5] * 48 + [7.8, 7.9], 3, True),
        (7.6, [2.5] * 50, 0, False),
        (7.6, [], 3, False),
        (math.inf, [2.5] * 50, 3, True),
    ],
)
def test_a_loss_spike(loss: float, recent: list[float], limit: float, spikes: bool) -> None:
    assert bool(describe_spike(loss, recent, limit)) is spikes


class TwoLayers(Regression):
    """An embedding, a hidden matrix, a vector."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.module = nn.ModuleDict({"table": nn.Embedding(20, 4), "hidden": nn.Linear(4, 4)})

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        values = self.module["hidden"](self.module["table"](batch["index"]))
        return Loss((values.sum(-1) - self.targets[batch["index"], 0]).square().sum())

    def learning_rate_scale(self, name: str) -> float:
        return 1.0


def test_muon_takes_hidden_matrices_and_adamw_the_rest(tmp_path: Path) -> None:
    ours, reference = TwoLayers(), TwoLayers()
    learn(tmp_path, ours, steps=3, optimizer="muon", schedule="constant", clip=0.0)
    hidden, table = reference.module["hidden"], reference.module["table"]
    parts = [
        Muon([{"params": [hidden.weight], "weight_decay": 0.1}], 0.01),
        torch.optim.AdamW([table.weight], lr=0.01, weight_decay=0.1, betas=(0.9, 0.95)),
        torch.optim.AdamW([hidden.bias], lr=0.01, weight_decay=0.0, betas=(0.9, 0.95)),
    ]
    for step in range(3):
        positions = step_positions(step, 8)
        ids = torch.from_numpy(sample_ids(42, positions.start, positions.stop, 20))
        batch = reference.collate([(int(i), 1 + int(i) % 3) for i in ids])
        (reference.loss(batch).total / reference.weight(batch)).backward()
        for part in parts:
            part.step()
            part.zero_grad()
    for one, two in zip(ours.module.parameters(), reference.module.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_muon_resumes_bitwise(tmp_path: Path) -> None:
    whole, cut = TwoLayers(), TwoLayers()
    learn(tmp_path / "whole", whole, optimizer="muon")
    learn(tmp_path / "cut", TwoLayers(), steps=3, optimizer="muon", schedule="constant", checkpoint_every=1)
    learn(tmp_path / "again", cut, optimizer="muon", schedule="constant")
    resumed = TwoLayers()
    learn(tmp_path / "cut", resumed, optimizer="muon", schedule="constant")
    assert weights(resumed) == weights(cut)


def test_nothing_is_left_where_a_guard_stops_before_the_first_save(tmp_path: Path) -> None:
    first = int(sample_ids(42, 0, 1, 20)[0])
    with pytest.raises(GuardError):
        learn(tmp_path, Regression(poison=first))
    assert list(tmp_path.iterdir()) == []


def test_the_log_holds_no_times_and_is_the_same_again(tmp_path: Path) -> None:
    for name in "ab":
        learn(tmp_path / name, Regression())
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()
    keys = {"step", "points", "learning_rate", "gradient_norm", "loss", "count", "weight"}
    assert set(rows(tmp_path / "a")[0]) == keys


def test_workers_change_nothing(tmp_path: Path) -> None:
    unaided, helped = Regression(), Regression()
    learn(tmp_path / "a", unaided, micro_batch_size=3)
    learn(tmp_path / "b", helped, micro_batch_size=3, workers=2)
    assert weights(unaided) == weights(helped)


def test_the_summary_is_of_the_last_tenth(tmp_path: Path) -> None:
    summary = learn(tmp_path, Regression(), steps=20)
    last = rows(tmp_path)[-2:]
    expected = sum(row["loss"] * row["weight"] for row in last) / sum(row["weight"] for row in last)
    assert summary.loss == pytest.approx(expected)
    assert summary.loss < rows(tmp_path)[0]["loss"]


@pytest.mark.parametrize(
    ("schedule", "step", "share"),
    [
        ("constant", 60, 1.0),
        ("linear", 10, 1.0),
        ("linear", 55, 0.2 + 0.8 * 0.5),
        ("linear", 100, 0.2),
        ("cosine", 10, 1.0),
        ("cosine", 55, 0.2 + 0.8 * 0.5),
        ("cosine", 100, 0.2),
        ("cosine", 40, 0.2 + 0.8 * (1 + math.cos(math.pi / 3)) / 2),
        ("cosine", 0, 0.1),
        ("linear", 4, 0.5),
        ("constant", 9, 1.0),
        ("wsd", 10, 1.0),
        ("wsd", 80, 1.0),
        ("wsd", 90, 0.2 + 0.8 * 0.5),
        ("wsd", 100, 0.2),
    ],
)
def test_schedules_have_their_closed_forms(schedule: str, step: int, share: float) -> None:
    chosen = settings(
        schedule=schedule, warmup_steps=10, learning_rate=3.0, final_learning_rate=0.2, decay_share=0.2
    )
    assert chosen.learning_rate_at(step, 100) == pytest.approx(3.0 * share)


def test_the_length_is_given_once_in_steps_tokens_or_epochs() -> None:
    assert settings(steps=7).total_steps(100, 10) == 7
    assert settings(steps=None, tokens="1k").total_steps(100, 10) == math.ceil(1000 / 80)
    assert settings(steps=None, epochs=2.5).total_steps(100, 10) == math.ceil(250 / 8)
    assert settings(steps=None).total_steps(100, 10) == 13
    assert settings(steps=None, epochs=0.001).total_steps(100, 10) == 1
    with pytest.raises(UsageError, match="given more than once: steps, epochs"):
        settings(epochs=1)
    for name in ("steps", "tokens"):
        with pytest.raises(UsageError, match=f"--{name}: should be greater than or equal to 1"):
            settings(**{"steps": None, name: 0})


def test_all_tensors_of_a_batch_move() -> None:
    moved = to_device({"a": [torch.ones(1), "x"], "b": (torch.zeros(2),)}, torch.device("meta"))
    assert moved["a"][0].device.type == moved["b"][0].device.type == "meta"
    assert moved["a"][1] == "x"
