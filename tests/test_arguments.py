"""What the Python interface takes and refuses: a row for each form of each argument."""

import warnings

import numpy as np
import pytest
from helpers import beats

from ecgadv import arguments
from ecgadv.attacks.cw import CarliniWagner
from ecgadv.attacks.minnorm import MinNorm
from ecgadv.errors import ConfigError, DataError
from ecgadv.threat.goals import UNTARGETED

N = 600
CLASSES = ("A", "N", "O", "~")


@pytest.fixture(scope="module")
def x():
    return beats(4, N)


def tensors(value):
    """The same numbers as a tensor of every installed backend."""
    import importlib.util

    import tensorflow as tf

    yield tf.constant(value)
    yield tf.Variable(value)
    if importlib.util.find_spec("jax"):
        import jax.numpy as jnp

        yield jnp.asarray(value)
    if importlib.util.find_spec("torch"):
        import torch

        yield torch.tensor(value)
        if np.asarray(value).dtype.kind == "f":
            yield torch.tensor(value, requires_grad=True)


# --- x --------------------------------------------------------------------------------------------


def test_records_of_every_kind_come_out_the_same(x):
    np.testing.assert_array_equal(arguments.signals(x, N), x)
    for same in (x[..., None], x.tolist(), x.astype(np.float64), x[:, ::-1][:, ::-1]):
        np.testing.assert_array_equal(arguments.signals(same, N), x)
    half = x.astype(np.float16)
    np.testing.assert_array_equal(arguments.signals(half, N), half.astype(np.float32))
    assert arguments.signals(np.zeros((0, N)), N).shape == (0, N)
    assert arguments.signals(x, N).dtype == np.float32


def test_tensors_are_records(x):
    for given in tensors(x):
        np.testing.assert_array_equal(arguments.signals(given, N), x)


def test_bfloat16_tensors_are_records(x):
    import tensorflow as tf

    coarse = tf.cast(x, tf.bfloat16)
    expected = tf.cast(coarse, tf.float32).numpy()
    np.testing.assert_array_equal(arguments.signals(coarse, N), expected)
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(arguments.signals(torch.tensor(x).bfloat16(), N), expected)


def test_leads_come_one_after_the_other(x):
    two = np.stack([x, -x], axis=2)
    np.testing.assert_array_equal(arguments.signals(two, N, 2), np.concatenate([x, -x], 1))
    # Standardised together, one lead may be larger than the other.
    both = np.stack([x * np.sqrt(1.9), x * np.sqrt(0.1)], axis=2)
    assert arguments.signals(both, N, 2, "record").shape == (4, 2 * N)
    with pytest.raises(DataError, match=r"row 0 lead 1 is not standardised \(mean .*deviation 1.3"):
        arguments.signals(both, N, 2, "lead")
    # Nothing is standardised: mV are what such a victim reads.
    assert arguments.signals(0.2 * both + 3, N, 2, "none").shape == (4, 2 * N)


def masked(x):
    return np.ma.masked_array(x, mask=np.arange(N) == 3 * np.ones((4, 1)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: 0.2 * x, r"row 0 is not standardised \(mean .*, standard deviation 0.2"),
        (lambda x: 200 * x, "row 0 is not standardised"),
        (lambda x: np.round(200 * x).astype(np.int16), "row 0 is not standardised"),
        (lambda x: x + 5, r"row 0 is not standardised \(mean 5, "),
        (lambda x: x * np.array([1, 1, 3, 1])[:, None], "row 2 is not standardised"),
        (lambda x: 1e30 * x, "which no record does"),
        (lambda x: np.where(np.arange(N) == 3, 1e300, x.astype(float)), "which no record does"),
        (lambda x: np.full((4, N), 1e9), "row 0 is a flat line"),
        (lambda x: np.zeros((4, N)), "row 0 is a flat line"),
        (lambda x: np.where(np.arange(N) == 3, np.nan, x), "x holds NaN or infinities"),
        (lambda x: np.where(np.arange(N) == 3, -np.inf, x), "x holds NaN or infinities"),
        (lambda x: x + 0j, "must be real numbers, not complex numbers"),
        (lambda x: x.astype(object), "must be real numbers, not object values"),
        (lambda x: x > 0, "must be real numbers, not true and false"),
        (lambda x: x.astype(str), "must be real numbers, not texts"),
        (lambda x: x.astype("S"), "must be real numbers, not bytes"),
        (lambda x: x.astype("M8[s]"), "must be real numbers, not datetime64"),
        (lambda x: [row[: 500 + i] for i, row in enumerate(x.tolist())], "NumPy cannot read"),
        (lambda x: None, "must be real numbers, not object values"),
        (lambda x: "compact", "must be real numbers, not texts"),
        (lambda x: iter(x), "must be real numbers, not object values"),
        (lambda x: {"x": x}, "must be real numbers, not object values"),
        (lambda x: masked(x), "has masked entries"),
        (lambda x: x[0], r"x has shape \(600,\), expected \(B, 600\) or \(B, 600, 1\)"),
        (lambda x: x[:, None, :], r"x has shape \(4, 1, 600\)"),
        (lambda x: x.T, r"x has shape \(600, 4\)"),
    ],
)
def test_what_is_no_standardised_record_is_refused(x, spoil, message):
    with pytest.raises(DataError, match=message) as caught:
        arguments.signals(spoil(x), N)
    assert "\n" not in str(caught.value)


def test_a_padding_is_no_part_of_the_record(x):
    short = x.copy()
    own = x[1, :450]
    short[1, :450] = (own - own.mean()) / own.std()
    lengths = np.array([600, 450, 600, 600])
    found = arguments.signals(short, N, lengths=lengths)
    assert short[1, 450:].all()
    short[1, 450:] = 0
    np.testing.assert_array_equal(found, short)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(arguments.signals(short, N, lengths=lengths), short)
        arguments.signals(x, N)
    with pytest.warns(UserWarning, match="row 1 ends in 150 zeros; without lengths"):
        arguments.signals(short, N)


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [7, 7.0, np.int8(7), np.float32(7), np.uint64(7), np.array(7)])
def test_whole_numbers_of_every_type(given):
    found = arguments.whole("steps", given, 1)
    assert (found, type(found)) == (7, int)


def test_whole_numbers_in_tensors():
    for kind in (7, 7.0):
        assert {arguments.whole("steps", tensor) for tensor in tensors(kind)} == {7}


NO_NUMBERS = [
    "10", b"10", True, np.True_, None, [10], (10,), {10}, {"a": 1}, 1j, np.array([10]),
    np.array("10"), np.array(True), float("nan"), float("inf"), -np.inf, np.nan, object(),
]  # fmt: skip


@pytest.mark.parametrize("given", [*NO_NUMBERS, 2.5, 0, -1, np.array(2.5)], ids=repr)
def test_what_is_no_whole_number_is_refused(given):
    with pytest.raises(ConfigError, match=r"^steps=.*: must be a whole number, at least 1$"):
        arguments.whole("steps", given, 1)


@pytest.mark.parametrize("given", NO_NUMBERS, ids=repr)
def test_what_is_no_number_is_refused(given):
    with pytest.raises(ConfigError, match=r"^attack.peak=.*: must be a number$"):
        arguments.number("attack.peak", given)
    assert arguments.number("attack.peak", np.float32(0.5)) == 0.5


@pytest.mark.parametrize("given", ["true", "no", 1, 0, None, [], np.array([True])], ids=repr)
def test_a_flag_is_true_or_false(given):
    with pytest.raises(ConfigError, match=r"^perturb_padding=.*: must be True or False$"):
        arguments.flag("perturb_padding", given)
    assert arguments.flag("perturb_padding", np.True_) is True


@pytest.mark.parametrize("given", [0, -1, True, "8", "many", 2.5, None, [8]], ids=repr)
def test_batch_sizes(given):
    with pytest.raises(ConfigError, match=r"must be a whole number, at least 1, or auto$"):
        arguments.batch_size(given)
    assert [arguments.batch_size(v) for v in ("auto", 8, np.int64(8))] == ["auto", 8, 8]


@pytest.mark.parametrize("given", [-1, 2**32, 0.5, "0", True, None, np.nan], ids=repr)
def test_seeds(given):
    with pytest.raises(ConfigError, match=r"^seed=.*: must be a whole number, from 0 to 4294967"):
        arguments.seed(given)
    assert arguments.seed(np.uint32(2**32 - 1)) == 2**32 - 1


@pytest.mark.parametrize("given", ["float16", "FLOAT32", None, 32, ["float32"]], ids=repr)
def test_words(given):
    with pytest.raises(ConfigError, match=r"^precision=.*: must be one of float32, bfloat16"):
        arguments.choice("precision", given, ("float32", "bfloat16"))


@pytest.mark.parametrize(
    ("kind", "option", "message"),
    [
        (MinNorm, {"steps": 2.5}, "attack.steps=2.5: must be a whole number"),
        (MinNorm, {"steps": "10"}, "attack.steps=10: must be a whole number"),
        (MinNorm, {"steps": True}, "attack.steps=True: must be a whole number"),
        (MinNorm, {"starts": 1.5}, "attack.starts=1.5: must be a whole number"),
        (MinNorm, {"peak": "0.5"}, "attack.peak=0.5: must be a number"),
        (MinNorm, {"first_step": float("nan")}, "attack.first_step=nan: must be a number"),
        (MinNorm, {"perturb_padding": "no"}, "attack.perturb_padding=no: must be True or False"),
        (CarliniWagner, {"learning_rate": [1]}, r"attack.learning_rate=\[1\]: must be a number"),
        (CarliniWagner, {"kappa": 1j}, "attack.kappa=1j: must be a number"),
    ],
)
def test_options_of_attacks(kind, option, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        arguments.options(kind, option)


def test_options_keep_what_they_mean():
    given = {"steps": np.float64(10), "starts": "auto", "peak": None, "band": (1, 2), "nonsense": 1}
    found = arguments.options(MinNorm, given)
    assert found == given
    assert type(found["steps"]) is int


# --- lengths, masks and targets -------------------------------------------------------------------


def test_lengths_of_every_kind():
    expected = [600, 450]
    assert arguments.lengths(None, 2, N).tolist() == [600, 600]
    given = [
        expected, tuple(expected), np.array(expected, np.int16), np.array(expected, np.float32),
        np.array([expected]).T, *tensors(expected),
    ]  # fmt: skip
    for one in given:
        found = arguments.lengths(one, 2, N)
        assert (found.tolist(), found.dtype) == (expected, np.int64)


@pytest.mark.parametrize(
    "given",
    [
        [600, 0], [600, 601], [600], 600, [600, 450.5], [600, np.nan], ["600", "450"], "600",
        [True, True], [600, None], [[600], [1, 2]], [600 + 0j, 450], {600, 450}, [1e300, 5],
    ],
    ids=repr,
)  # fmt: skip
def test_impossible_lengths(given):
    with pytest.raises(DataError, match=r"^lengths: expected 2 numbers from 1 to 600") as caught:
        arguments.lengths(given, 2, N)
    assert "\n" not in str(caught.value)


def test_masks_of_every_kind():
    one = np.arange(N) % 3 == 0
    expected = np.tile(one, (2, 1)).astype(np.float32)
    for given in (
        one, one.astype(int), one.astype(float), one.tolist(), one[:, None], np.tile(one, (2, 1)),
        np.tile(one, (2, 1))[..., None], *tensors(one), *tensors(one.astype(np.float32)),
    ):  # fmt: skip
        found = arguments.mask(given, 2, N)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.float32
    each = np.stack([one, ~one], axis=1)
    np.testing.assert_array_equal(
        arguments.mask(each, 2, N, 2), np.tile(np.concatenate([one, ~one]), (2, 1))
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.full(N, 0.5), "must be True and False or 1 and 0, it holds 0.5"),
        (np.arange(N), ".*it holds 2"),
        ([3, 5, 7], ".*it holds 3"),
        (-np.ones(N), ".*it holds -1"),
        (np.full(N, np.nan), ".*it holds nan"),
        (np.full(N, "no"), "must be True and False, not texts"),
        ("no", "must be True and False, not texts"),
        (np.ones(N, object), "must be True and False, not object values"),
        (np.ones(N, complex), "must be True and False, not complex"),
        (np.ones(N - 1), r"has shape \(599,\), expected \(600,\) or \(2, 600\)"),
        (np.ones((3, N)), r"has shape \(3, 600\)"),
        (True, r"has shape \(\)"),
    ],
)
def test_impossible_masks(given, message):
    with pytest.raises(ConfigError, match=f"^mask: {message}"):
        arguments.mask(given, 2, N)


def test_targets_of_every_kind():
    for one in (1, 1.0, np.int8(1), "N", np.str_("N"), np.array(1), np.array(1.0), np.array("N")):
        assert arguments.targets(one, 3, CLASSES).tolist() == [1, 1, 1]
    for one in tensors(1):
        assert arguments.targets(one, 3, CLASSES).tolist() == [1, 1, 1]
        assert arguments.targets([one, 2, one], 3, CLASSES).tolist() == [1, 2, 1]
    for several in ([0, 3], (0.0, 3.0), np.array([0, 3]), np.array(["A", "noise"]), ["A", "~"],
                    np.array(["A", 3], object), *tensors([0, 3])):  # fmt: skip
        assert arguments.targets(several, 2, CLASSES).tolist() == [0, 3]
    for word in ("untargeted", "any", np.array("any")):
        assert arguments.targets(word, 1, CLASSES).tolist() == [UNTARGETED]
    assert arguments.targets([], 0, CLASSES).shape == (0,)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (4, "target=4: class indices go from 0 to 3"),
        (-1, "class indices go from 0 to 3"),
        (1.5, "class indices go from 0 to 3"),
        (np.array(1.5), "class indices go from 0 to 3"),
        (float("nan"), "class indices go from 0 to 3"),
        (None, "class indices go from 0 to 3"),
        (True, "class indices go from 0 to 3"),
        ([True, False], "class indices go from 0 to 3"),
        (b"N", "class indices go from 0 to 3"),
        ([1, None], "class indices go from 0 to 3"),
        ("AF", "target=AF: unknown class, choose from A, N, O, ~"),
        ("1", "target=1: unknown class"),
        ("", "target=: unknown class"),
        ([1, 2, 3], "target: 3 given for 2 cases"),
        ([1], "target: 1 given for 2 cases"),
        (np.eye(2, 4), r"target: holds array\(.*; give one for all, or one a case"),
        ([[1], [2]], r"target: holds \[1\]; give one"),
        ([[1], [2, 3]], r"target: holds \[1\]"),
        ({1, 2}, "target: a set; give one for all, or one a case"),
        ({"A": 1}, "target: a dict; give one for all"),
    ],
)
def test_impossible_targets(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        arguments.targets(given, 2, CLASSES)
    assert "\n" not in str(caught.value)
