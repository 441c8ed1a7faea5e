"""The same kind of script with m1job: it reports metrics, and can be paused and resumed. Run by hand, it just trains.

m1ctl run -- python takes_part.py --steps 200
"""

import argparse

import m1job
import torch
from sklearn.datasets import load_digits
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=1000)
args = parser.parse_args()

images, labels = load_digits(return_X_y=True)
images = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
labels = torch.tensor(labels)
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
optimizer = torch.optim.AdamW(model.parameters())

run = m1job.attach()
newest = run.resume()
if newest:
    state = torch.load(newest / "state.pt")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])


def save(directory):
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, directory / "state.pt")


for step in run.steps(args.steps):
    # What is random depends on the step alone, so a run that was paused trains the same weights.
    batch = torch.randint(len(images), (64,), generator=torch.Generator().manual_seed(step))
    loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    run.log(step, loss=loss)
    if run.wants_checkpoint:
        run.save(step, save)

if not run.left_early:
    print("weights", sum(p.double().sum().item() for p in model.parameters()))
