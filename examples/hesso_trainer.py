"""Fine-tune a tiny Llama with the Trainer of Hugging Face transformers, and write it as a small ONNX file.

    pip install "ozgraph[torch,onnxruntime,trainers]"
    python examples/hesso_trainer.py [--lora] [--steps 300] [--output small_llama.onnx]

The model is made from a config and first learns sentences as a whole; then it is fine-tuned on others, while HESSO
removes key heads, with the query heads that they serve, and channels of the MLPs. With ``--lora`` the weights are
frozen, adapters of peft train in their place, and LHSPG decides what goes. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import small_file
import torch
from hesso_transformer import ALPHABET, LENGTH, encoded, sentences
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, Trainer, TrainingArguments

import ozgraph
from ozgraph.runtime import HESSO, LHSPG, Target
from ozgraph.runtime.trainers.huggingface import PruningCallback


class Logits(nn.Module):
    """Tokens in, logits out: the signature of the file."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(input_ids=tokens).logits


def tiny_llama() -> PreTrainedModel:
    """Two layers; four key heads of two query heads each."""
    config = AutoConfig.for_model(
        "llama",
        vocab_size=len(ALPHABET),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=8,
        intermediate_size=160,
        max_position_embeddings=LENGTH,
        use_cache=False,
    )
    return AutoModelForCausalLM.from_config(config)


def stretches(count: int, seed: int) -> list[dict[str, Tensor]]:
    """Stretches of made sentences."""
    text = encoded(sentences(count, seed))
    return [{"input_ids": row, "labels": row} for row in text[: len(text) // LENGTH * LENGTH].view(-1, LENGTH)]


def train(
    model: nn.Module, seed: int, options: argparse.Namespace, rate: float, *callbacks: PruningCallback
) -> Trainer:
    """Train on sentences of a seed."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=options.steps,
            per_device_train_batch_size=16,
            learning_rate=rate,
            weight_decay=0.01,
            lr_scheduler_type="cosine",
            logging_steps=50,
            save_strategy="no",
            report_to=[],
        )
        trainer = Trainer(model, arguments, train_dataset=stretches(2000, seed), callbacks=list(callbacks))
        trainer.train()
    return trainer


def main() -> None:
    """Train, fine-tune, report, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lora", action="store_true", help="train adapters of peft, and prune with LHSPG")
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps of each part (default: %(default)s)")
    parser.add_argument("--target", type=float, default=0.4, help="share of the MACs to remove (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("small_llama.onnx"))
    options = parser.parse_args()

    torch.manual_seed(0)
    model = tiny_llama()
    train(model, 0, options, 3e-3)

    tokens = torch.stack([row["input_ids"] for row in stretches(20, 2)[:4]])
    groups = ozgraph.find_groups(model.cpu(), (), {"input_ids": tokens[:2]})
    print(groups)
    callback = PruningCallback(
        groups,
        LHSPG if options.lora else HESSO,
        target=Target(macs=options.target),
        end=0.5,
        periods=2,
        # Heads and MLP widths: the width that all layers share stays as it is.
        include=["*.k_proj.weight", "*.gate_proj.weight"],
        min_kept=0.25,
    )
    if options.lora:
        import peft

        linear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        model = peft.get_peft_model(model, peft.LoraConfig(r=8, target_modules=linear, task_type="CAUSAL_LM"))
    trainer = train(model, 1, options, 1e-2 if options.lora else 1e-3, callback)
    print(callback.pruner)
    trained = trainer.model.cpu()
    if options.lora:
        trained = trained.merge_and_unload()
    # Attention heads are followed through reshapes of known sizes, so the file takes batches of this one.
    small_file.write(Logits(trained), tokens[:2], options.output, tokens[2:], batch_varies=False)


if __name__ == "__main__":
    main()
