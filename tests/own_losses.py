"""Tiny networks that compute a loss themselves when they get the labels, as those of Hugging Face do."""

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F

WORDS = 11


class CausalLM(nn.Module):
    """The output at a position is about the next word; -100 does not count.

    loss: (logits (B, T, words), labels (B, T)) -> scalar, of the outputs and labels that belong together.
    """

    def __init__(self, loss=None):
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(WORDS, 8), nn.Linear(8, 8), nn.Linear(8, WORDS)
        self.loss = loss or token_mean

    def forward(self, input_ids, attention_mask=None, labels=None):
        x = self.embed(input_ids)
        if attention_mask is not None:
            x = x * attention_mask[..., None]
        logits = self.head(torch.tanh(self.mix(x.cumsum(1))))
        loss = None
        if labels is not None:
            loss = self.loss(logits[:, :-1], labels[:, 1:])
        return SimpleNamespace(loss=loss, logits=logits)


def token_mean(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def sample_mean(logits, labels):
    losses = F.cross_entropy(logits.movedim(2, 1), labels, reduction="none")
    return (losses.sum(1) / (labels != -100).sum(1).clamp(min=1)).mean()


def with_penalty(logits, labels):
    """No formula that is known: a part of it is about the logits alone, as in mixtures of experts."""
    return token_mean(logits, labels) + 0.1 * logits.logsumexp(2).square().mean()


class MaskedLM(CausalLM):
    """The output at a position is about the word there; a tuple (loss, logits)."""

    def forward(self, input_ids, labels=None):
        logits = self.head(torch.tanh(self.mix(self.embed(input_ids).cumsum(1))))
        if labels is None:
            return (logits,)
        return self.loss(logits, labels), logits


class EncoderDecoder(CausalLM):
    """Takes nothing without the labels, from which it makes the inputs of its decoder, as T5 does."""

    def forward(self, input_ids, labels=None):
        if labels is None:
            raise ValueError("You have to specify labels")
        start = torch.zeros_like(labels[:, :1])
        words = torch.cat([start, labels[:, :-1]], 1).clamp(min=0)
        x = self.embed(words).cumsum(1) + self.embed(input_ids).mean(1, keepdim=True)
        logits = self.head(torch.tanh(self.mix(x)))
        return {"loss": self.loss(logits, labels), "logits": logits}


class LastOnly(CausalLM):
    """Without targets it gives the logits of the last position alone, as nanoGPT does; -1 does not count."""

    def forward(self, idx, targets=None):
        x = torch.tanh(self.mix(self.embed(idx).cumsum(1)))
        if targets is None:
            return self.head(x[:, [-1]]), None
        logits = self.head(x)
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)


class Classifier(nn.Module):
    """A head on a vector: numbers for float labels (N,), classes for integers, several labels for floats (N, C)."""

    def __init__(self, outputs):
        super().__init__()
        self.head = nn.Linear(6, outputs)

    def forward(self, x, labels=None):
        logits = self.head(x)
        result = {"logits": logits}
        if labels is not None and logits.shape[1] == 1:
            result["loss"] = F.mse_loss(logits.squeeze(), labels.squeeze())
        elif labels is not None and labels.is_floating_point():
            result["loss"] = F.binary_cross_entropy_with_logits(logits, labels)
        elif labels is not None:
            result["loss"] = F.cross_entropy(logits, labels)
        return result


def texts(count=10, length=7, ignored=-100, seed=0):
    """(inputs (N, T), labels (N, T)): the labels are the words, without those behind a text's end."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(1, WORDS, (count, length), generator=generator)
    labels = words.clone()
    for row in range(0, count, 2):
        labels[row, 3 + row % 4:] = ignored
    return words, labels
