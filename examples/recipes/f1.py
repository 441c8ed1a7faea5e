"""A metric of one's own, F1: m1ctl submit ./f1.py --data digits --set positive=7 --watch."""

from dataclasses import dataclass

from m1train.recipe import ACCURACY, LOSS, Classifier, Metric, TrainingConfig, setting
from m1train.task.classifier.evaluation import ClassifierEvaluation
from torch import nn
from torch.optim import AdamW

F1 = Metric("f1", "fraction", "more", "The harmonic mean of precision and recall for one class.")


class WithF1(ClassifierEvaluation):
    """Counts what any classifier counts, and says F1 of one class, too."""

    positive = 0

    def metrics(self):
        counts = self.confusion()
        right = counts[self.positive, self.positive]
        called, true = counts[:, self.positive].sum(), counts[self.positive].sum()
        return {"f1": 2 * right / max(1, called + true), **super().metrics()}


class FindOne(Classifier):
    """Tells digits apart, and keeps the checkpoint that finds one of them best."""

    default_data = "digits"
    metrics = (F1, ACCURACY, LOSS)  # the first one chooses the best checkpoint

    @dataclass(frozen=True, kw_only=True)
    class Config(TrainingConfig):
        lr: float = setting(0.003, "Learning rate of the first epoch; then along a cosine.", minimum=0, maximum=1)
        positive: int = setting(0, "The number of the class that is to be found.", minimum=0, maximum=9)

    def model(self, n_classes):
        return nn.Sequential(
            *(
                nn.Conv2d(3, 16, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(16, 32, 3, stride=2, padding=1),
                nn.ReLU(),
            ),
            *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, n_classes)),
        )

    def optimizer(self, model):
        return AdamW(model.parameters(), lr=self.config.lr)

    def evaluation(self, info, split):
        evaluation = WithF1(self.judged, info.columns["label"].classes, shows_results=split == "test")
        evaluation.positive = self.config.positive
        return evaluation
