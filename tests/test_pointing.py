"GraSS's rule is asked of another method's weights as they are."

import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))
import pointing  # noqa: E402
from controls import ARMS, OBJECT_VIEWS  # noqa: E402

from rsssl_nb.encoders import Encoder  # noqa: E402
from rsssl_nb.methods.grass import GraSS  # noqa: E402
from rsssl_nb.methods.simclr import SimCLR  # noqa: E402


def test_the_rule_gets_the_weights_and_the_views_of_the_network():
    method = SimCLR(Encoder(bands=3, width=4))
    method.view_plans = (OBJECT_VIEWS, OBJECT_VIEWS)
    for sign, name in pointing.SIGNS.items():
        arm = next(a for a in ARMS if (a.world, a.name) == ("object", name))
        made = pointing.asked_by(arm, method)
        assert isinstance(made, GraSS) and made.crop.sign == sign and made.training
        assert made.view_plans == method.view_plans
        assert all(torch.equal(made.state_dict()[k], v) for k, v in method.state_dict().items())
