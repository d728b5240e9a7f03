"""Polygons on a raster's grid: both file kinds, any transform, labels, areas, and blocks that keep their
distance.
"""

import json
import sqlite3
import struct
import warnings

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from rsssl_nb.cli import main
from rsssl_nb.data.datasets import open_dataset
from rsssl_nb.data.gdal import reproject_polygon
from rsssl_nb.data.labels import Classes
from rsssl_nb.data.pool import Pool
from rsssl_nb.data.raster import open_raster
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.data.shapes import (
    SPLITS,
    block_boxes,
    block_split,
    length_in_pixels,
    polygon_labels,
    read_shapes,
    restrict,
    tenth_of,
    write_split,
)
from rsssl_nb.data.write import write_raster, write_scene
from rsssl_nb.errors import InputError

PLACE = ("EPSG:32633", (0.5, 0.0, 400000.0, 0.0, -0.5, 5800000.0))
SITE = Classes(("meadow", "roof", "pond"))


@pytest.fixture
def raster(tmp_path):
    return open_raster(write_raster(tmp_path / "image.tif", np.ones((3, 80, 100), np.uint8), *PLACE))


def box(x0, y0, x1, y1, transform=PLACE[1]):
    "A box in pixels as a GeoJSON polygon in map coordinates."
    corners = (
        np.array([(x0, y0, 1), (x1, y0, 1), (x1, y1, 1), (x0, y1, 1), (x0, y0, 1)])
        @ np.reshape(transform, (2, 3)).T
    )
    return dict(type="Polygon", coordinates=[corners.tolist()])


def geojson(path, *shapes, crs="EPSG::32633"):
    "Writes (geometry, properties); `crs` False leaves the member out, None writes null."
    member = (
        {}
        if crs is False
        else dict(crs=crs and dict(type="name", properties=dict(name=f"urn:ogc:def:crs:{crs}")))
    )
    path.write_text(
        json.dumps(
            dict(
                type="FeatureCollection",
                features=[dict(type="Feature", geometry=g, properties=p) for g, p in shapes],
                **member,
            )
        ),
        encoding="utf-8",
    )
    return path


def wkb(geometry, order="<", z=False):
    "Well-known binary of a polygon or multipolygon."
    head = lambda kind, n: struct.pack(order + "BII", order == "<", kind + 1000 * z, n)
    polygon = lambda rings: (
        head(3, len(rings))
        + b"".join(
            struct.pack(order + "I", len(r))
            + b"".join(struct.pack(order + "dd" + "d" * z, *p, *[7.0] * z) for p in r)
            for r in rings
        )
    )
    if geometry["type"] == "Polygon":
        return polygon(geometry["coordinates"])
    return head(6, len(geometry["coordinates"])) + b"".join(map(polygon, geometry["coordinates"]))


def gpkg(path, *shapes, epsg=32633, order="<", z=False, envelope=1, layers=1):
    "A GeoPackage by the standard: reference systems, geometry columns, one table."
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as base:
        base.execute(
            "CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT, srs_id INTEGER PRIMARY KEY, organization "
            "TEXT, organization_coordsys_id INTEGER, definition TEXT, description TEXT)"
        )
        base.execute("INSERT INTO gpkg_spatial_ref_sys VALUES ('x', ?, 'EPSG', ?, '', '')", (epsg, epsg))
        base.execute(
            "CREATE TABLE gpkg_geometry_columns (table_name TEXT, column_name TEXT, geometry_type_name "
            "TEXT, srs_id INTEGER, z INTEGER, m INTEGER)"
        )
        for i in range(layers):
            base.execute(
                "INSERT INTO gpkg_geometry_columns VALUES (?, 'geom', 'GEOMETRY', ?, 0, 0)",
                (f'house "{i}"', epsg),
            )
            base.execute(f'CREATE TABLE "house ""{i}""" (fid INTEGER PRIMARY KEY, geom BLOB, kind TEXT)')
        head = lambda: (
            b"GP\0"
            + bytes([1 | envelope << 1])
            + struct.pack("<i", epsg)
            + bytes((0, 32, 48, 48, 64)[envelope])
        )
        for g, p in shapes:
            base.execute(
                'INSERT INTO "house ""0""" (geom, kind) VALUES (?, ?)',
                (None if g is None else head() + wkb(g, order, z), p.get("kind")),
            )
    base.close()
    return path


# ---------------------------------------------------------------- reading

SHAPES = [
    (box(10, 20, 30, 40), dict(kind="roof")),
    (
        dict(
            type="MultiPolygon",
            coordinates=[box(50, 5, 60, 15)["coordinates"], box(70, 5, 90, 15)["coordinates"]],
        ),
        dict(kind="pond"),
    ),
]


def expected():
    labels = np.full((80, 100), 255, np.uint8)
    labels[20:40, 10:30], labels[5:15, 50:60], labels[5:15, 70:90] = 1, 2, 2
    return labels


@pytest.mark.parametrize(
    "order, z, envelope", [("<", False, 1), (">", False, 0), ("<", True, 2), (">", True, 4)]
)
def test_both_files_give_the_same_labels(tmp_path, raster, order, z, envelope):
    for path in (
        geojson(tmp_path / "a.geojson", *SHAPES),
        gpkg(tmp_path / "ä b.gpkg", (None, {}), *SHAPES, order=order, z=z, envelope=envelope),
    ):
        np.testing.assert_array_equal(polygon_labels(path, SITE, raster, "kind"), expected())
    filled = polygon_labels(path, SITE, raster, "kind", elsewhere="meadow")
    np.testing.assert_array_equal(filled, np.where(expected() == 255, 0, expected()))


def test_longitude_and_latitude_by_default(tmp_path, raster):
    moved = [(reproject_polygon(g, "EPSG:32633", "EPSG:4326"), p) for g, p in SHAPES]
    for crs in (False, "OGC:1.3:CRS84"):
        np.testing.assert_array_equal(
            polygon_labels(geojson(tmp_path / "a.geojson", *moved, crs=crs), SITE, raster, "kind"), expected()
        )
    np.testing.assert_array_equal(
        polygon_labels(gpkg(tmp_path / "a.gpkg", *moved, epsg=4326), SITE, raster, "kind"), expected()
    )


@pytest.mark.parametrize(
    "transform", [(0.5, 0, 10, 0, 0.5, 20), (3.0, 4.0, 100.0, 4.0, -3.0, 50.0), (-1.0, 0, 5, 0, -2.0, 9)]
)
def test_any_transform(tmp_path, transform):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raster = open_raster(
            write_raster(tmp_path / "a.tif", np.ones((1, 80, 100), np.uint8), None, transform)
        )
    path = geojson(tmp_path / "a.geojson", (box(10, 20, 30, 40, transform), dict(kind="roof")), crs=None)
    np.testing.assert_array_equal(polygon_labels(path, SITE, raster, "kind") == 1, expected() == 1)


def test_holes_and_order(tmp_path, raster):
    ring = box(0, 0, 40, 40)
    ring["coordinates"] += box(10, 10, 30, 30)["coordinates"]
    labels = polygon_labels(
        geojson(tmp_path / "a.geojson", (ring, dict(kind="roof")), (box(0, 0, 5, 5), dict(kind="pond"))),
        SITE,
        raster,
        "kind",
    )
    assert (labels[10:30, 10:30] == 255).all() and (labels[:5, :5] == 2).all() and labels[35, 35] == 1


def test_polygons_that_cannot_be_used(tmp_path, raster):
    bare = open_raster(np.ones((1, 8, 8), np.uint8))
    path = geojson(tmp_path / "a.geojson", *SHAPES)
    with pytest.raises(InputError, match="is in EPSG:32633 and an array .* has no CRS"):
        read_shapes(path, bare)
    with pytest.raises(InputError, match="holds a LineString: keep polygons"):
        read_shapes(
            geojson(tmp_path / "l.geojson", (dict(type="LineString", coordinates=[[0, 0], [1, 1]]), {})),
            raster,
        )
    with pytest.raises(InputError, match="holds no polygon"):
        read_shapes(geojson(tmp_path / "n.geojson"), raster)
    with pytest.raises(InputError, match="cannot be read"):
        read_shapes(geojson(tmp_path / "c.geojson", *SHAPES, crs="EPSG::999999"), raster)
    with pytest.raises(InputError, match='2 layers of geometries .house "0", house "1"'):
        read_shapes(gpkg(tmp_path / "two.gpkg", *SHAPES, layers=2), raster)
    with pytest.raises(
        InputError,
        match="33.3 % of the polygons .* have the kind 'shed', which is none of meadow, roof, pond",
    ):
        polygon_labels(
            geojson(tmp_path / "s.geojson", *SHAPES, (box(0, 0, 1, 1), dict(kind="shed"))),
            SITE,
            raster,
            "kind",
        )
    with pytest.raises(InputError, match="no field 'class' .it has kind"):
        polygon_labels(path, SITE, raster)
    with pytest.raises(InputError, match="elsewhere is 'sea'"):
        polygon_labels(path, SITE, raster, "kind", elsewhere="sea")
    for text in ("", "{}", "[1]", '{"type": "FeatureCollection", "features": [1]}'):
        (tmp_path / "bad.geojson").write_text(text)
        with pytest.raises(InputError, match="bad.geojson is no GeoJSON"):
            read_shapes(tmp_path / "bad.geojson", raster)
    (tmp_path / "bad.gpkg").write_bytes(b"SQLite format 3\0" + bytes(200))
    with pytest.raises(InputError, match="bad.gpkg is no GeoPackage"):
        read_shapes(tmp_path / "bad.gpkg", raster)
    with pytest.raises(InputError, match="is no file of polygons"):
        read_shapes(tmp_path / "none.geojson", raster)


def test_cut_geopackage_blobs_are_refused(tmp_path, raster):
    whole = gpkg(tmp_path / "a.gpkg", SHAPES[1])
    with sqlite3.connect(whole) as base:
        ((blob,),) = base.execute('SELECT geom FROM "house ""0"""')
    base.close()
    for n in (5, 20, len(blob) // 2, len(blob) - 1):
        with sqlite3.connect(whole) as base:
            base.execute('UPDATE "house ""0""" SET geom = ?', (blob[:n],))
        base.close()
        with pytest.raises(InputError, match="is no GeoPackage"):
            read_shapes(whole, raster)


# ---------------------------------------------------------------- areas


def test_areas_hold_to_the_pixel(tmp_path):
    image, _ = write_scene(make_scene(128, seed=2), tmp_path)
    raster = open_raster(image)
    inside = geojson(
        tmp_path / "in.geojson",
        (box(20, 30, 90, 100, raster.transform), dict(owner="us")),
        (box(0, 0, 10, 10, raster.transform), dict(owner="them")),
    )
    outside = geojson(tmp_path / "out.geojson", (box(40, 40, 60, 60, raster.transform), {}))
    ours = restrict(raster, inside, outside, owner="us")
    want = np.zeros((128, 128), bool)
    want[30:100, 20:90] = True
    want[40:60, 40:60] = False
    want &= raster.valid(0, 0, 128, 128)
    np.testing.assert_array_equal(ours.valid(0, 0, 128, 128), want)
    np.testing.assert_array_equal(np.isfinite(ours.read(-10, 5, 90, 80)).any(0)[:, 10:], want[5:85, :80])
    np.testing.assert_array_equal(ours.read(0, 0, 128, 128)[:, want], raster.read(0, 0, 128, 128)[:, want])
    pool = Pool(ours, 16)
    assert pool.pixels == want.sum() and all(
        np.isnan(pool.read(w)).all(0).mean() <= 0.5 for w in pool.windows(60)
    )
    assert (
        restrict(raster, outside=outside).valid(0, 0, 128, 128).sum()
        == raster.valid(0, 0, 128, 128).sum() - raster.valid(40, 40, 20, 20).sum()
    )
    with pytest.raises(InputError, match="no polygon with owner me"):
        restrict(raster, inside, owner="me")


# ---------------------------------------------------------------- blocks


def distance(a, b):
    return np.hypot(max(0, b[0] - a[2], a[0] - b[2]), max(0, b[1] - a[3], a[1] - b[3]))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 7),
    st.integers(2, 7),
    st.floats(8, 40),
    st.floats(8, 40),
    st.integers(0, 75).map(lambda n: n / 10),
    st.integers(0, 99),
)
def test_splits_keep_their_distance(rows, cols, bw, bh, buffer, seed):
    grid = np.random.default_rng(seed).integers(-1, 3, (rows, cols))
    boxes = block_boxes(grid, (bw, bh), (buffer, buffer), round(cols * bw), round(rows * bh))
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert distance(a, b) >= buffer or a[4] == b[4]
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]  # no pixel twice
    assert sum((b[2] - b[0]) * (b[3] - b[1]) for b in boxes) <= (grid >= 0).sum() * (bw + 1) * (bh + 1)


def test_a_split_is_a_pure_function_and_covers_its_shares(tmp_path):
    raster = open_raster(write_raster(tmp_path / "a.tif", np.ones((1, 400, 500), np.uint8), *PLACE))
    boxes = block_split(raster, "25m", "4m", (0.6, 0.2, 0.2), seed=3)
    assert (
        boxes
        == block_split(raster, "25m", "4m", (0.6, 0.2, 0.2), seed=3)
        != block_split(raster, "25m", "4m", (0.6, 0.2, 0.2), seed=4)
    )
    assert np.bincount([b[4] for b in boxes]).tolist() == [47, 17, 16] and length_in_pixels("4m", raster) == (
        8,
        8,
    )
    assert min(distance(a, b) for a in boxes for b in boxes if a[4] != b[4]) == 8
    whole = block_split(raster, "50px", "0px")
    assert sum((b[2] - b[0]) * (b[3] - b[1]) for b in whole) == 400 * 500


def test_blocks_of_nothing_are_left_out(tmp_path):
    array = np.zeros((1, 200, 200), np.uint8)
    array[:, :, 100:] = 9
    raster = open_raster(write_raster(tmp_path / "a.tif", array, *PLACE, 0))
    assert min(b[0] for b in block_split(raster, "50px", "0px", (1, 1, 1))) == 100


def test_splits_that_cannot_be(tmp_path, raster):
    for block, buffer, says in (
        ("2 miles", "1px", "no length"),
        ("10px", "10px", "leave nothing between buffers"),
        ("90px", "5px", "for 3 splits: use a smaller --block"),
        ("0px", "0px", "leave nothing"),
    ):
        with pytest.raises(InputError, match=says):
            block_split(raster, block, buffer)
    with pytest.raises(InputError, match="has no CRS"):
        block_split(open_raster(np.ones((1, 99, 99), np.uint8)), "10m", "1m")
    with pytest.raises(InputError, match="give positive numbers"):
        block_split(raster, "10px", "1px", (1, 0, 1))
    with pytest.raises(InputError, match="give positive numbers"):
        block_split(raster, "10px", "1px", (float("nan"), 1, 1))
    small = open_raster(np.ones((1, 10, 10), np.uint8))
    with pytest.raises(InputError, match="10 x 10 pixels in blocks of 2 x 2, keeps nothing for"):
        block_split(small, "2px", "1px")
    assert [tenth_of(length) for length in ("20px", "5px", "2km", "miles")] == [
        "2px",
        "1px",
        "0.2km",
        "miles",
    ]
    degrees = open_raster(
        write_raster(
            tmp_path / "d.tif", np.ones((1, 90, 90), np.uint8), "EPSG:4326", (1e-4, 0, 10, 0, -1e-4, 60)
        )
    )
    across, down = length_in_pixels("1km", degrees)
    assert abs(across - 1000 / 5.566) < 2 and abs(down - 1000 / 11.132) < 1


def test_split_command_to_three_rasters_without_a_common_pixel(tmp_path):
    image, labels = write_scene(make_scene(256, seed=4), tmp_path)
    result = CliRunner().invoke(
        main, ["split", str(image), "--block", "20m", "--buffer", "3m", "--shares", "0.5", "0.25", "0.25"]
    )
    assert result.exit_code == 0 and "train" in result.output, result.output
    (tmp_path / "dataset.toml").write_text(
        'images = "image.tif"\nlabels = "labels.tif"\nsplit = "image.split.geojson"\n'
    )
    data = open_dataset(tmp_path)
    assert [e.split for e in data.scenes] == ["test", "train", "val"] and len(data.missing) == 0
    seen = sum(data.raster(e).valid(0, 0, 256, 256).astype(int) for e in data.scenes)
    assert seen.max() == 1 and 0.3 < (seen > 0).mean() < 1
    bad = CliRunner().invoke(main, ["split", str(image), "--block", "300m"])
    assert (
        bad.exit_code == 2 and bad.stderr.startswith("Error: there are") and "smaller --block" in bad.stderr
    )


def test_a_split_without_crs_comes_back(tmp_path):
    raster = open_raster(np.ones((1, 90, 120), np.uint8))
    boxes = block_split(raster, "30px", "4px")
    path = write_split(tmp_path / "s.geojson", boxes, raster)
    for i, name in enumerate(SPLITS):
        want = np.zeros((90, 120), bool)
        for x0, y0, x1, y1, s in boxes:
            if s == i:
                want[y0:y1, x0:x1] = True
        np.testing.assert_array_equal(restrict(raster, path, split=name).valid(0, 0, 120, 90), want)
