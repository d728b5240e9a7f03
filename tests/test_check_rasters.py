"A folder's faults by kind."

import numpy as np
from odd_rasters import noise

from rsssl_nb.data.check import check_rasters
from rsssl_nb.data.write import write_raster


def test_check_names_what_is_wrong(mixed):
    write_raster(mixed / "30.tif", np.zeros((2, 64, 64), np.uint8), nodata=0)
    write_raster(mixed / "31.tif", noise(2, 64, 64, dtype="uint16"))
    (mixed / "32.tif").write_bytes(b"")
    found = check_rasters(mixed)
    assert [(p.name, kind) for p, kind, _ in found] == [
        ("07.tif", "corrupt"),
        ("20.tif", "mismatch"),
        ("30.tif", "empty"),
        ("31.tif", "mismatch"),
        ("32.tif", "corrupt"),
    ]
    assert "20.tif has 3 bands of uint8 and 35 others have 2 bands of uint8" in found[1][2]
    assert all(p.name in sentence and "\n" not in sentence for p, _, sentence in found)
    from click.testing import CliRunner

    from rsssl_nb.cli import main

    result = CliRunner().invoke(main, ["check", str(mixed)])
    assert result.exit_code == 2 and "5 faults" in result.output and "Traceback" not in result.output
    for name in ("07", "20", "30", "31", "32"):
        (mixed / f"{name}.tif").unlink()
    result = CliRunner().invoke(main, ["check", str(mixed)])
    assert result.exit_code == 0 and "0 faults" in result.output
