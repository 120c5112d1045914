"""Checkpoints of PyTorch are read without PyTorch, and nothing in them is run."""

import collections
import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from hetmorph.convert import read_checkpoint
from tests.networks.models import GOLDEN

CHECKPOINT = GOLDEN / "unigradicon.trch"


def test_of_pytorch_itself():
    found = read_checkpoint(CHECKPOINT)
    assert len(found) == 4 * (2 * 2 + 2 * (2 + 5) + 2)
    kernel = found["netPsi.net.upConvs.1.weight"]
    assert kernel.shape == (3, 3, 4, 4, 4) and kernel.dtype == np.float32
    assert found["netPsi.net.batchNorms.0.num_batches_tracked"].dtype == np.int64
    assert all(np.isfinite(value).all() for value in found.values())


class Call:
    """Is pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Pickler(pickle.Pickler):
    def persistent_id(self, thing):
        return thing[1:] if isinstance(thing, tuple) and thing[:1] == ("persistent",) else None


def archive(path, content: bytes, others=()):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", content)
        for name, data in dict(others).items():
            file.writestr(f"archive/{name}", data)
    return path


def pickled(thing):
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(thing)
    return buffer.getvalue()


def tensor(count=4, size=(2, 2), stride=(2, 1), offset=0, kind=b"FloatStorage"):
    """The pickle that PyTorch writes of one tensor, by hand."""
    storage = b"(X\x07\x00\x00\x00storagectorch\n" + kind + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    numbers = pickle.dumps(count, 2)[2:-1], pickle.dumps(offset, 2)[2:-1]
    shapes = b"".join(b"(" + b"".join(pickle.dumps(n, 2)[2:-1] for n in one) + b"t" for one in (size, stride))
    made = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + numbers[0] + b"tQ" + numbers[1] + shapes + b"\x89}tR"
    return b"\x80\x02}X\x01\x00\x00\x00w" + made + b"s."


def test_strides_and_offsets(tmp_path):
    data = {"data/0": np.arange(6, dtype="<f4").tobytes()}
    path = archive(tmp_path / "a", tensor(6, (2, 2), (1, 2), 1), data)
    np.testing.assert_array_equal(read_checkpoint(path)["w"], [[1, 3], [2, 4]])


BAD = [
    (tensor(6, (4, 2), (2, 1)), r"makes a tensor of \(4, 2\) from 6 numbers"),
    (tensor(6, (2, 2), (-1, 1)), "stride"),
    (tensor(6, (2**24, 2**24), (0, 0)), "MemoryError"),
    (tensor(7), "has 24 bytes instead of 28"),
    (tensor(6, kind=b"UntypedStorage"), "wants to call torch.UntypedStorage"),
    (pickled([1]), "expected a dictionary of tensors, received a list"),
    (b"\x80\x02}", "checkpoint"),
    (pickled({"w": ("persistent", "file", "/etc/passwd")}), "asks for"),
]


@pytest.mark.parametrize(("content", "message"), BAD)
def test_what_is_no_tensor_is_refused(content, message, tmp_path):
    path = archive(tmp_path / "a", content, {"data/0": np.zeros(6, "<f4").tobytes()})
    with pytest.raises(ValueError, match=message):
        read_checkpoint(path)


@pytest.mark.parametrize("function", [os.system, eval, exec, getattr, open, collections.Counter])
def test_a_pickle_that_wants_to_run_code_does_not(function, tmp_path):
    mark = tmp_path / "ran"
    words = {os.system: f"touch {mark}", open: str(mark)}.get(function, f"__import__('os').mkdir('{mark}')")
    more = {open: ("w",), getattr: ("upper",)}.get(function, ())
    path = archive(tmp_path / "a", pickle.dumps({"w": Call(function, words, *more)}, 2))
    with pytest.raises(ValueError, match=rf"wants to call \w+\.{function.__name__}, .*nothing of it was run"):
        read_checkpoint(path)
    assert not mark.exists()


def test_truncated_and_foreign_files(tmp_path):
    whole, path = CHECKPOINT.read_bytes(), tmp_path / "a.trch"
    for length in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        message = "is cut off" if length >= 100 else "is none, or of a PyTorch before"
        with pytest.raises(ValueError, match=rf"a\.trch: expected a checkpoint of PyTorch; this file {message}"):
            read_checkpoint(path)
    path.write_bytes(pickle.dumps({"w": 1}))
    with pytest.raises(ValueError, match="PyTorch before 1.6"):
        read_checkpoint(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("word/document.xml", "no")
    with pytest.raises(ValueError, match=r"expected one data.pkl .*word/document.xml"):
        read_checkpoint(path)
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "nowhere")


def test_changed_bytes_are_noticed(tmp_path):
    whole, path = bytearray(CHECKPOINT.read_bytes()), tmp_path / "a.trch"
    with zipfile.ZipFile(CHECKPOINT) as file:
        entry = next(info for info in file.infolist() if info.filename.endswith("data/0"))
    start = entry.header_offset + 30 + len(entry.filename) + 70
    whole[start : start + 4] = b"\xff\xff\xff\xff" if whole[start : start + 4] != b"\xff\xff\xff\xff" else b"\x00" * 4
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="damaged"):
        read_checkpoint(path)
