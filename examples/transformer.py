"""A small transformer that reads text, character by character: inputs as keyword arguments, one label per position.

    python examples/transformer.py                                 trains it (half a minute), writes transformer.pt
    python plot_surface.py --model examples/transformer.py:Transformer --dataset examples/transformer.py:text \\
        --model_file transformer.pt --x=-1:1:15 --y=-1:1:15 --xnorm filter --xignore biasbn \\
        --ynorm filter --yignore biasbn --data_split 4 --plot
    python plot_surface.py ... --params 'head|norm' --idx 1        only the last layers move

The text is the source of Python's argparse, which every Python has. The outputs are (batch, length, characters) and the
targets (batch, length): crossentropy takes the mean over the positions, and the accuracy is the share of right ones.
"""

import argparse
import inspect
import sys

import torch
from torch import nn

LENGTH, CHARACTERS = 48, 128


class Transformer(nn.Module):
    def __init__(self, width=48, layers=2):
        super().__init__()
        self.tokens = nn.Embedding(CHARACTERS, width)
        self.places = nn.Embedding(LENGTH, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CHARACTERS, bias=False)
        self.head.weight = self.tokens.weight  # tied: one tensor, which moves once

    def forward(self, input_ids):
        x = self.tokens(input_ids) + self.places.weight[:input_ids.shape[1]]  # (batch, length, width)
        ahead = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        return self.head(self.norm(self.layers(x, mask=ahead)))


def text(split):
    """({"input_ids": (N, LENGTH)}, next characters (N, LENGTH)): the last tenth of the text is the test set."""
    codes = torch.tensor([min(ord(c), CHARACTERS - 1) for c in inspect.getsource(argparse)])
    cut = 9 * len(codes) // 10
    codes = codes[:cut] if split == "train" else codes[cut:]
    pieces = codes[:(len(codes) - 1) // LENGTH * LENGTH + 1]
    return {"input_ids": pieces[:-1].view(-1, LENGTH)}, pieces[1:].view(-1, LENGTH)


if __name__ == "__main__":
    torch.manual_seed(0)
    model, (inputs, targets) = Transformer(), text("train")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 300):
        batch = torch.randint(len(targets), (32,))
        loss = nn.functional.cross_entropy(model(inputs["input_ids"][batch]).flatten(0, 1), targets[batch].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save({"state_dict": model.state_dict(), "train_loss_of_last_batch": loss.item()},
               sys.argv[1] if len(sys.argv) > 1 else "transformer.pt")
    print(f"loss of the last batch: {loss.item():.3f}")
