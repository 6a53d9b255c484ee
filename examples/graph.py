"""A graph network: one graph, some labelled nodes, and how alike its nodes have become. Needs torch_geometric.

    python examples/graph.py                                       trains it (seconds), writes graph.pt
    python plot_surface.py --model examples/graph.py:net --model_kwargs '{"depth": 2}' --model_file graph.pt \\
        --measure examples/graph.py:Club --x=-1:1:21 --y=-1:1:21 --xnorm filter --ynorm filter \\
        --xignore biasbn --yignore biasbn --plot

The kind of figure is that of Moustafa et al., *Visualization and Analysis of the Loss Landscape in Graph Neural
Networks*, ICANN 2025 workshops: loss surfaces of graph networks, and how over-smoothing shapes them. There the plane is
a learned projection of the path of training; here it is random and filter-normalized, of a GCN on Zachary's karate
club.
"""

import json
import sys

import torch
from torch.nn.functional import cosine_similarity, cross_entropy
from torch_geometric.datasets import KarateClub
from torch_geometric.nn import GCN


def net(depth=2):
    return GCN(34, 16, depth, 4)


class Club:
    """Loss of the labelled nodes, accuracy of the others, mean similarity of the outputs of neighbours."""

    def __init__(self, net, context):
        self.graph = KarateClub()[0].to(context.device)

    def __call__(self, net, context=None):
        graph = self.graph
        known, (start, end) = graph.train_mask, graph.edge_index
        output = net(graph.x, graph.edge_index)  # (34, 4)
        right = (output.argmax(1) == graph.y)[~known].float().mean()
        return {
            "loss": cross_entropy(output[known], graph.y[known]),
            "accuracy": 100 * right,
            "similarity": cosine_similarity(output[start], output[end]).mean(),
        }


if __name__ == "__main__":
    torch.manual_seed(0)
    options = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    model = net(**options)
    club = Club(model, torch.zeros(()))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-3)
    for _ in range(100):
        optimizer.zero_grad()
        results = club(model)
        results["loss"].backward()
        optimizer.step()
    torch.save(model.state_dict(), sys.argv[1] if len(sys.argv) > 1 else "graph.pt")
    print(", ".join(f"{name} {value.item():.3g}" for name, value in results.items()))
