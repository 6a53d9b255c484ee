"""A regression network: numbers as targets, a loss of torch.nn, a metric of its own, no accuracy.

    python examples/regression.py                                  trains it (seconds), writes regression.pt
    python plot_surface.py --model examples/regression.py:net --dataset examples/regression.py:data \\
        --loss_name torch.nn:MSELoss --metric examples/regression.py:absolute_error --model_file regression.pt \\
        --x=-1:1:21 --xnorm filter --xignore biasbn --plot

The data are the 442 patients of the diabetes study that scikit-learn ships: 10 measurements, and the progression of the
disease, standardized.
"""

import sys

import torch
from sklearn.datasets import load_diabetes
from torch import nn


def net():
    return nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))


def data(split):
    x, y = (torch.tensor(a, dtype=torch.float32) for a in load_diabetes(return_X_y=True))
    x, y = x / x.std(0), ((y - y.mean()) / y.std())[:, None]  # (442, 10), (442, 1)
    return (x[:350], y[:350]) if split == "train" else (x[350:], y[350:])


def absolute_error(output, targets):
    """A metric, or a loss: (output of the network, targets) -> one number per sample, or the mean of the batch."""
    return (output - targets).abs()


if __name__ == "__main__":
    torch.manual_seed(0)
    model, (inputs, targets) = net(), data("train")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=1e-3)
    for _ in range(100):
        loss = nn.functional.mse_loss(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(model.state_dict(), sys.argv[1] if len(sys.argv) > 1 else "regression.pt")
    print(f"loss: {loss.item():.3f}")
