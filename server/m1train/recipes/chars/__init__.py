"""The `chars` recipe as data: its config and its declaration. What it trains is in chars.py, torch and all."""

from __future__ import annotations

from dataclasses import dataclass

from m1.columns import Need
from m1.errors import M1Error, Reason
from m1.metrics import LOSS, Metric
from m1.settings import Setting

from m1train.task.settings import Declaration, TaskConfig, Use, setting

NEEDS = (Need("text"),)
METRICS = (
    Metric("bits_per_char", "bits", "less", "What the model needs to say the next character, as a mean."),
    LOSS,
)
SAMPLE = Use(
    "sample",
    "Write on from a prompt, one character after the other.",
    options=(
        Setting("prompt", "str", "", "What the text begins with; with nothing the model begins a line."),
        Setting("length", "int", 400, "How much is written after the prompt.", 1, 100_000, unit="characters"),
        Setting(
            "temperature", "float", 0.8, "How bold the choice of a character is; at 0 the likeliest is taken.", 0, 10
        ),
        Setting("top_k", "int", 0, "Only this many of the likeliest are chosen from; with 0 all.", 0, 65_536),
        Setting("seed", "int", 0, "The same seed writes the same text.", 0, 2**53 - 1),
    ),
)


@dataclass(frozen=True, kw_only=True)
class CharsConfig(TaskConfig):
    """A small GPT over the characters or the bytes of a text."""

    epochs: int = setting(3, "How often the whole text is read.", minimum=1, maximum=100_000, unit="epochs")
    batch_size: int = setting(
        32,
        "Windows of the text that one optimizer step learns from; each is block_size long.",
        minimum=1,
        maximum=65_536,
        unit="windows",
    )
    val_samples: int = setting(
        1000,
        "Windows at the end of the text that are held out for validation; at most a tenth of it.",
        minimum=0,
        maximum=1_000_000_000,
        unit="windows",
    )
    validate_every_steps: int = setting(
        500,
        "A validation is made, and a sample of text is written, after every n-th step; with 0 after every epoch.",
        minimum=0,
        maximum=1_000_000_000,
        unit="steps",
        neutral=True,
    )
    vocabulary: str = setting(
        "characters",
        "What the text is made of: its 512 most frequent characters and one symbol for all others, or its UTF-8 bytes.",
        choices=("characters", "bytes"),
    )
    n_layer: int = setting(4, "Blocks of attention and MLP.", minimum=1, maximum=100)
    n_head: int = setting(4, "Heads of an attention, which share n_embd.", minimum=1, maximum=1024)
    n_embd: int = setting(128, "The width of the residual stream.", minimum=1, maximum=65_536)
    block_size: int = setting(
        128, "How many characters the model sees at once.", minimum=1, maximum=65_536, unit="characters"
    )
    dropout: float = setting(
        0.0,
        "The part of the embeddings and of what each block adds that is dropped in a step.",
        minimum=0,
        maximum=0.99,
    )
    lr: float = setting(
        0.001,
        "Learning rate at its highest; it rises over the warm-up and falls along a cosine.",
        minimum=1e-9,
        maximum=10,
    )
    min_lr: float = setting(0.0001, "Learning rate at the end; lr, if that is lower.", minimum=0, maximum=10)
    warmup: int = setting(
        100, "Steps over which the learning rate rises.", minimum=0, maximum=1_000_000_000, unit="steps"
    )
    weight_decay: float = setting(0.1, "AdamW's decoupled weight decay, on matrices only.", minimum=0, maximum=10)
    beta2: float = setting(0.99, "AdamW's decay of the mean of the gradients' squares.", minimum=0, maximum=0.999999)
    clip: float = setting(
        1.0, "The gradient is scaled down to this norm when it is longer; 0 leaves it as it is.", minimum=0, maximum=1e6
    )

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if self.n_embd % self.n_head:
            raise M1Error(
                Reason.INVALID_SETTING,
                f"n_embd={self.n_embd} is not a multiple of n_head={self.n_head}, so the heads cannot share it",
                f"take n_embd={-(-self.n_embd // self.n_head) * self.n_head}",
                field="settings.n_embd",
                value=str(self.n_embd),
            )


DECLARATION = Declaration(
    name="chars",
    summary="A small GPT that learns to write on a text, character by character.",
    default_data="stdlib",
    config=CharsConfig,
    implementation="m1train.recipes.chars.chars:Chars",
    bfloat16=True,
    needs=NEEDS,
    metrics=METRICS,
    sample_unit="tokens",
    uses=(SAMPLE,),
)
