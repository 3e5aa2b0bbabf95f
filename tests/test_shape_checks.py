"""The shapes in signatures are more than comments while tests run."""

import pytest
import torch
from jaxtyping import TypeCheckError

from tokenizer.losses.terms import hinge_discriminator_loss


def test_a_wrong_shape_is_caught():
    real = torch.zeros(2, 1, 3, 3)
    assert hinge_discriminator_loss(real, real) == 1
    with pytest.raises(TypeCheckError, match="fake_logits"):
        hinge_discriminator_loss(real, torch.zeros(2, 1, 4, 4))
