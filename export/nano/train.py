"""Train nano: `python -m phi3v.export.nano.train`. It stops and resumes at any step; a step's number is its seed."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import click
import torch
from torch import nn

from ...errors import OptionError
from .batches import Batch, pack
from .bf16 import autocast
from .checkpoint import read_weights, with_new_phrases
from .forward import Outcome, patch_loss, run
from .network import FEATURE_UNIT, Learner, nano_dims, normalise
from .optimiser import Optimiser, Rates
from .reading import Reading, draw_reading
from .stages import STAGES, Draw, Stage, draw_strips
from .vocabulary import vocabulary
from .workers import Workers

_TOWER = "img_processor"
_PROBE_SEED = 777
_MEAN_KEEPS = 0.99
"""Share of the mean weights that stays at a step: they are about the last 100 steps'."""

_READ_HELD_OUT = ("line", "book")
"""Probes that are taken on held-out words too."""


class Trainer:
    """The network, its training aids and its optimisers, at some step of a stage."""

    def __init__(self, stage: Stage, rates: Rates, device: str = "cpu", seed: int = 0, width: int = 192) -> None:
        torch.manual_seed(seed)
        self.stage, self.seed, self.device = stage, seed, torch.device(device)
        self.learner = Learner(nano_dims(width)).to(self.device)
        self.mean = deepcopy(self.learner).requires_grad_(False)
        named = list(self.learner.named_parameters())
        self.decoder_steps = Optimiser([(n, p) for n, p in named if not _of_tower(n)], rates)
        self.tower_steps = Optimiser([(n, p) for n, p in named if _of_tower(n)], Rates(rates.adam / 2, rates.muon / 2))
        self.workers = Workers()
        self.step = self.seen = 0

    def train_step(self, share: float) -> Outcome:
        """Draw a batch, and step at `share` of the full learning rates."""
        shape = Random(f"{self.seed} {self.stage.name} {self.step}")
        random = Random(f"{self.seed} {self.stage.name} {self.step} {self.workers.rank}")
        if shape.random() < self.stage.reading:
            outcome, seen = self._read(draw_reading(shape, random))
        else:
            samples, window = self.stage.draw(shape, random, False)
            tower = shape.random() < self.stage.moves_tower
            outcome = self._run(self.learner, pack(samples, vocabulary(), window), tower=tower, dense=tower)
            seen = len(samples)
        loss = outcome.answer + self.stage.guide * outcome.guide + 0.3 * outcome.cells + outcome.patches
        for optimiser in (self.decoder_steps, self.tower_steps):
            optimiser.clear()
        loss.backward()  # type: ignore[no-untyped-call]
        self.workers.average(parameter.grad for parameter in self.learner.parameters())
        if len(outcome.right):
            self.decoder_steps.step(share)
        if outcome.patches.requires_grad:
            self.tower_steps.step(share)
        self._follow()
        self.step += 1
        self.seen += seen * self.workers.count
        return outcome

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the running mean of the weights. It is what is probed and built: it reads better than any one step's."""
        pull = max(1 - _MEAN_KEEPS, 1 / (self.step + 1))
        for mean, parameter in zip(self.mean.parameters(), self.learner.parameters(), strict=True):
            mean.lerp_(parameter, pull)

    def _read(self, reading: Reading) -> tuple[Outcome, int]:
        labels = (part.to(self.device) for part in (reading.characters, reading.objects, reading.colours))
        with autocast(self.device):
            features = self.learner.nano.tower(normalise(reading.pixels.to(self.device)), reading.row, reading.column)
            patches, read = patch_loss(self.learner.reader, features, *labels)
        nothing = patches.detach() * 0
        return Outcome(nothing, nothing, nothing, patches, read[:0] > 0, read), len(reading.pixels)

    def _run(self, learner: Learner, batch: Batch, tower: bool, dense: bool) -> Outcome:
        with autocast(self.device):
            return run(
                learner,
                batch.to(self.device),
                tower=tower,
                guided=self.stage.guide > 0,
                dense=dense,
            )

    @torch.no_grad()
    def probe(self, draw: Draw, held_out: bool, batches: int = 2) -> dict[str, tuple[int, int, int, int]]:
        """Per job: answers right, answers, tokens right, tokens; and characters the tower read, under "patches"."""
        sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        for number in range(batches):
            shape, random = (Random(f"{_PROBE_SEED} {number} {name}") for name in ("shape", "content"))
            samples, window = draw(shape, random, held_out)
            batch = pack(samples, vocabulary(), window)
            outcome = self._run(self.mean, batch, tower=False, dense=True)
            jobs = [turn.job for sample in samples for turn in sample.turns]
            for job, right in zip(jobs, torch.split(outcome.right, batch.learned), strict=True):
                scores = (int(right.all()), 1, int(right.sum()), len(right))
                sums[job] = [a + b for a, b in zip(sums[job], scores, strict=True)]
            read, there = (int(value) for value in outcome.read)
            if there:
                sums["patches"] = [a + b for a, b in zip(sums["patches"], (read, there, read, there), strict=True)]
        return {job: (a, b, c, d) for job, (a, b, c, d) in sums.items()}

    def save(self, path: Path) -> None:
        """Everything a resumed run needs; replaces the file only when it is whole."""
        state = {
            "weights": self.learner.state_dict(),
            "mean": self.mean.state_dict(),
            "decoder_steps": self.decoder_steps.state_dict(),
            "tower_steps": self.tower_steps.state_dict(),
            "stage": self.stage.name,
            "step": self.step,
            "seen": self.seen,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Take the mean weights of a saved state, a model folder or a file of aids; what it does not hold stays."""
        weights = read_weights(path)
        for learner in (self.learner, self.mean):
            begun = learner.state_dict()
            learner.load_state_dict(begun | with_new_phrases(weights, begun))

    def resume(self, path: Path) -> None:
        """Go on where this stage was saved."""
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        if state["stage"] != self.stage.name:
            raise OptionError(f"{path} is of the stage {state['stage']}; start {self.stage.name} with --init {path}")
        self.learner.load_state_dict(state["weights"])
        self.mean.load_state_dict(state["mean"])
        self.decoder_steps.load_state_dict(state["decoder_steps"])
        self.tower_steps.load_state_dict(state["tower_steps"])
        self.step, self.seen = state["step"], state["seen"]

    @torch.no_grad()
    def centre(self) -> None:
        """Let an untrained projector start from features without their mean."""
        samples, window = draw_strips(Random(self.seed), Random(self.seed), False)
        batch = pack(samples, vocabulary(), window).to(self.device)
        features = self.learner.nano.tower(normalise(batch.pixels), row=2 * window.first).flatten(0, 2)
        first = self.learner.nano.model.vision_embed_tokens.img_projection[0]
        assert isinstance(first, nn.Linear)
        first.bias.copy_(-(first.weight @ features.mean(dim=0).repeat(4)) / FEATURE_UNIT)


def _of_tower(name: str) -> bool:
    return _TOWER in name or name.startswith("reader.")


def schedule(step: int, done: float) -> float:
    """Share of the full learning rate: a short rise, a plateau, and down to nothing over the last 60 %.

    `done` is the part of the run that is over, 0 to 1.
    """
    return min(1.0, (step + 1) / 50, max(0.02, (1 - done) / 0.6))


def train(trainer: Trainer, steps: int, out: Path, every: int, minutes: float = math.inf) -> None:
    """Step until `steps`, or for `minutes` by the clock, and lower the learning rate for whichever ends first.

    Prints a line of progress and saves every 25 steps, which is cheap; probes every `every`, which is not.
    """
    began, recent = time.monotonic(), []
    while (done := trainer.workers.agree(_done(trainer.step, steps, time.monotonic() - began, minutes))) < 1:
        outcome = trainer.train_step(schedule(trainer.step, done))
        values = (outcome.answer, outcome.guide, outcome.cells, outcome.patches, *outcome.read, outcome.right.sum())
        recent.append([len(outcome.right), *(value.item() for value in values)])
        if trainer.step % 25 == 0 and trainer.workers.rank == 0:
            _print_progress(trainer, recent[-25:], time.monotonic() - began)
            trainer.save(out)
        if trainer.step % every == 0 and trainer.workers.rank == 0:
            _print_probes(trainer)
    if trainer.workers.rank == 0:
        trainer.save(out)
        _print_probes(trainer)


def _done(step: int, steps: int, seconds: float, minutes: float) -> float:
    if step >= steps or seconds >= 60 * minutes:
        return 1.0
    return max(step / steps, seconds / 60 / minutes)


def _print_progress(trainer: Trainer, recent: Sequence[Sequence[float]], seconds: float) -> None:
    """Answers and guides are those of the steps that asked; reading is that of all that moved the tower."""
    asking = max(1, sum(row[0] > 0 for row in recent))
    tokens, answer, guide, cells, patches, read, there, right = map(sum, zip(*recent, strict=True))
    print(
        f"{trainer.stage.name} step {trainer.step} samples {trainer.seen} {seconds:.0f} s"
        f" loss {answer / asking:.3f} guide {guide / asking:.3f} cells {cells / asking:.3f}"
        f" tokens right {right / max(1, tokens):.3f}"
        f" patches {patches / len(recent):.4f} characters read {read / max(1, there):.3f}",
        flush=True,
    )


def _print_probes(trainer: Trainer) -> None:
    for name, draw in trainer.stage.probes.items():
        for held_out in (False, True) if name in _READ_HELD_OUT else (False,):
            found = trainer.probe(draw, held_out)
            parts = [f"{job} {a / b:.3f} of {b}, tokens {c / d:.4f}" for job, (a, b, c, d) in found.items()]
            print(f"  {name} {'held-out' if held_out else 'known'} words: {'; '.join(parts)}", flush=True)


_AT_LEAST_ONE = click.IntRange(min=1)


@click.command()
@click.argument("stage", type=click.Choice(list(STAGES)))
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Checkpoint to write, and to resume from if it is there.",
)
@click.option(
    "--init",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="State (.pt), model folder or aids (.safetensors) to begin with where there is no OUT; may be given again.",
)
@click.option("--steps", type=click.IntRange(min=0), default=10_000, show_default=True)
@click.option("--minutes", type=click.FloatRange(min=0), default=math.inf, help="End by the clock if that comes first.")
@click.option("--every", type=_AT_LEAST_ONE, default=250, show_default=True, help="Steps between probes.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--threads", type=_AT_LEAST_ONE, default=1, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--adam", type=click.FloatRange(min=0), default=Rates.adam, show_default=True, help="Learning rate of AdamW."
)
@click.option(
    "--muon", type=click.FloatRange(min=0), default=Rates.muon, show_default=True, help="Learning rate of Muon."
)
def main(
    stage: str,
    out: Path,
    init: tuple[Path, ...],
    steps: int,
    minutes: float,
    every: int,
    device: str,
    threads: int,
    seed: int,
    adam: float,
    muon: float,
) -> None:
    """Train a stage of nano, or go on with it where OUT stopped."""
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    trainer = Trainer(STAGES[stage], Rates(adam, muon), device, seed)
    if out.is_file():
        trainer.resume(out)
    else:
        for path in init:
            trainer.load(path)
        if not init:
            trainer.centre()
    train(trainer, steps, out, every, minutes)


if __name__ == "__main__":
    main()
