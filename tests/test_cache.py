"""The cache: what it keeps through kills, processes and threads; which edits of code make a value stale."""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fakevlm.cache import Cache, code_version, key, model_version, pack, unpack
from fakevlm.errors import UserError

WRITER = """
import sys
from pathlib import Path
from fakevlm.cache import Cache, key
store = Cache(Path(sys.argv[1]))
for n in range(int(sys.argv[2]), 100_000, 2):
    store.put_many({key(n, part): b"x" * 5000 for part in "ab"})
    print(n, flush=True)
"""


def test_values_stay_and_are_replaced_by_any_thread(tmp_path: Path) -> None:
    file = tmp_path / "made" / "c.sqlite"
    with Cache(file) as store, ThreadPoolExecutor(8) as pool:
        store.put_many({key(n): str(n).encode() for n in range(1200)})
        list(pool.map(lambda n: store.put(key(n % 50), b""), range(400)))
    with Cache(file) as store:
        assert len(store.get_many(map(key, range(1300)))) == 1200
        assert [store.get(key(n)) for n in (3, "3", 49, 50, 1199)] == [b"", None, b"", b"50", b"1199"]
    (tmp_path / "other").write_text("something else " * 100)
    for place, problem in (("other", "damaged or no cache"), ("made", "cannot be read or written")):
        with pytest.raises(UserError, match=problem):
            Cache(tmp_path / place)


def test_a_value_damaged_on_the_disk_is_none_and_an_older_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "c.sqlite"
    with sqlite3.connect(file) as old:
        old.execute("CREATE TABLE cache (key BLOB PRIMARY KEY, value BLOB NOT NULL)")
        old.execute("INSERT INTO cache VALUES (?, ?)", [bytes.fromhex(key(1)), b"paid for"])
    with Cache(file) as store:
        store.put_many({key(2): b"a fake image", key(3): b"a real one"})
    file.write_bytes(file.read_bytes().replace(b"a fake image", b"a real image"))
    with Cache(file) as store:
        assert [store.get(key(n)) for n in (1, 2, 3)] == [b"paid for", None, b"a real one"]


def test_two_processes_write_and_a_kill_loses_nothing(tmp_path: Path) -> None:
    file = tmp_path / "c.sqlite"
    run = [sys.executable, "-c", WRITER, str(file)]
    writers = [subprocess.Popen([*run, start], stdout=subprocess.PIPE, text=True) for start in "01"]
    last = [int(writer.stdout.readline()) for writer in writers for _ in range(40)]
    for writer in writers:
        writer.kill()
        last += [int(line) for line in writer.communicate()[0].splitlines() if line.isdigit()]
    with Cache(file) as store:
        assert all(store.get(key(n, part)) for n in last for part in "ab")
        both = [[store.get(key(n, part)) is None for part in "ab"] for n in range(max(last) + 9)]
        assert all(a == b for a, b in both)


def test_columns_come_back_bit_for_bit() -> None:
    columns = {
        "p": np.array([0.1, np.nan, -0.0]),
        "text": np.array(["a\0", None, "ü"], object),
        "seen": np.array([True, False, True]),
        "features": np.arange(6, dtype=np.float32).reshape(3, 2),
    }
    back = unpack(pack(columns))
    assert list(back) == list(columns)
    for name, values in columns.items():
        assert back[name].dtype == values.dtype
        assert back[name].tolist().__repr__() == values.tolist().__repr__()


def test_a_model_is_identified_by_its_commit_or_its_content(tmp_path: Path, monkeypatch) -> None:
    def download(repository: str, file: str) -> str:
        return f"/cache/{repository}/snapshots/commit of {repository}/{file}"

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    eva = "eva02_large_patch14_448.mim_m38m_ft_in22k_in1k"
    monkeypatch.chdir(tmp_path)
    assert model_version("facebook/detr-resnet-50").endswith("detr-resnet-50")
    assert model_version(eva).endswith(eva)
    versions = []
    for n, (name, content) in enumerate([("a", "x"), ("b", "x"), ("a", "y")]):
        folder = tmp_path / str(n)
        (folder / "checkpoints").mkdir(parents=True)
        (folder / name).write_text(content)
        versions.append(model_version(folder))
    assert len(set(versions)) == 3
    (tmp_path / "2" / "checkpoints" / "c").write_text("z")
    assert model_version(tmp_path / "2") == versions[2], "folders in it are not the model's"


def test_only_what_computes_counts_as_code(tmp_path: Path, monkeypatch) -> None:
    room = tmp_path / "someroom"
    room.mkdir()
    (room / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def version(n: int = 2, error: str = "no", end: str = "") -> str:
        lines = [
            "def f(x):",
            '    """Doc."""',
            f"    if x < 0: raise ValueError({error!r})",
            f"    return x * {n}{end}",
        ]
        (room / "module.py").write_text("\n".join(lines))
        code_version.cache_clear()
        return code_version("someroom")

    first = version()
    assert first == version(error="never") == version(end="  # twice")
    assert first != version(n=3)
    assert code_version("someroom") != code_version("someroom.module") != code_version("json")
