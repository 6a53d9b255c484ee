import pytest
import torch

from losslandscape.devices import precision_name
from losslandscape.errors import InputError


@pytest.mark.parametrize("precision", ["tf32", "fp8"])
def test_precisions_that_the_device_lacks_are_refused(precision):
    with pytest.raises(InputError, match="expected"):
        precision_name(precision, torch.device("cpu"))
