"""The trained weights with all that changes them: optimiser, gradient scaler and moving average."""

import math
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig

from helpers.diffusion import ModelError, base_models, families
from helpers.finetune_diffusion import TrainingError, checkpoints
from helpers.runner.parameters import Record


class Denoiser(torch.nn.Module):
    """The trained parts as one module: the family's network and, if captions come as token ids, the
    text encoder.
    """

    def __init__(self, pipeline, with_text: bool):
        super().__init__()
        self.family = families.of(pipeline)
        self.add_module(self.family.network, families.network(pipeline))
        self.text_encoder = pipeline.text_encoder if with_text else None

    def forward(self, noisy, timesteps, condition):
        """The prediction for noisy latents; `condition` has its parts by name."""
        if self.text_encoder is not None:
            condition = {"text": self.text_encoder(condition["ids"])[0]}
        network = getattr(self, self.family.network)
        return self.family.predict(network, noisy, timesteps, **condition)


class Trained:
    """The weights that are trained, with optimiser, gradient scaler and averages. They stay in fp32
    whatever the arithmetic.
    """

    def __init__(self, pipeline, recipe: Record, accelerator):
        device = accelerator.device
        self.recipe, self.layout = recipe, base_models.layout(device)
        # Scales gradients that float16 could not hold; with other arithmetic it does nothing.
        self.halved = base_models.arithmetic(recipe.precision) == torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.halved)
        prepare(pipeline, recipe, device)
        model = Denoiser(pipeline, recipe.method == "full_text")
        self.names = [name for name, value in model.named_parameters() if value.requires_grad]
        self.model = model.to(device, memory_format=self.layout).train()
        self.parameters = [value for value in model.parameters() if value.requires_grad]
        self.optimizer = optimizer_of(self.parameters, recipe)
        self.ema = [parameter.detach().clone() for parameter in self.parameters]
        if recipe.average_on == "cpu":
            self.ema = [average.cpu() for average in self.ema]
        self.averages = {"ema": self.ema}
        if recipe.patience:
            self.averages["best"] = [average.clone().cpu() for average in self.ema]
        self.denoise = accelerator.prepare(torch.compile(model) if recipe.compile else model)

    def restore(self, folder: Path) -> dict:
        """Continue from the newest checkpoint; returns its state, {} without a checkpoint."""
        state = checkpoints.restore(
            folder, self.names, self.parameters, self.optimizer, self.averages
        )
        self.scaler.load_state_dict(state.pop("scaler", None) or self.scaler.state_dict())
        return state

    def save(self, folder: Path, step: int, state: dict) -> None:
        """Write a checkpoint with this state. Raises CheckpointError."""
        groups = checkpoints.tensors(self.names, self.parameters, self.optimizer, self.averages)
        state = {**state, "scaler": self.scaler.state_dict()}
        checkpoints.save(folder, step, groups, state, self.recipe.keep_checkpoints)

    def update(self, step: int, learning_rate: float) -> torch.Tensor:
        """Apply the gradients of a step; returns their norm, 0 for a step that is skipped."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        largest = self.recipe.clip if self.recipe.clip > 0 else math.inf
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, largest)
        # If a gradient is too large for float16, the scaler skips the step.
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        # The average starts with a low decay; otherwise it would keep too much of the first
        # weights.
        torch._foreach_lerp_(
            self.ema,
            [p.detach().to(self.ema[0].device) for p in self.parameters],
            1 - min(self.recipe.ema, (1 + step) / (10 + step)),
        )
        return norm.nan_to_num(0.0, 0.0, 0.0) if self.halved else norm

    @contextmanager
    def averaged(self):
        """A context in which the averaged weights replace the trained ones, without a copy of
        all.
        """
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for parameter, mean in zip(self.parameters, self.ema):
            kept = parameter.detach().clone()
            parameter.data.copy_(mean)
            mean.copy_(kept)

    def keep_best(self) -> None:
        """Remember the averaged weights as the best so far."""
        if self.recipe.patience:
            torch._foreach_copy_(self.averages["best"], self.ema)

    def end(self, held_out: bool) -> None:
        """Put the final weights into the model: the best by `held_out` loss, else the average."""
        final = self.averages["best" if self.recipe.patience and held_out else "ema"]
        torch._foreach_copy_([parameter.data for parameter in self.parameters], final)
        self.model.eval()


def prepare(pipeline, recipe: Record, device) -> None:
    """Freeze the parts that the method does not train, and add LoRA adapters for method lora.
    Raises ModelError for a method or a precision that the family does not have.
    """
    family, network = families.of(pipeline), families.network(pipeline)
    if recipe.method == "full_text" and not family.trains_text:
        raise ModelError(
            f"The text encoder of {family.name} is not trained here: set method to full or lora."
        )
    if not family.fp16 and base_models.arithmetic(recipe.precision) == torch.float16:
        raise ModelError(
            f"{family.name} gives values that are not finite in float16: set precision to bf16 on a"
            " GPU that supports it, or to fp32."
        )
    for part in base_models.networks(pipeline).values():
        part.requires_grad_(False)
    if recipe.method == "lora":
        network.add_adapter(
            LoraConfig(
                r=recipe.lora_rank,
                lora_alpha=recipe.lora_rank,
                target_modules=list(recipe.lora_targets),
            )
        )
        if device.type == "cuda":
            frozen = base_models.arithmetic(recipe.precision)
            for parameter in network.parameters():
                parameter.data = parameter.data.to(
                    torch.float32 if parameter.requires_grad else frozen
                )
    else:
        network.requires_grad_(True)
        if recipe.method == "full_text":
            pipeline.text_encoder.requires_grad_(True)
    if recipe.gradient_checkpointing:
        network.enable_gradient_checkpointing()
        if recipe.method == "full_text":
            pipeline.text_encoder.gradient_checkpointing_enable()


def optimizer_of(parameters: list, recipe: Record) -> torch.optim.Optimizer:
    """AdamW, or its 8-bit version. Raises TrainingError where that is not installed."""
    values = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **values)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise TrainingError(
            "optimizer adamw8bit needs the package bitsandbytes: pip install -e '.[adamw8bit]'."
        ) from None
    return AdamW8bit(parameters, **values)
