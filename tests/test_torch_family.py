"""SAM's family, BatchNorm and Residual in PyTorch: after 50 steps the weights are the same.

Each member is written once more here, following its paper's algorithm, with gradients from
torch.autograd and the update from torch's own SGD. BatchNorm's running statistics, which only the
pass at θ may change, are compared too. Run with `-s` to see the largest differences.
"""

from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pytest
from torch_twin import NETS, Twin, one_torch_thread, problem, torch

from minisam.nn import BatchLoss, BatchNorm
from minisam.optim import GSAM, SAM, Adaptive, ExactSAM, Friendly, LookSAM, MicroBatched, Momentum

STEPS = 50
BASE = {"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-3}
RHO = 0.2
ASCENTS = 2
MICRO = 10  # examples of a micro-batch: a batch of 16 makes 10 + 6
ASAM_RHO, ETA = 1.0, 0.05
GSAM_ALPHA = 0.6
SIGMA, LAMBDA = 0.9, 0.7
LOOK_K, LOOK_ALPHA = 4, 0.8


# --- the papers' algorithms: from a batch to the gradient that the base optimizer follows -----------


@dataclass
class Batch:
    """The loss L of a torch network on one batch, and what an algorithm remembers between batches."""

    twin: Twin
    x: np.ndarray
    y: np.ndarray
    step: int
    memory: dict
    w: torch.Tensor = field(init=False)

    def __post_init__(self):
        self.w = self.twin.w

    def gradient(self, epsilon=None):
        """∇L(θ), or ∇L(θ + ε) with BatchNorm's running statistics left alone."""
        for norm in self.twin.norms:
            norm.track_running_stats = epsilon is None
        self.twin.w = self.w if epsilon is None else self.w + epsilon
        g = torch.autograd.grad(self.twin.loss(self.x, self.y), self.twin.parameters)
        self.twin.w = self.w
        return torch.cat([one.flatten() for one in g])

    def loss(self, w):
        """L(θ) as a function of one vector that torch can differentiate twice; it changes no statistics."""
        for norm in self.twin.norms:
            norm.track_running_stats = False
        module = self.twin.module
        parts = w.split([p.numel() for p in module.parameters()])
        values = {name: part.view_as(p) for (name, p), part in zip(module.named_parameters(), parts, strict=True)}
        return self.twin.loss(self.x, self.y, lambda x: torch.func.functional_call(module, values, (x,)))


def unit(v):
    return v / v.norm()


def momentum(batch):
    """No ascent: the base optimizer alone."""
    return batch.gradient()


def sam(batch):
    """Foret et al. 2021, algorithm 1."""
    return batch.gradient(RHO * unit(batch.gradient()))


def sam_of_several_ascents(batch):
    """K steps of length ρ / K, each along the gradient at its start."""
    g, epsilon = batch.gradient(), 0
    for _ in range(ASCENTS):
        epsilon = epsilon + RHO / ASCENTS * unit(g)
        g = batch.gradient(epsilon)
    return g


def m_sam(batch):
    """Foret et al. 2021, section 4.1: the mean over micro-batches, of their running statistics too."""
    before, after, g = batch.twin.stats, 0, 0
    for i in range(0, len(batch.y), MICRO):
        part = replace(batch, x=batch.x[i : i + MICRO], y=batch.y[i : i + MICRO])
        share = len(part.y) / len(batch.y)
        batch.twin.stats = before
        g = g + share * sam(part)
        after = after + share * batch.twin.stats
    batch.twin.stats = after
    return g


def asam(batch):
    """Kwon et al. 2021, algorithm 1."""
    T = batch.w.abs() + ETA
    g = batch.gradient()
    return batch.gradient(ASAM_RHO * T**2 * g / (T * g).norm())


def gsam(batch):
    """Zhuang et al. 2022, algorithm 1."""
    g = batch.gradient()
    g_p = batch.gradient(RHO * unit(g))
    parallel = (g @ unit(g_p)) * unit(g_p)
    return g_p - GSAM_ALPHA * (g - parallel)


def exact_sam(batch):
    """The gradient of L(θ + ε̂(θ)), through ε̂ as well."""
    batch.gradient()  # for its running statistics
    w = batch.w.clone().requires_grad_()
    (g,) = torch.autograd.grad(batch.loss(w), w, create_graph=True)
    return torch.autograd.grad(batch.loss(w + RHO * unit(g)), w)[0]


def friendly_sam(batch):
    """Li et al. 2024, algorithm 1."""
    g = batch.gradient()
    m = batch.memory["m"] = LAMBDA * batch.memory.get("m", 0) + (1 - LAMBDA) * g
    return batch.gradient(RHO * unit(g - SIGMA * m))


def look_sam(batch):
    """Liu et al. 2022, algorithm 1."""
    g = batch.gradient()
    if batch.step % LOOK_K == 0:
        g_s = batch.gradient(RHO * unit(g))
        cosine = g @ g_s / (g.norm() * g_s.norm())
        batch.memory["g_v"] = g_s - g_s.norm() * cosine * unit(g)
        return g_s
    g_v = batch.memory["g_v"]
    return g + LOOK_ALPHA * g.norm() / g_v.norm() * g_v


MEMBERS = {
    "Momentum": (lambda base: base, momentum),
    "SAM": (lambda base: SAM(base, RHO), sam),
    "SAM, 2 ascents": (lambda base: SAM(base, RHO, ascent_steps=ASCENTS), sam_of_several_ascents),
    "m-SAM": (lambda base: MicroBatched(SAM(base, RHO), MICRO), m_sam),
    "ASAM": (lambda base: SAM(base, ASAM_RHO, Adaptive(ETA)), asam),
    "GSAM": (lambda base: GSAM(base, RHO, alpha=GSAM_ALPHA), gsam),
    "exact SAM": (lambda base: ExactSAM(base, RHO), exact_sam),
    "Friendly SAM": (lambda base: SAM(base, RHO, Friendly(SIGMA, LAMBDA)), friendly_sam),
    "LookSAM": (lambda base: LookSAM(base, RHO, k=LOOK_K, alpha=LOOK_ALPHA), look_sam),
}


# --- the comparison -------------------------------------------------------------------------------


@one_torch_thread()
def train_torch(member, name, dtype):
    """theta and BatchNorm's running statistics after 50 steps, and the evaluation loss with these."""
    net, theta, batches = problem(name, dtype, STEPS)
    (_, algorithm), twin, memory = MEMBERS[member], Twin(net, theta), {}
    optimizer = torch.optim.SGD(twin.parameters, **BASE)
    for step, (x, y) in enumerate(batches):
        twin.follow(algorithm(Batch(twin, x, y, step, memory)), optimizer)
    twin.module.eval()
    return twin.theta, twin.stats.numpy(), float(twin.loss(*batches[0]).detach())


@cache
def train(member, name, dtype):
    """The same for minisam, and the losses on the way."""
    net, theta, batches = problem(name, dtype, STEPS)
    theta, stats = theta.copy(), net.init_stats(dtype)
    optimizer, losses = MEMBERS[member][0](Momentum(**BASE)), []
    for x, y in batches:
        at_theta = optimizer.step(theta, BatchLoss(net, x, y))
        stats += BatchNorm.MOMENTUM * (at_theta.stats - stats)
        losses.append(at_theta.loss)
    return theta, stats, BatchLoss(net, *batches[0], stats=stats)(theta).loss, losses


def difference(member, name, dtype):
    """The largest relative difference: in theta and the statistics, per distance travelled, and in the loss."""
    net, start, _ = problem(name, dtype, STEPS)
    theta, stats, loss, losses = train(member, name, dtype)
    expected, expected_stats, expected_loss = train_torch(member, name, dtype)
    travelled = float(np.linalg.norm(expected - start))
    stats_travelled = float(np.linalg.norm(expected_stats - net.init_stats(dtype)))
    in_theta = float(np.abs(theta - expected).max())
    in_stats = float(np.abs(stats - expected_stats).max(initial=0))
    print(
        f"\n{name:6} {member:14} {np.dtype(dtype).name}: largest difference {in_theta:.1e}, in statistics "
        f"{in_stats:.1e}, distance travelled {travelled:.2f}, loss {losses[0]:.2f} → {np.mean(losses[-5:]):.2f}",
        end="",
    )
    assert travelled > 1  # far enough for a mistake to show
    assert stats_travelled > 1 or not len(stats)
    return np.max([in_theta / travelled, in_stats / (stats_travelled or 1), abs(loss / expected_loss - 1)])


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("name", NETS)
def test_50_steps_agree_with_the_papers_algorithm(name, member):
    assert difference(member, name, np.float64) < 1e-10


@pytest.mark.parametrize("name", NETS)
def test_50_steps_agree_in_float32_unless_a_kink_parts_them(name):
    """An input of ReLU that is 0 up to rounding may count as positive here and as negative there.

    From 42 random starts, one run in 30 of the residual network met such a kink and ended up to 4e-3
    away, since BatchNorm hands the difference on to the whole batch. All others agreed to 1e-6.
    """
    differences = [difference(member, name, np.float32) for member in MEMBERS]
    assert np.median(differences) < 1e-5
    assert max(differences) < 0.03


@pytest.mark.parametrize("name", NETS)
def test_the_members_differ_from_each_other_by_far_more_than_that(name):
    ends = [train(member, name, np.float64)[0] for member in MEMBERS]
    for i, one in enumerate(ends):
        for other in ends[:i]:
            assert np.abs(one - other).max() > 0.01
