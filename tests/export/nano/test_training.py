"""Training: it resumes to the same weights, learns, and keeps its weights in a small file."""

import time
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch

from phi3v.errors import OptionError
from phi3v.export.nano.batches import Window
from phi3v.export.nano.checkpoint import write_aids
from phi3v.export.nano.optimiser import Rates
from phi3v.export.nano.samples import Sample
from phi3v.export.nano.stages import STAGES, Stage
from phi3v.export.nano.strips import line_strip
from phi3v.export.nano.train import Trainer, main, schedule, train

pytestmark = [pytest.mark.torch, pytest.mark.slow]


def few_lines(shape: Random, random: Random, held_out: bool) -> tuple[list[Sample], Window]:
    return [line_strip(random, 3, "Read it.", held_out) for _ in range(3)], Window(3, 2, True, False)


SMALL = Stage("small", True, 0.0, few_lines, probes={"line": few_lines})


def trainer() -> Trainer:
    return Trainer(SMALL, Rates(), width=64)


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = trainer()
    for _ in range(4):
        whole.train_step(0.5)
    stopped = trainer()
    for _ in range(2):
        stopped.train_step(0.5)
    stopped.save(tmp_path / "state.pt")
    resumed = trainer()
    resumed.resume(tmp_path / "state.pt")
    for _ in range(2):
        resumed.train_step(0.5)
    assert (resumed.step, resumed.seen) == (4, 12)
    for kept in ("learner", "mean"):
        wanted, found = (getattr(run, kept).state_dict() for run in (whole, resumed))
        assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_another_stages_state_is_no_state_to_go_on_from(tmp_path: Path) -> None:
    trainer().save(tmp_path / "state.pt")
    with pytest.raises(OptionError, match="--init"):
        Trainer(replace(SMALL, name="other"), Rates(), width=64).resume(tmp_path / "state.pt")


def test_aids_are_kept_apart_and_in_half_precision(tmp_path: Path) -> None:
    first, second = trainer(), trainer()
    first.train_step(1.0)
    first.save(tmp_path / "state.pt")
    write_aids(tmp_path / "state.pt", tmp_path / "aids.safetensors")
    untouched = {name: tensor.clone() for name, tensor in second.learner.state_dict().items()}
    second.load(tmp_path / "aids.safetensors")
    for name, tensor in first.mean.state_dict().items():
        wanted = untouched[name] if name.startswith("nano.") else tensor.half().float()
        assert torch.equal(wanted, second.learner.state_dict()[name]), name
    assert second.step == 0


def test_a_few_steps_lower_the_loss() -> None:
    run = trainer()
    losses = [float(run.train_step(1.0).answer.detach()) for _ in range(20)]
    assert sum(losses[-3:]) / 3 < 0.85 * losses[0]


def test_learning_rates_rise_and_fall() -> None:
    shares = [schedule(step, step / 1000) for step in range(1000)]
    assert shares[0] < shares[49] == max(shares) == 1
    assert shares[-1] < 0.05


def test_a_run_by_the_clock_is_annealed_and_ends_in_time(tmp_path: Path) -> None:
    run = trainer()
    began = time.monotonic()
    train(run, 100_000, tmp_path / "state.pt", 100_000, minutes=0.02)
    assert time.monotonic() - began < 30
    assert 0 < run.step == torch.load(tmp_path / "state.pt", weights_only=True)["step"]


def test_the_tower_stays_as_it_is_in_steps_that_do_not_move_it() -> None:
    run = Trainer(replace(SMALL, moves_tower=0.0), Rates(), width=64)
    before = {name: tensor.clone() for name, tensor in run.learner.state_dict().items()}
    run.train_step(1.0)
    moved = {name for name, tensor in run.learner.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved
    assert not any("img_processor" in name or name.startswith("reader.") for name in moved)


def test_the_command_line_trains_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "state.pt"
    for steps in ("1", "2"):
        main(["tower", "--out", str(out), "--steps", steps, "--every", "10"], standalone_mode=False)
    assert out.is_file()
    assert torch.load(out, weights_only=True)["step"] == 2


@pytest.mark.parametrize("stage", [stage for stage in STAGES.values() if stage.probes], ids=lambda stage: stage.name)
def test_every_probe_counts_all_its_answers(stage: Stage) -> None:
    run = Trainer(stage, Rates(), width=64)
    for draw in stage.probes.values():
        samples, _ = draw(Random(0), Random(0), False)
        found = run.probe(draw, False, batches=1)
        answers = {job: tokens for job, (_, asked, _, tokens) in found.items() if job != "patches" and asked}
        assert answers.keys() == {turn.job for sample in samples for turn in sample.turns}
        assert sum(found[job][1] for job in answers) == sum(len(sample.turns) for sample in samples)
        assert all(tokens >= found[job][1] for job, tokens in answers.items())


def test_bare_verdicts_train_to_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Trainer(STAGES["verdicts"], Rates(), width=64)
    reader = {name: tensor.clone() for name, tensor in run.learner.state_dict().items() if "reader" in name}
    train(run, 2, tmp_path / "state.pt", 1)
    assert "verdict" in capsys.readouterr().out
    assert all(torch.equal(tensor, run.learner.state_dict()[name]) for name, tensor in reader.items())


@pytest.mark.parametrize(("steps", "minutes"), [(0, 1.0), (1, 0.0)])
def test_a_run_of_no_length_ends_at_once(steps: int, minutes: float, tmp_path: Path) -> None:
    run = trainer()
    train(run, steps, tmp_path / "state.pt", 1, minutes)
    assert run.step == 0
