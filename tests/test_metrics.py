"""Every registered metric against a dense matrix built entry by entry, in float64."""

import numpy as np
import pytest
from helpers import REPO

from ecgadv.errors import ConfigError
from ecgadv.evaluate.distances import sizes
from ecgadv.threat import metrics
from ecgadv.threat.metrics import METRICS, Diff, Quadratic

SIZES = (2, 5, 64)
RIDGES = (0.0, 1e-4)
WEIGHTS = {"l2": (0.0, 1.0), "diff": (1.0, 0.0), "diffl2": (1.0, 0.01)}
"""Weights of d_smooth and d_l2 as the paper gives them."""


def variance_form(n: int) -> np.ndarray:
    """10⁴·Var(e) of the n + 1 numbers e, entry by entry from the definition."""
    rows = []
    for j in range(n):
        unit = np.zeros(n)
        unit[j] = 1.0
        rows.append(increments(unit))
    E = np.array(rows).T  # e = E δ
    centre = np.eye(n + 1) - np.full((n + 1, n + 1), 1.0 / (n + 1))
    Q = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            Q[i, j] = 1e4 * (E[:, i] @ centre @ E[:, j]) / (n + 1)
    return Q


def increments(delta: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], delta[1:] - delta[:-1], [-delta[-1]]])


def dense(metric: Quadratic, n: int, ridge: float = 0.0) -> np.ndarray:
    """Q + ridge·I of any quadratic form, by polarisation: 2·eᵢᵀQeⱼ = d(eᵢ + eⱼ) − d(eᵢ) − d(eⱼ)."""
    unit = np.eye(n)
    own = metric.value(unit)
    pairs = metric.value((unit[:, None] + unit[None]).reshape(-1, n)).reshape(n, n)
    return (pairs - own[:, None] - own[None]) / 2 + ridge * unit


@pytest.fixture(params=sorted(METRICS))
def metric(request: pytest.FixtureRequest) -> Quadratic:
    return metrics.get(request.param)


@pytest.fixture
def delta() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(3, 64))


def test_every_metric_of_the_command_line_is_registered_and_says_how_it_is_called():
    assert set(METRICS) == {file.stem for file in (REPO / "conf" / "metric").glob("*.yaml")}
    made = [metrics.get(name) for name in METRICS]
    assert [metric.name for metric in made] == list(METRICS)
    assert len({metric.column for metric in made}) == len({m.label for m in made}) == len(made)
    assert all(metric.help for metric in made)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", sorted(WEIGHTS))
def test_the_papers_metrics_are_the_forms_of_their_definition(name, n):
    smooth, energy = WEIGHTS[name]
    expected = smooth * variance_form(n) + energy * np.eye(n)
    np.testing.assert_allclose(
        dense(metrics.get(name), n), expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max()
    )


def test_another_weight_is_another_distance():
    usual, other = metrics.DiffL2(), metrics.DiffL2(k=0.1)
    assert (usual.column, usual.label) == ("d_smooth_l2", "d_smooth + 0.01 d_l2")
    assert (other.column, other.label) == ("d_smooth_0.1_l2", "d_smooth + 0.1 d_l2")
    assert other.over(2).column == other.column


def test_the_definitions_of_the_paper(delta):
    by_hand = [1e4 * np.var(increments(row)) for row in delta]
    np.testing.assert_allclose(metrics.d_smooth(delta), by_hand, rtol=1e-12)
    np.testing.assert_allclose(metrics.get("diff").value(delta), by_hand, rtol=1e-12)
    energy = (delta**2).sum(1)
    np.testing.assert_allclose(metrics.get("l2").value(delta), energy, rtol=1e-12)
    np.testing.assert_allclose(
        metrics.get("diffl2").value(delta), np.array(by_hand) + 0.01 * energy, rtol=1e-12
    )


@pytest.mark.parametrize("n", SIZES)
def test_value_and_product_agree_with_the_dense_form(metric, n):
    d = np.random.default_rng(n).normal(size=(4, n))
    Q = dense(metric, n)
    np.testing.assert_allclose(metric.value(d), np.einsum("bi,ij,bj->b", d, Q, d), rtol=1e-10)
    np.testing.assert_allclose(metric.apply(d), d @ Q, rtol=1e-10, atol=1e-9 * np.abs(Q).max())


def test_gradient_agrees_with_finite_differences(metric, delta):
    step = 1e-5
    estimate = np.zeros_like(delta)
    for i in range(delta.shape[1]):
        e = np.zeros(delta.shape[1])
        e[i] = step
        estimate[:, i] = (metric.value(delta + e) - metric.value(delta - e)) / (2 * step)
    scale = np.abs(estimate).max()
    np.testing.assert_allclose(metric.gradient(delta), estimate, atol=1e-7 * scale)


@pytest.mark.parametrize("ridge", RIDGES)
@pytest.mark.parametrize("n", SIZES)
def test_solve_and_whitening_agree_with_the_dense_form(metric, n, ridge):
    g = np.random.default_rng(n).normal(size=(3, n))
    Q = dense(metric, n, ridge)
    factor = metric.factor(n, ridge=ridge)
    expected = np.linalg.solve(Q, g.T).T
    np.testing.assert_allclose(
        metric.solve(factor, g), expected, rtol=1e-7, atol=1e-8 * np.abs(expected).max()
    )
    u = metric.whiten(factor, g)
    np.testing.assert_allclose((u**2).sum(1), np.einsum("bi,ij,bj->b", g, Q, g), rtol=1e-9)
    np.testing.assert_allclose(metric.unwhiten(factor, u), g, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("ridge", RIDGES)
def test_whitening_is_the_transposed_cholesky_factor(metric, ridge):
    n = 64
    upper = np.linalg.cholesky(dense(metric, n, ridge)).T
    R = metric.whiten(metric.factor(n, ridge=ridge), np.eye(n)).T
    np.testing.assert_allclose(R, upper, rtol=1e-8, atol=1e-9 * np.abs(upper).max())


@pytest.mark.parametrize("n", SIZES)
def test_the_closed_factor_of_diff(n):
    i = np.arange(n)
    factor = Diff().factor(n, ridge=0.0)
    closed = 1e4 / (n + 1) * (n - i) / (n + 1 - i)
    np.testing.assert_allclose(factor.diagonal[0], closed, rtol=1e-11)
    lower = np.linalg.cholesky(variance_form(n))
    np.testing.assert_allclose(np.diag(lower) ** 2, closed, rtol=1e-9)
    below = np.diag(lower, -1) / np.diag(lower)[:-1]
    np.testing.assert_allclose(below, -(n + 1 - i[:-1]) / (n - i[:-1]), rtol=1e-9)


@pytest.mark.parametrize("ridge", RIDGES)
@pytest.mark.parametrize("length", [1, 2, 31, 63, 64])
def test_a_short_record_has_the_leading_block(metric, length, ridge):
    n = 64
    Q = dense(metric, n, ridge)[:length, :length]
    g = np.random.default_rng(length).normal(size=(1, n))
    mask = np.arange(n)[None] < length
    for factor in (
        metric.factor(n, mask, ridge=ridge),
        # Top-down, so the factor of the whole record serves the short one.
        metric.factor(n, ridge=ridge)._replace(free=mask.astype(float)),
    ):
        got = metric.solve(factor, g)
        expected = np.linalg.solve(Q, g[0, :length])
        np.testing.assert_allclose(
            got[0, :length], expected, rtol=1e-7, atol=1e-8 * np.abs(expected).max()
        )
        assert not got[0, length:].any()
        short = g * mask
        u = metric.whiten(factor, short)
        upper = np.linalg.cholesky(Q).T
        np.testing.assert_allclose(u[0, :length], upper @ g[0, :length], rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(metric.unwhiten(factor, u), short, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("ridge", RIDGES)
def test_masks_with_holes(metric, ridge):
    n = 40
    rng = np.random.default_rng(5)
    mask = rng.random((4, n)) < 0.7
    mask[0] = False
    mask[0, [0, n - 1]] = True
    g = rng.normal(size=(4, n))
    Q = dense(metric, n, ridge)
    factor = metric.factor(n, mask, ridge=ridge)
    got = metric.solve(factor, g)
    whitened = metric.whiten(factor, g * mask)
    np.testing.assert_allclose(metric.unwhiten(factor, whitened), g * mask, rtol=1e-7, atol=1e-9)
    for row, free in enumerate(mask):
        block = Q[np.ix_(free, free)]
        expected = np.linalg.solve(block, g[row, free])
        np.testing.assert_allclose(
            got[row, free], expected, rtol=1e-7, atol=1e-8 * np.abs(expected).max()
        )
        assert not got[row, ~free].any()
        energy = g[row, free] @ block @ g[row, free]
        assert (whitened[row] ** 2).sum() == pytest.approx(energy, rel=1e-9)


def test_tensors_agree_with_arrays(metric):
    from ecgadv import backend
    from ecgadv.threat.metrics import Factor

    n = 9000
    d = np.cumsum(np.random.default_rng(0).normal(size=(2, n)), axis=1) / 30
    factor = metric.factor(n)
    on_device = Factor(*(backend.tensor(part, "float32") for part in factor))
    tensor = backend.tensor(d, "float32")
    value = backend.to_numpy(metric.value(tensor))
    np.testing.assert_allclose(value, metric.value(d), rtol=1e-4)
    gradient = backend.to_numpy(metric.gradient(tensor))
    expected = metric.gradient(d)
    np.testing.assert_allclose(gradient, expected, atol=1e-4 * np.abs(expected).max())
    solved = backend.to_numpy(metric.solve(on_device, tensor))
    expected = metric.solve(factor, d)
    np.testing.assert_allclose(solved, expected, atol=2e-3 * np.abs(expected).max())


def test_a_whole_record_is_solved_to_the_last_digits(metric):
    n = 9000
    g = np.random.default_rng(1).normal(size=(1, n))
    factor = metric.factor(n)
    solved = metric.solve(factor, g)
    back = metric.apply(solved) + metric.ridge * solved
    np.testing.assert_allclose(back, g, atol=1e-6)


def test_leads_add_up(metric, delta):
    both = np.stack([delta, 2 * delta], axis=-1)
    np.testing.assert_allclose(metric.value(both), 5 * metric.value(delta), rtol=1e-12)


def test_zero_costs_nothing_and_anything_else_something(metric):
    assert metric.value(np.zeros((1, 64)))[0] == 0
    assert metric.value(np.ones((1, 64)))[0] > 0


def test_columns_of_distances(delta):
    x = np.random.default_rng(0).normal(size=delta.shape)
    lengths = np.array([64, 64, 40])
    delta = delta.copy()
    delta[2, 40:] = 0
    columns = sizes(delta, x, lengths)
    energy = (delta**2).sum(1)
    signal = np.array([(x[i, :k] ** 2).sum() for i, k in enumerate(lengths)])
    smooth = np.array([1e4 * np.var(increments(row)) for row in delta])
    expected = {
        "d_l2": energy,
        "d_smooth": smooth,
        "d_smooth_l2": smooth + 0.01 * energy,
        "l2_norm": np.sqrt(energy),
        "linf": np.abs(delta).max(1),
        "snr_db": 10 * np.log10(signal / energy),
        "prd_percent": 100 * np.sqrt(energy / signal),
    }
    assert set(columns) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(columns[name], values, rtol=1e-10, err_msg=name)


@pytest.mark.parametrize("weights", [(-1, 1, 0), (0, 0, 0), (1, 0, -1)])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(ConfigError, match="weights must not be negative"):
        Quadratic("odd", *weights)


def test_an_unknown_metric_is_refused():
    with pytest.raises(ConfigError, match="metric=l3: unknown; there are l2, diff, diffl2"):
        metrics.get("l3")
