"""How robust is the network along a direction? Images are attacked anew, by PGD, at every point.

    python examples/own_network.py                                 trains a network on digits, writes own_network.pt
    python plot_surface.py --model examples/own_network.py:net --model_file own_network.pt \\
        --dataset examples/own_network.py:data --eval_set test --measure examples/adversarial.py:attacked \\
        --x=-1:1:21 --xnorm filter --xignore biasbn --plot

The kind of figure is that of Wu, Xia, Wang, *Adversarial Weight Perturbation Helps Robust Generalization*, NeurIPS
2020: the adversarial loss along a filter-normalized direction, with examples made on the fly for the weights of each
point. There the networks are large, trained against attacks, and see natural images; here a small one, trained without,
sees 8x8 digits, attacked in 5 steps within 0.1. Each attack begins at the same random place at every point.
"""

import torch
from torch.nn.functional import cross_entropy

SIZE, STEPS = 0.1, 5


def attacked(net, context):
    """Mean loss, and percentage of wrong answers, on images that were changed by SIZE at most to raise the loss."""
    loss, wrong, data = 0.0, 0, next(iter(context.data.values()))
    for images, labels in data:
        images = images.float()
        change = torch.empty_like(images).uniform_(-SIZE, SIZE)
        for _ in range(STEPS):
            change.requires_grad_()
            [slope] = torch.autograd.grad(cross_entropy(net(images + change), labels), change)
            change = (change.detach() + SIZE / 2 * slope.sign()).clamp(-SIZE, SIZE)
        logits = net(images + change).detach()
        loss += cross_entropy(logits, labels, reduction="sum")
        wrong += (logits.argmax(1) != labels).sum()
    return {"adversarial_loss": loss / len(data), "success": 100 * wrong / len(data)}
