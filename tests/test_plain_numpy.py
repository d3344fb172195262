"""Where there is no Numba, the readable twins compute; one warning says so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import minisam
from minisam import SAM, BatchLoss, Momentum, cnn

HERE = Path(__file__).parent
SCRIPT = """
import json, sys, minisam, test_plain_numpy, minisam.training.environment as about
minisam.kernels.set_winograd(False)
assert "numba" not in sys.modules and about.environment()["numba"] == "none"
print(json.dumps(test_plain_numpy.trained()))
"""


def trained():
    """The weights of a CNN after three steps of SAM."""
    net, rng = cnn(input_shape=(8, 8, 3), n_classes=4), np.random.default_rng(0)
    theta, sam = net.init(rng, np.float64), SAM(Momentum(lr=0.05), rho=0.1)
    for _ in range(3):
        sam.step(theta, BatchLoss(net, rng.standard_normal((6, 8, 8, 3)), rng.integers(0, 4, 6)))
    return theta.tolist()


def test_without_numba_the_same_is_computed_in_plain_numpy():
    path = [HERE / "without_numba", HERE, Path(minisam.__file__).parents[1]]
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(json.loads(result.stdout), trained(), rtol=1e-9, atol=1e-12)
    assert result.stderr.count("Warning") == 1
    assert "without Numba (Numba is hidden) minisam computes in plain NumPy, slowly and in one thread" in result.stderr
