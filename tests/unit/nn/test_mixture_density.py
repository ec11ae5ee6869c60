# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The mixture density head against torch.distributions, and what it can learn."""

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from anomalib_vmpfd.nn.mixture_density import MixtureDensityHead

pytestmark = pytest.mark.numeric


@pytest.fixture
def head() -> MixtureDensityHead:
    torch.manual_seed(0)
    return MixtureDensityHead(3, 5, num_components=4, beta=1.5, sigma_floor=0.01)


def test_nll_is_that_of_a_gaussian_mixture(head):
    x, y = torch.randn(2, 3, 6, 7), torch.randn(2, 5, 6, 7)
    mixture = head(x)
    mu, sigma = (m.permute(0, 3, 4, 1, 2) for m in (mixture.mu, mixture.sigma))
    oracle = MixtureSameFamily(
        Categorical(logits=mixture.log_pi.permute(0, 2, 3, 1)),
        Independent(Normal(mu, sigma), 1),
    )
    torch.testing.assert_close(head.nll(y, mixture), -oracle.log_prob(y.permute(0, 2, 3, 1)))


def test_parameters_follow_equations_2_and_3(head):
    x = torch.randn(1, 3, 1, 1)
    mixture = head(x)
    features = head.trunk(x)
    logits, raw = head.pi(features)[0, :, 0, 0], head.sigma(features)[0, :, 0, 0]
    weights = logits.exp() / logits.exp().sum()
    torch.testing.assert_close(mixture.log_pi.exp()[0, :, 0, 0], weights)
    expected = torch.log(1 + torch.exp(1.5 * raw)) + 0.01
    torch.testing.assert_close(mixture.sigma.flatten(), expected)


def test_full_covariance_is_a_density_with_the_shape_of_its_component():
    torch.manual_seed(0)
    head = MixtureDensityHead(2, 3, num_components=2, covariance="full")
    torch.nn.init.normal_(head.shape, std=0.5)
    mixture = head(torch.randn(1, 2, 1, 1))
    y = torch.randn(1, 3, 1, 1)
    log_densities = []
    for k in range(2):
        # residuals are decorrelated by the unit lower triangular factor, then divided by sigma
        factor = torch.eye(3) + torch.tril(head.shape[k], -1)
        precision_root = torch.diag(1 / mixture.sigma[0, k, :, 0, 0]) @ factor
        component = MultivariateNormal(mixture.mu[0, k, :, 0, 0], precision_matrix=precision_root.T @ precision_root)
        log_densities.append(mixture.log_pi[0, k, 0, 0] + component.log_prob(y[0, :, 0, 0]))
    expected = -torch.logsumexp(torch.stack(log_densities), 0)
    torch.testing.assert_close(head.nll(y, mixture).squeeze(), expected, rtol=1e-4, atol=1e-4)


def test_learns_a_conditional_distribution_with_two_modes():
    torch.manual_seed(0)
    head = MixtureDensityHead(1, 1, num_components=3, hidden=32)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    sigma = 0.2
    for _ in range(400):
        x = torch.rand(64, 1, 8, 1)
        y = x * torch.sign(torch.randn_like(x)) + sigma * torch.randn_like(x)
        loss = head.nll(y, head(x)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = torch.full((1, 1, 1, 1), 0.9)
    nll = {value: head.nll(torch.full_like(x, value), head(x)).item() for value in (-0.9, 0.0, 0.9)}
    mode = 0.5 * torch.tensor(2 * torch.pi * sigma**2).log().item() + 0.693  # half the mass in each mode
    assert nll[-0.9] == pytest.approx(mode, abs=0.35)
    assert nll[0.9] == pytest.approx(mode, abs=0.35)
    assert nll[0.0] > mode + 3


@pytest.mark.parametrize("value", [1e4, -1e4])
def test_stays_finite_far_from_everything_it_knows(head, value):
    nll = head.nll(torch.full((1, 5, 1, 1), value), head(torch.full((1, 3, 1, 1), value)))
    assert nll.isfinite().all()
    assert (nll > 1e3).all()


def test_unknown_covariance_names_the_choices():
    with pytest.raises(ValueError, match="'diagonal' or 'full'"):
        MixtureDensityHead(2, 2, covariance="spherical")
