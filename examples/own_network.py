"""Your own network and data: no file of this repository is edited.

    python examples/own_network.py                                 trains it (seconds), writes own_network.pt
    python plot_surface.py --model examples/own_network.py:net --model_kwargs '{"width": 24}' \\
        --dataset examples/own_network.py:data --model_file own_network.pt --eval_set both \\
        --x=-1:1:21 --xnorm filter --xignore biasbn --plot
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn


def net(width=24):
    """What --model calls, with --model_kwargs: any nn.Module."""
    return nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Conv2d(width, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * width, 10))


def data(split):
    """What --dataset calls with "train" and "test": (inputs, targets), or a data set, or a DataLoader."""
    digits = load_digits()
    which = slice(0, 1500) if split == "train" else slice(1500, None)
    return torch.tensor(digits.images[which])[:, None] / 16, torch.tensor(digits.target[which])


if __name__ == "__main__":
    torch.manual_seed(0)
    model, (inputs, targets) = net(), data("train")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(120):
        batch = torch.randint(len(inputs), (64,))
        loss = nn.functional.cross_entropy(model(inputs[batch].float()), targets[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(model.state_dict(), sys.argv[1] if len(sys.argv) > 1 else "own_network.pt")
    print(f"loss of the last batch: {loss.item():.3f}")
