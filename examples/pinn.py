"""A physics-informed network: the loss is a differential equation, and there is no data set.

    python examples/pinn.py                                        trains it (seconds), writes pinn.pt
    python plot_surface.py --model examples/pinn.py:net --model_file pinn.pt --measure examples/pinn.py:physics \\
        --x=-1:1:21 --y=-1:1:21 --xnorm filter --ynorm filter --plot
    python plot_2D.py --surf_file SURFACE.h5 --surf_name residual --log

The kind of figure is that of Krishnapriyan, Gholami, Zhe, Kirby, Mahoney, *Characterizing possible failure modes in
physics-informed neural networks*, NeurIPS 2021: the loss of a convection equation around the trained network, for a
BETA that is learned easily (1) and for larger ones. There the plane is spanned by the first two eigenvectors of the
Hessian; here it is random and filter-normalized, the network is smaller, and the points at which the equation must hold
are drawn at every call, the same ones everywhere on the surface.
"""

import math
import sys
from types import SimpleNamespace

import torch
from torch import nn

BETA = 1.0


def net():
    return nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))


def physics(net, context):
    """u_t + BETA u_x = 0 with u(x, 0) = sin x, of u(x, t) = net((x, t)) for x from 0 to 2 pi and t from 0 to 1."""
    points = torch.rand(256, 2, generator=context.generator, device=context.device)
    points = (points * points.new_tensor([2 * math.pi, 1])).requires_grad_()
    [slopes] = torch.autograd.grad(net(points).sum(), points, create_graph=True)  # (256, 2)
    residual = (slopes[:, 1] + BETA * slopes[:, 0]).square().mean()

    start = points.detach() * points.new_tensor([1, 0])  # t = 0
    initial = (net(start)[:, 0] - start[:, 0].sin()).square().mean()
    return {"loss": residual + initial, "residual": residual, "initial": initial}


if __name__ == "__main__":
    torch.manual_seed(0)
    model, context = net(), SimpleNamespace(device="cpu", generator=torch.Generator())
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(400):
        loss = physics(model, context)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(model.state_dict(), sys.argv[1] if len(sys.argv) > 1 else "pinn.pt")
    print(f"loss: {loss.item():.4f}")
