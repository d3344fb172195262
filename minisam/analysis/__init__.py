"""What a network has learnt, and whether its gradients are right."""

from minisam.analysis.gradcheck import gradcheck, hvpcheck, losscheck, numerical_gradient, relative_error
from minisam.analysis.toy import Bowl

__all__ = ["Bowl", "gradcheck", "hvpcheck", "losscheck", "numerical_gradient", "relative_error"]
