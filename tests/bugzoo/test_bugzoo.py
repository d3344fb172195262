"""Every animal of the bug zoo is caught by its property, which the right implementation has."""

import numpy as np
import pytest
from properties import loss_goes_down
from zoo import EXHIBITS, fold

from minisam.data import synthetic
from minisam.nn import BatchLoss
from minisam.rng import Stream, keyed_rng
from minisam.training import Config, Prepared, network, train

every_exhibit = pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.animal.__name__)


@every_exhibit
def test_the_right_one_has_the_property(exhibit):
    exhibit.property(exhibit.right)


@every_exhibit
def test_the_property_catches_the_animal(exhibit, record_property):
    try:
        exhibit.property(exhibit.animal)
    except AssertionError:
        caught = "yes"
    else:
        caught = "NO"
    record_property("bug zoo", (exhibit.animal.__name__, exhibit.property.__name__, caught))
    assert caught == "yes"


def test_minisams_training_loop_keeps_the_statistics_at_theta():
    """One epoch of one batch: `train` does the same as `train_step` of the zoo."""
    config = Config(model="resnet8", optimizer="sam", rho=0.5, epochs=1, batch_size=32)
    data = Prepared.of(synthetic(n_train=32, n_test=10))
    net = network(config, data)
    theta, stats = net.init(keyed_rng(config.seed, Stream.INIT)), net.init_stats()
    fold(stats, BatchLoss(net, data.x_train, data.y_train)(theta).stats)
    np.testing.assert_allclose(train(config, data).stats, stats, rtol=1e-4, atol=1e-6)


OPTIMIZERS = [exhibit.animal for exhibit in EXHIBITS if isinstance(exhibit.animal, type)]


@pytest.mark.parametrize("animal", OPTIMIZERS, ids=lambda animal: animal.__name__)
def test_a_falling_loss_catches_no_animal(animal):
    loss_goes_down(animal)
