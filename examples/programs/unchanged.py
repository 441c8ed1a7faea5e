"""A training script as people have it: it knows nothing of m1d.

m1ctl run -- python unchanged.py --epochs 3
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--lr", type=float, default=1e-3)
parser.add_argument("--save", default="cnn.pt")
args = parser.parse_args()

images, labels = load_digits(return_X_y=True)
images = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
labels = torch.tensor(labels)

model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
print(f"Training {sum(p.numel() for p in model.parameters()):,} parameters on {len(images)} images")

for epoch in range(args.epochs):
    right = 0
    for batch in torch.randperm(len(images)).split(args.batch_size):
        logits = model(images[batch])
        loss = nn.functional.cross_entropy(logits, labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right += (logits.argmax(1) == labels[batch]).sum().item()
    print(f"Epoch {epoch + 1}/{args.epochs}  loss {loss.item():.4f}  accuracy {right / len(images):.2%}")

torch.save(model.state_dict(), args.save)
print(f"Saved {args.save}")
