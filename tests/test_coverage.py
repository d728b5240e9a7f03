"Cells never lie about the windows they hold."

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_rasters import holed, noise

from rsssl_nb.data.coverage import box_sum, corner_boxes, has_enough_valid, summed_area_table


@settings(max_examples=40, deadline=None)
@given(
    st.integers(20, 90),
    st.integers(20, 90),
    st.integers(3, 60),
    st.integers(1, 9),
    st.floats(0, 0.8),
    st.integers(0, 99),
    st.floats(0, 1),
)
def test_cells_never_lie(height, width, size, cell, share, seed, keep):
    from rsssl_nb.data.coverage import Coverage, cell_counts
    from rsssl_nb.data.raster import open_array

    array = holed(height, width, seed, share)
    raster = open_array(array, nodata=0)
    cover = Coverage(raster, cell, summed_area_table(cell_counts(raster, cell)))
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, max(1, width - size + 1), 50), rng.integers(0, max(1, height - size + 1), 50)
    true = np.array([(array[0, b : b + size, a : a + size] > 0).sum() for a, b in zip(x, y)])
    least, most = cover.bounds(x, y, x + size, y + size)
    assert (least <= true).all() and (true <= most).all()
    need = max(1, int(keep * size * size))
    assert (has_enough_valid(cover, x, y, size, need) == (true >= need)).all()
    boxes = corner_boxes(cover, size, need)
    for a, b in np.stack([x, y], 1)[true >= need]:
        assert (
            (boxes[:, 0] <= a)
            & (a < boxes[:, 0] + boxes[:, 2])
            & (boxes[:, 1] <= b)
            & (b < boxes[:, 1] + boxes[:, 3])
        ).sum() == 1


def test_summed_area_table_is_the_slow_sum():
    counts = noise(13, 17)
    table = summed_area_table(counts.astype(int))
    for x0, y0, x1, y1 in np.random.default_rng(0).integers(0, 13, (50, 4)):
        assert box_sum(table, x0, y0, x1, y1) == counts[y0 : max(y0, y1), x0 : max(x0, x1)].sum()
