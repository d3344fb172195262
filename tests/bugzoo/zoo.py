"""The bug zoo: wrong implementations of SAM, most of them met in real projects.

Each animal is SAM but for one mistake, which a comment marks, and each of them trains: the loss
goes down, the curve looks fine. So nobody notices, until a property demands the paper's promise.
`EXHIBITS` puts every animal beside the right one and a property that distinguishes them.
Throughout, θ is where the step starts, g = ∇L(θ) and ε̂ = ρ g / ‖g‖₂.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import properties

from minisam.kernels import norm
from minisam.nn import BatchLoss, BatchNorm
from minisam.objective import Penalised
from minisam.optim import SAM, Adaptive, MicroBatched


def length(g):
    """‖g‖₂, or 1 if that is 0: g / length(g) is always finite."""
    return norm(g) or 1.0


# --- the perturbation -----------------------------------------------------------------------------


class NormPerTensor(SAM):
    """Every weight matrix and every bias gets its own ball.

    ε̂ is √k ρ long for k tensors, so rho means something different for every network, and ε̂ no longer
    points along g: a bias with next to no gradient climbs as far as the largest matrix.

    In the wild: an easy slip, since frameworks keep parameters tensor by tensor. Issue 13 of
    google-research/sam asks which of the two is meant.
    """

    def gradient(self, theta, objective):
        at_theta = objective(theta)
        epsilon = at_theta.grad.copy()
        for layer in objective.net.params(epsilon):
            for tensor in layer:
                tensor *= self.rho / length(tensor)  # MISTAKE: ‖g‖ is one number, over all tensors
        return at_theta, objective(theta + epsilon).grad


class SquaredNorm(SAM):
    """ε̂ = ρ g / ‖g‖².

    Its length is ρ / ‖g‖: less than ρ while ‖g‖ is above 1, and without bound near a minimum, out of
    which SAM is thrown.

    In the wild: printed in the paper itself, in appendix C.5; equation 2 has it right.
    """

    def gradient(self, theta, objective):
        at_theta = objective(theta)
        epsilon = self.rho * at_theta.grad / length(at_theta.grad) ** 2  # MISTAKE: a square too many
        return at_theta, objective(theta + epsilon).grad


class NormOfTheWeights(SAM):
    """ε̂ = ρ g / ‖θ‖.

    Its length is ρ ‖g‖ / ‖θ‖, which goes to 0 as training converges: SAM fades into its base.

    In the wild: a version of Jannoshh/simple-sam, which passes `trainable_variables` to
    `tf.linalg.global_norm` where `gradients` belongs.
    """

    def gradient(self, theta, objective):
        at_theta = objective(theta)
        epsilon = self.rho * at_theta.grad / length(theta)  # MISTAKE: it should be the gradient's norm
        return at_theta, objective(theta + epsilon).grad


class AdaptiveWithoutEta(SAM):
    """ASAM with T = |θ| instead of |θ| + η.

    A weight at 0 is not perturbed at all, and every bias starts at 0.

    In the wild: davda54/sam with adaptive=True. SamsungLabs/ASAM, by the paper's authors, has η.
    """

    def gradient(self, theta, objective):
        at_theta = objective(theta)
        T = np.abs(theta)  # MISTAKE: η is missing
        epsilon = self.rho * T**2 * at_theta.grad / length(T * at_theta.grad)
        return at_theta, objective(theta + epsilon).grad


class ZeroOverZero(SAM):
    """Nothing is done about a gradient of 0.

    0 / 0 is NaN, and one such step turns all weights into NaN. It is enough that a batch is
    fitted to the last bit, or that all of its labels are masked.

    In the wild: google-research/sam (`dual_vector`) and moskomule/sam.pytorch divide by the bare
    norm; pull request 1743 of google-deepmind/optax is about the same.
    """

    def gradient(self, theta, objective):
        at_theta = objective(theta)
        with np.errstate(invalid="ignore"):  # NumPy would warn; a GPU does not
            epsilon = self.rho * at_theta.grad / np.linalg.norm(at_theta.grad)  # MISTAKE: ε̂ must be 0 if g is
        return at_theta, objective(theta + epsilon).grad


# --- the second pass ------------------------------------------------------------------------------


class PerturbsTooLate(SAM):
    """The second forward pass runs before the weights are perturbed.

    Its gradient is the one at θ again, so this is the base optimizer at twice the price.

    In the wild: `sammodel.py` of lihachev9/CAPTCHA, where the tape is recorded before the weights
    are moved. davda54/sam's README warns of a similar slip: "make sure to do a full forward pass".
    """

    def gradient(self, theta, objective):
        at_theta = objective(theta)
        second = objective(theta)  # MISTAKE: belongs between the two lines that move theta
        before = theta.copy()
        theta += self.rho * at_theta.grad / length(at_theta.grad)
        theta[:] = before
        return at_theta, second.grad


class AnotherMask(SAM):
    """Dropout draws a new mask for the second pass.

    The two passes see two different networks: ε̂ climbs the loss of one, and the step
    follows the gradient of the other.

    In the wild: PyTorch loops that call `model(input)` twice in training mode, such as the one in
    davda54/sam's README: between the calls the random generator moves on.
    """

    def gradient(self, theta, objective):
        at_theta = objective(theta)
        worst = theta + self.rho * at_theta.grad / length(at_theta.grad)
        key = (*objective.key, 2)  # MISTAKE: another key, another mask
        return at_theta, BatchLoss(objective.net, objective.x, objective.y, key=key)(worst).grad


class SumOfMicroBatches(SAM):
    """m-SAM adds up the gradients of its micro-batches.

    With k micro-batches the learning rate is k times too large.

    In the wild: `keras.models.experimental.SharpnessAwareMinimization` of Keras 2, with
    `num_batch_splits`: `tf.reduce_sum` over gradients of mean losses.
    """

    def gradient(self, theta, objective):
        gradients = [SAM.gradient(self, theta, part)[1] for part in objective.split(2)]
        return objective(theta), np.sum(gradients, axis=0)  # MISTAKE: m-SAM takes their mean


# --- the update -----------------------------------------------------------------------------------


class MomentumOfBothGradients(SAM):
    """The base optimizer's moments are fed with ∇L(θ) as well as ∇L(θ + ε̂).

    Half of what momentum remembers is the gradient that SAM replaces; Adam also counts two steps.

    In the wild: an easy slip if the base optimizer's own step is used for the climb; not traced
    to a project.
    """

    def gradient(self, theta, objective):
        at_theta, g = super().gradient(theta, objective)
        self.base.update(theta.copy(), at_theta.grad)  # MISTAKE: the copy spares theta, but not the velocity
        return at_theta, g


class DecaysTwice(SAM):
    """Weight decay is in the loss of both passes, and in the base's update as well.

    The weights shrink about twice as fast as they should.

    In the wild: an easy slip where two conventions meet; not traced to a project. google-research/sam
    has it in the loss, davda54/sam leaves it to the base: either is right; the two together are wrong.
    """

    def gradient(self, theta, objective):
        l2 = self.base.weight_decay  # MISTAKE: base.update decays by it once more
        return super().gradient(theta, Penalised(objective, l2=l2))


# --- what is left behind --------------------------------------------------------------------------


class RestoresBySubtraction(SAM):
    """θ comes back as (θ + ε̂) - ε̂.

    That is θ up to rounding: the weights drift as ε̂ changes from step to step, even at a learning
    rate of 0, and a tiny rho does not give the base bit for bit.

    In the wild: the first versions of davda54/sam, which now keeps a copy of θ;
    moskomule/sam.pytorch and Keras 2.
    """

    def gradient(self, theta, objective):
        at_theta = objective(theta)
        epsilon = self.rho * at_theta.grad / length(at_theta.grad)
        worst = theta + epsilon
        g = objective(worst).grad
        theta[:] = worst - epsilon  # MISTAKE: floating-point subtraction does not undo addition
        return at_theta, g


class PerturbsInPlace(SAM):
    """theta itself is at θ + ε̂ while the second pass runs.

    Any code that reads theta then gets the wrong weights: a callback that evaluates or saves, or, after
    an exception in the second pass, the checkpoint that is saved on the way out.

    In the wild: all projects that move the weights in place without a `finally`, such as davda54/sam's
    `step(closure)` and Keras 2.
    """

    def gradient(self, theta, objective):
        at_theta = objective(theta)
        before = theta.copy()
        theta += self.rho * at_theta.grad / length(at_theta.grad)  # MISTAKE: θ + ε̂ should be a second vector
        g = objective(theta).grad
        theta[:] = before
        return at_theta, g


class LossAtWorst(SAM):
    """The step reports the loss and the accuracy at θ + ε̂.

    Training looks worse than it is, the more so the larger rho, and SAM's curve cannot be compared
    with its base's. (BatchNorm's statistics are then those at θ + ε̂, too.)

    In the wild: mosaicml/composer logged the loss of the second pass too; its pull request 1518
    corrected that.
    """

    def gradient(self, theta, objective):
        at_theta = objective(theta)
        at_worst = objective(theta + self.rho * at_theta.grad / length(at_theta.grad))
        return at_worst, at_worst.grad  # MISTAKE: it should report at_theta


def statistics_of_both_passes(sam, theta, stats, batch):
    """BatchNorm's running statistics are updated by every forward pass.

    Half of the activations that they average are at θ + ε̂, where the network is never used, and they
    forget twice as fast.

    In the wild: issue 17 of davda54/sam, and every loop around a framework's BatchNorm that is
    not told to leave its statistics alone in the second pass.
    """

    def objective(point):
        evaluation = batch(point)
        fold(stats, evaluation.stats)  # MISTAKE: called at θ + ε̂, too
        return evaluation

    return sam.step(theta, objective)


# --- the right ones, where they are not just SAM --------------------------------------------------


def fold(stats, of_batch):
    """Move running statistics towards those of a batch."""
    stats += BatchNorm.MOMENTUM * (of_batch - stats)


def train_step(sam, theta, stats, batch):
    """A step of minisam's training loop, which folds in the statistics at θ."""
    at_theta = sam.step(theta, batch)
    fold(stats, at_theta.stats)
    return at_theta


def asam(base, rho):
    return SAM(base, rho, ascent=Adaptive(eta=0.01))


def m_sam(base, rho):
    return MicroBatched(SAM(base, rho), m=2)


class Exhibit(NamedTuple):
    """An animal, the right one that it is mistaken for, and a property that distinguishes them."""

    animal: Callable
    right: Callable
    property: Callable


EXHIBITS = [
    Exhibit(NormPerTensor, SAM, properties.perturbation_has_length_rho),
    Exhibit(SquaredNorm, SAM, properties.perturbation_has_length_rho),
    Exhibit(NormOfTheWeights, SAM, properties.perturbation_has_length_rho),
    Exhibit(AdaptiveWithoutEta, asam, properties.zero_weights_are_perturbed),
    Exhibit(ZeroOverZero, SAM, properties.zero_gradient_is_survived),
    Exhibit(PerturbsTooLate, SAM, properties.gradient_is_that_at_the_perturbed_weights),
    Exhibit(AnotherMask, SAM, properties.both_passes_see_the_same_function),
    Exhibit(SumOfMicroBatches, m_sam, properties.micro_batches_are_averaged),
    Exhibit(MomentumOfBothGradients, SAM, properties.momentum_sees_one_gradient_a_step),
    Exhibit(DecaysTwice, SAM, properties.weights_decay_once),
    Exhibit(RestoresBySubtraction, SAM, properties.theta_is_restored_bit_for_bit),
    Exhibit(PerturbsInPlace, SAM, properties.theta_is_unchanged_whenever_training_stops),
    Exhibit(LossAtWorst, SAM, properties.loss_is_reported_at_theta),
    Exhibit(statistics_of_both_passes, train_step, properties.running_statistics_are_those_at_theta),
]
