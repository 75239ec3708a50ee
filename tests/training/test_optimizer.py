"""What an optimizer step does to the weights, by hand: Nesterov's momentum, the L2 penalty, the schedule's learning rate."""

import pytest
import torch
from toys import toy_config

from rlmix.mixing.vanilla import Vanilla
from rlmix.training.trainer import Training


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 0.01), (0.9, 0.0), (0.5, 0.1)])
def test_steps_are_those_of_nesterovs_momentum_with_an_l2_penalty(tmp_path, momentum, weight_decay):
    """``v = m v + g + d w``, ``w = w - lr (g + d w + m v)`` in float64 (Sutskever et al. 2013, as torch has it), for every parameter."""
    config = toy_config(tmp_path, 8, num_train=24, num_classes=3, batch_size=4, momentum=momentum, weight_decay=weight_decay)
    training = Training(config)
    weights = [parameter.detach().double() for parameter in training.model.parameters()]
    velocities = [torch.zeros_like(weight) for weight in weights]
    for _ in range(4):
        rate = training.learning_rate
        before = [parameter.detach().clone() for parameter in training.model.parameters()]
        training.fit_step(Vanilla())
        for index, parameter in enumerate(training.model.parameters()):
            slope = parameter.grad.double() + weight_decay * weights[index]
            velocities[index] = momentum * velocities[index] + slope
            weights[index] = weights[index] - rate * (slope + momentum * velocities[index])
            assert not torch.equal(parameter, before[index])
            torch.testing.assert_close(parameter.detach().double(), weights[index], rtol=1e-4, atol=1e-6)
