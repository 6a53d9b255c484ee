"""The return of a policy: no loss, no data set, no gradients, but a pole to be balanced on a cart.

    python examples/reinforcement.py                               trains it (seconds), writes policy.pt
    python plot_surface.py --model examples/reinforcement.py:net --model_file policy.pt \\
        --measure examples/reinforcement.py:balanced --x=-1:1:21 --y=-1:1:21 --xnorm filter --ynorm filter --plot

The kind of figure is that of Sullivan, Terry, Black, Dickerson, *Cliff Diving: Exploring Reward Surfaces in
Reinforcement Learning Environments*, ICML 2022: the expected return over a filter-normalized plane through a trained
policy, with its cliffs. There agents of PPO play in the environments of Gym; here a policy that was found by random
search plays 32 episodes of at most 200 steps, which begin at the same places at every point.
"""

import sys
from types import SimpleNamespace

import torch
from torch import nn

EPISODES, STEPS = 32, 200


def net():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


@torch.no_grad()
def balanced(net, context):
    """Mean number of steps until the pole falls or the cart leaves the track, and the share that never does."""
    state = 0.1 * torch.rand(EPISODES, 4, generator=context.generator, device=context.device) - 0.05
    alive, steps = torch.ones_like(state[:, 0]), torch.zeros_like(state[:, 0])
    for _ in range(STEPS):
        place, speed, angle, turning = state.T
        push = 10 * net(state)[:, 0].sign()
        pull = (push + 0.05 * turning.square() * angle.sin()) / 1.1
        bend = (9.8 * angle.sin() - pull * angle.cos()) / (0.5 * (4 / 3 - 0.1 * angle.cos().square() / 1.1))
        slide = pull - 0.05 * bend * angle.cos() / 1.1
        state = state + 0.02 * torch.stack([speed, slide, turning, bend], 1)
        alive = alive * ((state[:, 0].abs() < 2.4) & (state[:, 2].abs() < 0.21))
        steps += alive
    return {"steps": steps.mean(), "never_falls": alive.mean()}


if __name__ == "__main__":
    torch.manual_seed(1)
    model, context, best = net(), SimpleNamespace(device="cpu", generator=torch.Generator()), 0.0
    weights = nn.utils.parameters_to_vector(model.parameters()).detach()
    for _ in range(60):
        trial = weights + 0.3 * torch.randn_like(weights)
        nn.utils.vector_to_parameters(trial, model.parameters())
        steps = balanced(model, context)["steps"].item()
        if steps >= best:
            weights, best = trial, steps
    nn.utils.vector_to_parameters(weights, model.parameters())
    torch.save(model.state_dict(), sys.argv[1] if len(sys.argv) > 1 else "policy.pt")
    print(f"{best:.0f} steps")
