import pytest
import torch
from torch.nn import functional as F

from losslandscape.criteria import IGNORED, choose_metric, crossentropy, hits, mse
from losslandscape.errors import InputError


def test_losses_follow_their_definitions():
    logits, targets = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 3, 0])
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    for i in range(6):
        assert crossentropy(logits, targets)[i] == pytest.approx(-float(p[i, targets[i]].log()))
        squares = [(float(p[i, c]) - (c == int(targets[i]))) ** 2 for c in range(4)]
        assert mse(logits, targets)[i] == pytest.approx(sum(squares) / 4)


def test_labels_of_positions_may_stand_first_or_last_and_ignored_ones_do_not_count():
    logits, targets = torch.randn(4, 6, 9), torch.randint(9, (4, 6))  # (B, length, classes)
    targets[:, 4:] = IGNORED
    expected = F.cross_entropy(logits[:, :4].flatten(0, 1), targets[:, :4].flatten())
    for form in (logits, logits.movedim(2, 1)):
        assert crossentropy(form, targets).mean() == pytest.approx(float(expected), rel=1e-6)
        right = (logits.argmax(2) == targets)[:, :4].float().mean()
        assert hits(form, targets).mean() == pytest.approx(float(right))
    with pytest.raises(InputError, match="could be both"):
        crossentropy(torch.randn(4, 6, 6), torch.zeros(4, 6, dtype=torch.long))


@pytest.mark.parametrize("output, targets, metric", [
    (torch.randn(4, 3), torch.zeros(4, dtype=torch.long), "accuracy"),
    (torch.randn(4, 5, 3), torch.zeros(4, 5, dtype=torch.long), "accuracy"),
    (torch.randn(4, 3), torch.randn(4, 3), "none"),
    (torch.randn(4), torch.zeros(4, dtype=torch.long), "none"),
    ({"logits": torch.randn(4, 3)}, torch.zeros(4, dtype=torch.long), "accuracy"),
    ({"other": torch.randn(4, 3)}, torch.zeros(4, dtype=torch.long), "none"),
])
def test_accuracy_is_measured_where_targets_are_classes(output, targets, metric):
    assert choose_metric("", output, targets) == metric
    assert choose_metric("none", output, targets) == "none"
