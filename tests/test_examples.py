"Example pictures: from a folder, the cache or a loopback host; whole, cut short, altered, absent."

import hashlib
import http.server
import threading
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from rsssl_nb.data import examples
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.errors import InputError
from rsssl_nb.notebook import Note

NAME = examples.SHOWN[0]


@pytest.fixture
def host(tmp_path, monkeypatch):
    "A host on loopback with one picture; `host.how` is whole, short, altered or absent; `host.asked` counts."
    pytest.importorskip("pooch")
    picture = tmp_path / "picture.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(picture)
    content = picture.read_bytes()

    class Host(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked.append(unquote(self.path))
            sent = content if self.path.endswith(".jpg") else server.mask
            if server.how == "absent":
                self.send_error(404)
                return
            sent = sent[:-1] + b"?" if server.how == "altered" else sent
            self.send_response(200)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent[:700] if server.how == "short" else sent)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host)
    server.how, server.asked, server.content = "whole", [], content
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv("RSSSL_DATA", raising=False)
    monkeypatch.setenv("RSSSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(examples.SUMS, NAME, hashlib.sha256(content).hexdigest())
    yield server
    server.shutdown()
    server.server_close()


def fetched(host, **how):
    return examples.example_images((NAME,), host=host.url, progress=False, **how)


def test_a_picture_is_fetched_once_after_a_yes(host):
    assert fetched(host, yes=False) == [] and fetched(host) == [] and host.asked == []
    (path,) = fetched(host, yes=True)
    assert path.read_bytes() == host.content
    assert host.asked == [f"/{examples.SOURCE}/{examples.COMMIT}/{examples.FOLDER}/{NAME}"]
    assert fetched(host, yes=False) == [path] and fetched(host, yes=True) == [path] and len(host.asked) == 1
    assert examples.example(yes=False).bands == 3


@pytest.mark.parametrize("how", ["short", "altered", "absent"])
def test_what_is_not_the_file_is_refused_and_not_kept(host, how):
    host.how = how
    with pytest.raises(InputError, match="cannot be fetched"):
        fetched(host, yes=True)
    assert examples.example_here(NAME) is None
    with pytest.warns(Note, match="no real picture.*synthetic scene"):
        assert examples.example(yes=True, host=host.url).bands == 4
    host.how = "whole"
    assert fetched(host, yes=True)[0].read_bytes() == host.content


def test_a_host_that_is_gone(host):
    host.shutdown()
    host.server_close()
    with pytest.raises(InputError, match="cannot be fetched"):
        fetched(host, yes=True)


def test_a_yes_is_asked_for_in_a_terminal_only(host, monkeypatch):
    monkeypatch.setattr(examples, "in_notebook", lambda: True)
    said = []
    monkeypatch.setattr("builtins.input", lambda text: said.append(text) or "no")
    assert fetched(host) == [] and "CC0" in said[0] and examples.SOURCE in said[0]
    monkeypatch.setattr("builtins.input", lambda text: "Yes")
    assert len(fetched(host)) == 1


def test_the_table_is_that_of_the_imagery(imagery):
    for name, known in examples.SUMS.items():
        path = examples.example_here(name)
        assert path and str(imagery) in str(path)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == known
    with pytest.raises(InputError, match="is no example picture"):
        examples.example_images(("other.jpg",))


@pytest.fixture
def masked(host, tmp_path, monkeypatch):
    "The host with a mask beside its picture: building, road, and a colour that means nothing."
    told = np.random.default_rng(1).choice(np.array([0, 2, 255], np.uint8), (64, 64))
    colours = {0: (0x3C, 0x10, 0x98), 2: (0x6E, 0xC1, 0xE4), 255: (0x9B, 0x9B, 0x9B)}
    painted = np.zeros((64, 64, 3), np.uint8)
    for number, colour in colours.items():
        painted[told == number] = colour
    Image.fromarray(painted).save(tmp_path / "mask.png")
    host.mask, host.told = (tmp_path / "mask.png").read_bytes(), told
    monkeypatch.setitem(examples.MASK_SUMS, NAME, hashlib.sha256(told.tobytes()).hexdigest())
    return host


def scenes(host, **how):
    return examples.example_scenes((NAME,), host=host.url, progress=False, **how)


def test_a_scene_with_labels_is_fetched_once_after_a_yes(masked):
    with pytest.warns(Note, match="no real scenes.*synthetic"):
        assert len(scenes(masked, yes=False)[0].image) == 4 and masked.asked == []
    (scene,) = scenes(masked, yes=True)
    assert np.array_equal(scene.labels, masked.told) and scene.image.shape == (3, 64, 64)
    assert len(masked.asked) == 2 and masked.asked[1].endswith("Tile 5/masks/image_part_007.png")
    assert np.array_equal(scenes(masked, yes=False)[0].labels, masked.told) and len(masked.asked) == 2


def test_another_mask_is_refused_and_not_kept(masked):
    masked.mask = masked.content  # a picture, and not this mask
    with pytest.warns(Note, match="is not the mask that is expected"):
        assert scenes(masked, yes=True)[0].image.shape[0] == 4
    assert examples.numbers_here(NAME) is None


def test_masks_of_the_imagery_have_the_sums_of_the_table(imagery):
    for name, known in examples.MASK_SUMS.items():
        numbers = np.asarray(Image.open(examples.numbers_here(name)))
        assert hashlib.sha256(numbers.tobytes()).hexdigest() == known
    assert [s.image.shape for s in examples.example_scenes(yes=False)] == [(3, 1058, 1126)] * 4


def test_few_windows_show_every_class_and_are_drawn_by_the_seed():
    scene = make_scene(256, seed=1)
    one, same, other = (examples.few_windows([scene], 8, 64, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a.labels, b.labels) for a, b in zip(one, same))
    assert any(not np.array_equal(a.labels, b.labels) for a, b in zip(one, other))
    assert len({a.labels.tobytes() for a in one}) == 8
    assert set(np.unique([w.labels for w in one])) - {255} == set(np.unique(scene.labels)) - {255}
    with pytest.raises(InputError, match="99 windows of two classes are asked for"):
        examples.few_windows([scene], 99, 64)
