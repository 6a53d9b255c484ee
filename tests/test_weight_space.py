import numpy as np
import pytest
import torch
from torch import nn

from losslandscape.errors import InputError
from losslandscape.files.layouts import Directions
from losslandscape.weight_space import (
    DIR_TYPES,
    NORMS,
    Axis,
    Recipe,
    WeightPlane,
    build_seeded,
    check_shapes,
    cosine,
    create_random_direction,
    create_target_direction,
    make_directions,
    names_of,
    restrict,
    seed_everything,
    setup_direction,
    tensors_of,
)


class Net(nn.Module):
    """Small, with every kind of tensor: filters, a matrix, biases, batch norm with its counter."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        return self.fc(self.bn(self.conv(x)).mean((2, 3)))


@pytest.fixture
def net():
    seed_everything()
    return Net().eval()


def axes(net, dir_type="weights", n=2, **how):
    made = [[t.numpy() for t in create_random_direction(net, dir_type, **how)] for _ in range(n)]
    return Directions(*made)


def test_each_filter_of_a_filter_normalized_direction_has_its_filters_norm(net):
    direction = create_random_direction(net, norm="filter")
    for d, w in zip(direction, net.parameters(), strict=True):
        if w.dim() > 1:
            torch.testing.assert_close(d.flatten(1).norm(dim=1), w.detach().flatten(1).norm(dim=1))


@pytest.mark.parametrize("norm, of", [("layer", lambda d, w: (d.norm(), w.norm())),
                                      ("dlayer", lambda d, w: (d.norm(), torch.tensor(1.0))),
                                      ("dfilter", lambda d, w: (d.flatten(1).norm(dim=1), torch.ones(len(d)))),
                                      ("weight", lambda d, w: (d.sign().abs(), w.sign().abs()))])
def test_norms_of_the_other_normalizations(net, norm, of):
    direction = create_random_direction(net, norm=norm)
    for d, w in zip(direction, net.parameters(), strict=True):
        if w.dim() > 1:
            torch.testing.assert_close(*of(d, w.detach()))


@pytest.mark.parametrize("norm", NORMS)
def test_a_direction_keeps_its_orientation(net, norm):
    """Normalization rescales: per filter, per layer, or (weight) per entry."""
    torch.manual_seed(5)
    drawn = [torch.randn(w.shape) for w in net.parameters()]
    torch.manual_seed(5)
    made = create_random_direction(net, norm=norm)
    for d, m, w in zip(drawn, made, net.parameters(), strict=True):
        if d.dim() > 1:
            ratio = (m / d / (w.detach() if norm == "weight" else 1)).flatten(1)
            torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-4, atol=0)
            assert (ratio > 0).all()


def test_biases_and_batch_norm_are_zero_or_the_weights_own(net):
    ignored = create_random_direction(net, "states", ignore="biasbn")
    kept = create_random_direction(net, "states", ignore="")
    for a, b, w in zip(ignored, kept, net.state_dict().values(), strict=True):
        if w.dim() < 2:
            assert (a == 0).all() and torch.equal(b, w.float())


def test_idx_gives_other_directions_and_the_same_idx_the_same():
    def first(idx):
        seed_everything(idx)
        return torch.cat([t.flatten() for t in create_random_direction(Net())])

    assert torch.equal(first(1), first(1))
    assert not torch.allclose(first(0), first(1)) and not torch.allclose(first(1), first(2))


@pytest.mark.parametrize("dir_type", DIR_TYPES)
def test_the_origin_is_the_network_bit_for_bit(net, dir_type):
    before = {k: v.clone() for k, v in net.state_dict().items()}
    plane = WeightPlane(net, axes(net, dir_type, norm="filter"), dir_type)
    plane.place(0.7, -0.3)
    assert not torch.equal(net.conv.weight, before["conv.weight"])
    plane.place(0.0, 0.0)
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("dir_type", DIR_TYPES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_point_is_origin_plus_x_dx_plus_y_dy(net, dir_type, memory_format):
    net.to(memory_format=memory_format)
    directions = axes(net, dir_type, norm="filter", ignore="")
    before = [t.detach().clone() for t in tensors_of(net, dir_type)]
    rest = [b.clone() for b in net.buffers()]
    WeightPlane(net, directions, dir_type).place(0.5, -2.0)
    for t, w, dx, dy in zip(tensors_of(net, dir_type), before, directions.x, directions.y, strict=True):
        expected = (w.float() + 0.5 * torch.as_tensor(dx) - 2.0 * torch.as_tensor(dy)).to(w.dtype)
        torch.testing.assert_close(t.detach(), expected)
        assert t.stride() == w.stride()
    if dir_type == "weights":
        assert all(torch.equal(a, b) for a, b in zip(net.buffers(), rest, strict=True))


def test_point_1_0_is_the_second_model(net):
    torch.manual_seed(9)
    other = Net()
    other.bn.running_mean.fill_(3.0)
    other.bn.num_batches_tracked.fill_(12)
    towards = create_target_direction(net, other, "states")
    WeightPlane(net, Directions([t.numpy() for t in towards]), "states").place(1.0)
    for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)


def test_half_precision_tensors_keep_their_dtype(net):
    net.fc.half()
    directions = axes(net, norm="filter")
    weight = net.fc.weight.detach().clone()
    WeightPlane(net, directions).place(0.25, 0.5)
    assert net.fc.weight.dtype == torch.float16 and net.conv.weight.dtype == torch.float32
    expected = weight.float() + 0.25 * torch.as_tensor(directions.x[-2]) + 0.5 * torch.as_tensor(directions.y[-2])
    assert torch.equal(net.fc.weight, expected.half())


def test_tied_weights_move_once():
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    net[1].weight = net[0].weight
    before = net[0].weight.detach().clone()
    for dir_type in DIR_TYPES:
        ones = [np.ones((3, 3), np.float32)] * len(tensors_of(net, dir_type))
        plane = WeightPlane(net, Directions(ones), dir_type)
        plane.place(1.0)
        assert net[1].weight is net[0].weight and torch.equal(net[0].weight, before + 1)
        plane.place(0.0)


def test_placing_allocates_nothing(net):
    plane = WeightPlane(net, axes(net))
    pointers = [p.data_ptr() for p in net.parameters()]
    plane.place(0.3, 0.4)
    assert [p.data_ptr() for p in net.parameters()] == pointers


def test_names_are_those_of_the_original():
    filtered = Axis("filter", "biasbn")
    table = {
        Recipe("m.t7", Axis()): "m.t7_weights.h5",
        Recipe("d/m.t7", filtered): "d/m.t7_weights_xignore=biasbn_xnorm=filter.h5",
        Recipe("d/m.t7", filtered, idx=3): "d/m.t7_weights_xignore=biasbn_xnorm=filter_idx=3.h5",
        Recipe("m.t7", filtered, filtered):
            "m.t7_weights_xignore=biasbn_xnorm=filter_yignore=biasbn_ynorm=filter.h5",
        Recipe("m.t7", Axis("layer"), Axis("filter"), same_dir=True):
            "m.t7_weights_xnorm=layer_ynorm=filter_same_dir.h5",
        Recipe("r/a.t7", Axis(model_file="r/b.t7"), dir_type="states"): "r/a.t7_b.t7_states.h5",
        Recipe("r/a/m.t7", Axis(model_file="r/b/m.t7")): "r/a_m.t7_b_m.t7_weights.h5",
        Recipe("r/abc/m.t7", Axis(model_file="r/abd/m.t7")): "r/abc_m.t7_abd_m.t7_weights.h5",
        Recipe("r/a/m.t7", Axis(model_file="r/b/c/m.t7")): "r/a_m.t7_b_c_m.t7_weights.h5",
        Recipe("r/a.t7", Axis(model_file="r/b.t7"), Axis(model_file="r/c.t7")): "r/a.t7_b.t7_c.t7_weights.h5",
    }
    for recipe, name in table.items():
        assert recipe.file_name() == name


def test_setup_reads_back_what_it_made_and_draws_nothing_again(net, tmp_path):
    path = str(tmp_path / "d.h5")
    recipe = Recipe("m.t7", Axis("filter", "biasbn"), Axis("layer"))
    made = setup_direction(path, recipe, net, None, {"checkpoint": "a" * 64})
    state = torch.get_rng_state()
    read = setup_direction(path, recipe, net, None, {"checkpoint": "a" * 64})
    assert torch.equal(state, torch.get_rng_state())
    for a, b in zip(made.x + made.y, read.x + read.y, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="contents of --model_file"):
        setup_direction(path, recipe, net, None, {"checkpoint": "b" * 64})


def test_same_dir_copies_x_to_y(net, tmp_path):
    recipe = Recipe("m.t7", Axis("filter"), Axis("filter"), same_dir=True)
    made = setup_direction(str(tmp_path / "d.h5"), recipe, net, None, {})
    assert all(np.array_equal(a, b) for a, b in zip(made.x, made.y, strict=True))
    assert cosine(made) == pytest.approx(1.0)


def test_directions_that_do_not_fit_are_refused(net, tmp_path):
    path = str(tmp_path / "d.h5")
    one = Recipe("m.t7", Axis())
    setup_direction(path, one, net, None, {})
    for recipe, network, message in (
        (Recipe("m.t7", Axis(), Axis()), net, "x and y directions"),
        (Recipe("m.t7", Axis(), dir_type="states"), net, "expected 9 tensors"),
        (one, nn.Linear(2, 2), "expected 2 tensors"),
        (one, nn.Sequential(nn.Conv2d(3, 4, 5), nn.BatchNorm2d(4), nn.Linear(4, 5)), "shape"),
    ):
        with pytest.raises(InputError, match=message):
            setup_direction(path, recipe, network, None, {})


# ---------------------------------------------------------------- which parameters move


def moved_by(net, dir_type="weights", **patterns):
    recipe = Recipe("m.t7", Axis("filter", "biasbn"), dir_type=dir_type, **patterns)
    torch.manual_seed(0)
    whole = create_random_direction(net, dir_type, "biasbn", "filter")
    directions = restrict(Directions([d.numpy() for d in whole]), net, recipe)
    names = names_of(net, dir_type)
    return {n for n, a in zip(names, directions.x, strict=True) if a.any()}, directions, whole


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(5, 2))


def test_only_the_parameters_whose_names_match_move_and_by_the_same_numbers():
    net = small()
    names, directions, whole = moved_by(net, params="^2|^4")
    assert names == {"2.weight", "4.weight"}
    assert moved_by(net, freeze="^0")[0] == names
    assert moved_by(net, params="weight", freeze=r"^4\.")[0] == {"0.weight", "2.weight"}
    np.testing.assert_array_equal(directions.x[4], whole[4].numpy())  # what is drawn for the rest stays the same
    assert moved_by(net, "states", params=r"^2\.")[0] == {"2.weight"}


def test_frozen_parameters_keep_their_values_and_their_memory():
    net = small()
    _, directions, _ = moved_by(net, freeze="^0")
    before, memory = net[0].weight.clone(), net[0].weight.data_ptr()
    plane = WeightPlane(net, directions)
    plane.place(0.5)
    assert torch.equal(net[0].weight, before) and net[0].weight.data_ptr() == memory
    assert not torch.equal(net[2].weight, small()[2].weight)


def test_a_tied_weight_is_found_under_each_of_its_names_and_moves_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.inner.weight

    net = Tied()
    names, directions, whole = moved_by(net, params="head")
    assert names == {"inner.weight"}
    before = net.head.weight.clone()
    WeightPlane(net, directions).place(1.0)
    assert net.head.weight is net.inner.weight
    torch.testing.assert_close(net.head.weight.detach(), before.detach() + whole[0])


@pytest.mark.parametrize("patterns, words", [
    (dict(params="["), "expected --params as a regular expression"), (dict(freeze="("), "expected --freeze as a reg"),
    (dict(params="nothing"), "their names are 0.weight"), (dict(freeze="."), "leave none"),
    (dict(params="bias"), "not zero"),
])
def test_patterns_that_leave_nothing_are_refused(patterns, words):
    with pytest.raises(InputError, match=words):
        moved_by(small(), **patterns)


def test_file_names_tell_patterns_apart_and_hold_no_separators():
    def name(**patterns):
        return Recipe("m.t7", Axis("filter", "biasbn"), **patterns).file_name()

    assert name(params="layer3") == "m.t7_weights_xignore=biasbn_xnorm=filter_params=layer3.h5"
    patterns = [{}, *({"params": p} for p in ("a|b", "a/b", "a*b", "x" * 90)), {"freeze": "a|b"}]
    names = {name(**p) for p in patterns}
    assert len(names) == 6 and not any("/" in n or len(n) > 150 for n in names)


# ---------------------------------------------------------------- complex and double weights


class Spectral(nn.Module):
    """Complex weights, as in Fourier neural operators."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, dtype=torch.complex64))
        self.bias = nn.Parameter(torch.randn(3, dtype=torch.complex64))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_weights_move_by_real_and_imaginary_parts(tmp_path, dtype):
    net = Spectral().to(dtype)
    origin = net.weight.detach().clone()
    recipe = Recipe("net", Axis("filter", "biasbn"), Axis("filter", "biasbn"))
    made = setup_direction(str(tmp_path / "d.h5"), recipe, net, None, {})
    read = setup_direction(str(tmp_path / "d.h5"), recipe, net, None, {})
    d = torch.as_tensor(read.x[0])
    assert d.is_complex() and d.imag.any() and not read.x[1].any()
    np.testing.assert_array_equal(made.y[0], read.y[0])
    # filters have the complex norms of the weights'
    torch.testing.assert_close(d.norm(dim=1), origin.norm(dim=1).float(), rtol=1e-5, atol=0)

    plane = WeightPlane(net, read)
    plane.place(0.5, -2.0)
    expected = origin + 0.5 * d.to(dtype) - 2.0 * torch.as_tensor(read.y[0]).to(dtype)
    torch.testing.assert_close(net.weight.data, expected, rtol=1e-6, atol=1e-6)
    plane.place(0.0)
    assert torch.equal(net.weight.data, origin)


def test_double_weights_are_moved_in_double_precision():
    net = nn.Linear(4, 3).double()
    origin = net.weight.detach().clone()
    torch.manual_seed(0)
    d = create_random_direction(net)
    plane = WeightPlane(net, Directions([t.numpy() for t in d]))
    plane.place(0.3)
    torch.testing.assert_close(net.weight.data, origin + 0.3 * d[0].double(), rtol=1e-15, atol=1e-15)
    plane.place(0.0)
    assert torch.equal(net.weight.data, origin)


def test_complex_directions_of_real_weights_are_refused():
    net = nn.Linear(2, 2)
    arrays = [np.zeros((2, 2), np.complex64), np.zeros(2, np.float32)]
    with pytest.raises(InputError, match="expected real numbers"):
        check_shapes("d.h5", Directions(arrays), net, "weights", need_y=False)


# ---------------------------------------------------------------- directions that are none


def test_a_network_that_seeds_does_not_decide_which_directions_are_drawn():
    def seeding():
        torch.manual_seed(0)
        return nn.Linear(3, 2)

    def drawn(build, idx):
        return create_random_direction(build_seeded(build, idx))[0]

    assert not torch.equal(drawn(seeding, 0), drawn(seeding, 1))
    assert torch.equal(drawn(seeding, 1), drawn(seeding, 1))


def test_without_seeding_the_stream_goes_on_after_the_network_as_in_the_original():
    torch.manual_seed(123)
    nn.Linear(3, 2)
    expected = torch.randn(5)
    build_seeded(lambda: nn.Linear(3, 2))
    assert torch.equal(torch.randn(5), expected)


def test_a_network_in_which_nothing_moves_is_refused():
    norm_only = nn.BatchNorm1d(3)
    recipe = Recipe("net", Axis("filter", "biasbn"))
    with pytest.raises(InputError, match="two or more dimensions"):
        make_directions(recipe, norm_only, None, {})
    towards_itself = Recipe("net", Axis(model_file="again.pt"))
    with pytest.raises(InputError, match="they have the same weights"):
        make_directions(towards_itself, norm_only, lambda path: norm_only, {})
