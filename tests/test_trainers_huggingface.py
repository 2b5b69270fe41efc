"""Trained by the Trainer of transformers, groups end at exactly zero and the file is small and equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from training import language  # noqa: E402

from ozgraph.errors import UsageError  # noqa: E402
from ozgraph.groups import Groups  # noqa: E402
from ozgraph.runtime import HESSO, HESSOCRIC, Target  # noqa: E402
from ozgraph.runtime.trainers.huggingface import PruningCallback  # noqa: E402

pytestmark = pytest.mark.slow
STEPS, SAVED = 24, 12


@pytest.fixture(scope="module")
def groups() -> Groups:
    return language.groups_of(language.llama())


def pruning(groups: Groups, **more: Any) -> PruningCallback:
    return PruningCallback(
        groups, target=Target(groups=0.5), start=4, end=20, periods=2, include=language.INCLUDE, **more
    )


def trainer(callback: PruningCallback, folder: Path, seed: int = 0, **more: Any) -> Any:
    arguments = language.transformers.TrainingArguments(
        output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=4, learning_rate=5e-3, use_cpu=True,
        gradient_accumulation_steps=2, save_steps=SAVED, logging_steps=8, report_to=[], disable_tqdm=True, **more,
    )  # fmt: skip
    return language.transformers.Trainer(
        language.llama(seed), arguments, train_dataset=language.sequences(256), callbacks=[callback]
    )


def test_a_trainer_ends_in_exact_zeros_and_a_verified_file_and_resumes(groups: Groups, tmp_path: Path) -> None:
    # The groups are those of another instance: they bind to the one that is trained.
    callback = pruning(groups, method=HESSO)
    first = trainer(callback, tmp_path / "run", seed=1)
    first.train()
    assert callback.pruner.step == STEPS
    language.exactly_zero(callback.pruner, first.model)
    assert first.state.log_history[-2]["groups_zero"] == callback.pruner.gone.sum()

    again = pruning(groups)
    second = trainer(again, tmp_path / "run", seed=1)
    second.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{SAVED}"))
    assert (again.pruner.gone == callback.pruner.gone).all() and again.pruner.step == STEPS
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name

    language.verified(callback.pruner, first.model, tmp_path / "small.onnx")


def test_a_method_that_probes_hears_the_losses(groups: Groups, tmp_path: Path) -> None:
    callback = PruningCallback(
        groups, HESSOCRIC, target=Target(groups=0.4), include=["*.gate_proj.weight"], start=2, cycle_steps=3, cycles=2,
        leave_steps=4, probes=(0.5,),
    )  # fmt: skip
    made = trainer(callback, tmp_path / "run")
    made.train()
    assert len(callback.pruner._losses) == 3  # the reference, and one probe of each family
    language.exactly_zero(callback.pruner, made.model)


def test_what_would_undo_the_zeros_is_refused(groups: Groups, tmp_path: Path) -> None:
    made = trainer(pruning(groups), tmp_path)
    made.args.load_best_model_at_end = True
    with pytest.raises(UsageError, match="load_best_model_at_end"):
        made.train()


def test_a_checkpoint_without_a_pruner_is_named(groups: Groups, tmp_path: Path) -> None:
    made = trainer(pruning(groups), tmp_path / "run")
    made.train()
    (tmp_path / "run" / f"checkpoint-{SAVED}" / "pruner.pt").unlink()
    with pytest.raises(UsageError, match=r"pruner\.pt: cannot be read"):
        trainer(pruning(groups), tmp_path / "run").train(str(tmp_path / "run" / f"checkpoint-{SAVED}"))


def test_there_is_no_pruner_before_training(groups: Groups) -> None:
    with pytest.raises(UsageError, match="before training begins"):
        pruning(groups).pruner  # noqa: B018
