"""From a notebook or a training script, without files: `import losslandscape`.

    python examples/notebook.py [PICTURE.png]
"""

import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parent.parent))  # the clone
from own_network import data, net  # noqa: E402

import losslandscape  # noqa: E402

model, (inputs, targets) = net(width=12), data("train")
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for _ in range(40):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(inputs.float()), targets)
    loss.backward()
    optimizer.step()

axes = losslandscape.directions(model)
surface = losslandscape.surface(model, axes, losslandscape.losses(inputs, targets), x="-1:1:7", y="-1:1:7")
losslandscape.plot(surface, path=sys.argv[1] if len(sys.argv) > 1 else "notebook.png")
values = surface.values["train_loss"]  # (ny, nx)
print(f"loss at the centre {values[3, 3]:.4f}, at the corner {values[0, 0]:.4f}")


def penalty(network):
    """Any function of the network will do."""
    return {"squared_norm": float(sum(p.square().sum() for p in network.parameters()))}


line = losslandscape.surface(model, axes, penalty, x=[-1.0, -0.5, 0.0, 0.5, 1.0])
print("squared norm of the weights along x:", line.values["squared_norm"].round(1))
