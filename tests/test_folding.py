import pytest
import torch

from losslandscape.criteria import crossentropy
from losslandscape.directions import WeightPlane, create_random_direction
from losslandscape.evaluator import eval_loss
from losslandscape.files.layouts import Directions
from losslandscape.folding import fold
from losslandscape.networks.models import MODELS
from tests.oracles import images, with_random_statistics


@pytest.mark.parametrize("name", sorted(MODELS))
def test_folding_changes_no_result(name):
    """Every network of the zoo, at the origin and at far points: 1e-5 where the loss is below 10, 1e-4 elsewhere."""
    net = with_random_statistics(name)
    split = images(3, size=8)
    torch.manual_seed(1)
    made = [[t.numpy() for t in create_random_direction(net, norm="filter")] for _ in range(2)]
    net = net.to(memory_format=torch.channels_last)
    plane = WeightPlane(net, Directions(*made))
    folded = fold(net, split.inputs)
    assert folded is not None
    for x, y in ((0, 0), (0.5, -0.5), (-1, 1)):
        plane.place(x, y)
        with torch.no_grad():
            folded.refresh()
            got = float(crossentropy(folded(split.inputs).double(), split.targets).mean())
            expected = float(crossentropy(net(split.inputs).double(), split.targets).mean())
        assert got == pytest.approx(expected, rel=1e-5 if expected < 10 else 1e-4)


def test_the_network_is_not_changed_by_folding():
    net = with_random_statistics("resnet20_noshort")
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.get_rng_state()
    eval_loss(net, images(23, size=8))
    assert torch.equal(state, torch.get_rng_state())  # and nothing is drawn at random
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
