"""What is measured."""

from workload import MODELS, Case

SGEMM, COPIES = Case("sgemm"), [Case("copy", n=n) for n in (10**5, 10**7)]

BATCHES = (32, 64, 128)
STEPS = [Case("step", m, "sam", n, alone=alone) for alone in (False, True) for m in MODELS for n in BATCHES]
BUSY = [Case("step", m, "sam", 64, busy=True) for m in MODELS]
WIDE = [Case("step", m, "sam", 64, width=width) for m in ("cnn-bn", "resnet8") for width in (2, 4)]
PLAIN = [Case("step", m, "momentum", n) for m in MODELS for n in (32, 128)]
PREDICTIONS = [Case("predict", m, n=2000) for m in MODELS]
EPOCH = Case("epoch", n=4000)

PASSES = ("forward", "input gradient", "weight gradient")
LAYERS = [  # C_in, C_out, side, size of the kernel, stride
    *((3, 16, 32, 3, 1), (3, 32, 32, 3, 1), (16, 16, 32, 3, 1), (16, 32, 32, 3, 1), (16, 32, 32, 3, 2)),
    *((32, 32, 32, 3, 1), (32, 64, 16, 3, 1), (32, 64, 16, 3, 2), (64, 64, 8, 3, 1)),
    *((16, 32, 32, 1, 2), (32, 32, 32, 1, 1), (3, 32, 32, 5, 1), (32, 32, 32, 5, 1)),
]
CONVOLUTIONS = [
    Case("conv", what, n=128, shape=(c_in, c_out, side), size=size, stride=stride)
    for c_in, c_out, side, size, stride in LAYERS
    for what in PASSES
]
ALSO_NUMPY_ML = [Case("conv", what, n=16, shape=(3, 32, 32)) for what in ("forward", "both gradients")]
UPDATES = [Case("update", what, n=n) for what in ("GD", "Momentum", "Adam") for n in (10**5, 10**7)]

CASES = [SGEMM, *COPIES, *STEPS, *BUSY, *WIDE, *PLAIN, *PREDICTIONS, EPOCH, *CONVOLUTIONS, *ALSO_NUMPY_ML, *UPDATES]
COLD = "first SAM step of a new process, reference CNN, batch 32"
MEMORY = "peak memory, SAM steps, reference CNN, batch 128"
SYSTEMS = {
    "ours": "minisam",
    "pytorch": "PyTorch",
    "inductor": "torch.compile",
    "xla": "JAX",
    "numpyml": "numpy-ml",
    "machine": "machine",
}
