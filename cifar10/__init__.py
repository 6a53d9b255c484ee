"""The networks of the paper and their training. Run from the root of the repository: python -m cifar10.main"""
