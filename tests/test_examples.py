"Example pictures: from a folder, the cache or a loopback host; whole, cut short, altered, absent."

import hashlib
import http.server
import threading
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from rsssl_nb.data import examples
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
            if server.how == "absent":
                self.send_error(404)
                return
            sent = content[:-1] + b"?" if server.how == "altered" else content
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
