"""Training a network as the paper does: what cifar10/main.py is made of."""
