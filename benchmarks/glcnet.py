"""GLCNet's matched windows: closed form on the affines against the released search in index images
(methods.md 2.4).
"""

import sys

import numpy as np
import torch
from measure import Sides, growth, main, question

from rsssl_nb.methods.base import At
from rsssl_nb.methods.glcnet import draw_centres
from rsssl_nb.views.geometry import sample, transform_points
from rsssl_nb.views.pairs import Plan, two_views


def index_images(pair):
    "Every view's index image (B, S, S): which source pixel each of its pixels shows."
    h, w = pair.source
    ids = (
        torch.arange(h * w, dtype=torch.float64, device=pair.where_a.device)
        .view(1, 1, h, w)
        .expand(len(pair), -1, -1, -1)
    )
    return [
        sample(ids, where, pair.size, "nearest")[:, 0].long().cpu().numpy()
        for where in (pair.where_a, pair.where_b)
    ]


def search(pair, n, window):
    """Centres (B, n, 2) in both views, whole pixels: ids that both inner squares show, one drawn, looked up
    in both, its neighbourhood left out. As fast as numpy does it.
    """
    rng, m, found = np.random.default_rng(0), window // 2, []
    for one, two in zip(*index_images(pair)):
        common = np.zeros((2, pair.source[0] * pair.source[1]), bool)
        for row, ids in zip(common, (one, two)):
            row[ids[m:-m, m:-m]] = True
        common = common.all(0)
        for _ in range(n):
            a = rng.choice(np.flatnonzero(common))
            places = [
                np.divmod((ids[m:-m, m:-m] == a).argmax(), ids.shape[1] - 2 * m)[::-1] + np.array(m)
                for ids in (one, two)
            ]
            (x, y), rest = places[0], common.copy()
            rest[one[y - m : y + m, x - m : x + m]] = False
            common = rest if rest.sum() > 1 else common
            found.append(places)
    return torch.tensor(np.array(found)).view(len(pair), n, 2, 2).unbind(2)


def pairs(n, size, device):
    return two_views(
        torch.zeros(n, 1, size + size // 7, size + size // 7, device=device),
        size,
        Plan(scale=(0.4, 1.0), colour=None),
    )


def gap(pair, a, b):
    "How far matched points lie apart on the ground, source pixels."
    return (transform_points(pair.where_a, a) - transform_points(pair.where_b, b)).abs().amax(-1)


@question("GLCNet window matching, 256 pairs x 4 windows: search in index images", ">= 100")
def matching(at):
    n, size, window = at.pick((256, 224, 48), (3, 56, 12))
    pair = pairs(n, size, at.device)
    ours, loop = lambda: draw_centres(pair, 4, window, "official"), lambda: search(pair, 4, window)
    (a, b, valid), (pa, pb) = ours(), [p.to(at.device) + 0.5 for p in loop()]
    assert valid.all() and gap(pair, a, b).max() < 1e-2 and gap(pair, pa, pb).max() < 1.6
    return Sides(
        ours,
        loop,
        f"{n} pairs; ours match to {gap(pair, a, b).max():.1g} source pixels, index images to "
        f"{gap(pair, pa, pb).max():.2f}",
    )


@question("growth: GLCNet window matching, pairs", "<= 1.15")
def many(at):
    return growth(
        lambda n: (
            lambda pair=pairs(n, at.pick(224, 56), at.device): draw_centres(pair, 4, at.pick(48, 12), at=At())
        ),
        at.pick([512, 1024, 2048, 4096], [2, 4]),
        1,
        at,
    )


if __name__ == "__main__":
    sys.exit(main())
