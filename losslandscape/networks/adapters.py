"""Adapters of PEFT."""


def merged(net, checkpoint):
    raise NotImplementedError
