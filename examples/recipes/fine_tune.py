"""Fine-tuning: m1ctl submit ./fine_tune.py --data digits --set weights=/home/me/weights.safetensors --watch.

Takes what fits of a checkpoint's weights (m1ctl download JOB@STEP ./folder has a weights.safetensors), begins with a
new head, and trains the rest at a tenth of its rate.
"""

from dataclasses import dataclass

from m1train.recipe import Classifier, TrainingConfig, setting
from safetensors.torch import load_file
from torch import nn
from torch.optim import AdamW


class FineTune(Classifier):
    """A small network that begins with weights from a file."""

    default_data = "digits"

    @dataclass(frozen=True, kw_only=True)
    class Config(TrainingConfig):
        lr: float = setting(0.003, "Learning rate of the head in the first epoch.", minimum=0, maximum=1)
        weights: str = setting("", "The file with the weights, an absolute path; empty: new ones.")

    def model(self, n_classes):
        features = nn.Sequential(
            *(
                nn.Conv2d(3, 16, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(16, 32, 3, stride=2, padding=1),
                nn.ReLU(),
            ),
            *(nn.AdaptiveAvgPool2d(2), nn.Flatten()),
        )
        return nn.ModuleDict({"features": features, "head": nn.Linear(128, n_classes)})

    def initialise(self, model, images):  # before the first step only: a resume has the weights of its checkpoint
        if self.config.weights:
            there, mine = load_file(self.config.weights), model.state_dict()
            taken = {name: t for name, t in there.items() if name in mine and t.shape == mine[name].shape}
            model.load_state_dict({**mine, **{name: t for name, t in taken.items() if not name.startswith("head.")}})
            print(f"{len(taken)} of {len(mine)} tensors fit", flush=True)  # stands in the job's log

    def optimizer(self, model):
        rest = {
            "params": model["features"].parameters(),
            "lr": self.config.lr / 10 if self.config.weights else self.config.lr,
        }
        return AdamW([{"params": model["head"].parameters()}, rest], lr=self.config.lr)

    def training_logits(self, model, inputs, draw):
        return model["head"](model["features"](inputs))

    def evaluation_logits(self, model, inputs):
        return model["head"](model["features"](inputs))
