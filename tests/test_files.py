"""Files are written whole or not at all, by any number of writers; lines end at a line feed alone; a folder has one holder."""

from __future__ import annotations

import ast
import errno
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cocoer
from cocoer import files
from cocoer.cli.main import main
from cocoer.errors import FolderInUse, OutputError
from cocoer.files import (
    LOCK_NAME,
    file_sha256,
    hold_file,
    hold_folder,
    put_in_place,
    read_lines,
    remove_folder,
    write_file,
)
from cocoer.weights.catalog import DEMO_CHECKPOINT

PACKAGE = Path(cocoer.__file__).parent
BREAKS = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\r"  # where `str.splitlines` also cuts


def test_a_file_appears_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    files.write_text(tmp_path / "new" / "a.txt", "one\r\ntwo\u2028")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "one\r\ntwo\u2028".encode()
    assert os.listdir(tmp_path / "new") == ["a.txt"]


@pytest.mark.parametrize(
    "fault", [OSError(errno.ENOSPC, "No space left on device"), ValueError("bad"), KeyboardInterrupt()]
)
def test_a_writer_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, fault: BaseException) -> None:
    place = tmp_path / "a.bin"
    place.write_bytes(b"old")

    def fill(unfinished: Path) -> None:
        unfinished.write_bytes(b"half")
        raise fault

    wanted = OutputError if isinstance(fault, OSError) else type(fault)
    with pytest.raises(wanted, match=r"a\.bin: cannot be written \(No space" if wanted is OutputError else None):
        write_file(place, fill)
    assert place.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("make", ["folder", "file_above"])
def test_a_place_that_cannot_be_written_is_one_error_with_its_name(tmp_path: Path, make: str) -> None:
    place = tmp_path / "x" / "y.json" if make == "file_above" else tmp_path / "x"
    if make == "folder":
        (place / "inside").mkdir(parents=True)
    else:
        (tmp_path / "x").write_text("a file where a folder is wanted")
    with pytest.raises(OutputError, match=r"x.*: cannot be written .*: free space or choose another folder"):
        files.write_bytes(place, b"1")
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith(".writing")]


def test_two_writers_with_one_process_number_never_share_an_unfinished_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers on a shared folder have the same process numbers: each writer must still see its own bytes until the end."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    seen = []

    def outer(unfinished: Path) -> None:
        unfinished.write_bytes(b"outer")
        files.write_bytes(tmp_path / "b.json", b"inner")
        seen.append(unfinished.read_bytes())

    write_file(tmp_path / "a.json", outer)
    assert seen == [b"outer"]
    assert (tmp_path / "a.json").read_bytes() == b"outer" and (tmp_path / "b.json").read_bytes() == b"inner"


def test_an_unfinished_name_that_is_taken_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even with a random part that repeats: the file is created exclusively, and a link laid there is not followed."""
    victim = tmp_path / "victim.txt"
    victim.write_text("the user's")
    tokens = iter(["same", "same", "other"])
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: next(tokens))
    trap: list[Path] = []
    write_file(tmp_path / "a.json", lambda unfinished: trap.append(unfinished))
    trap[0].symlink_to(victim)
    files.write_bytes(tmp_path / "b.json", b"1")
    assert victim.read_text() == "the user's" and (tmp_path / "b.json").read_bytes() == b"1"


def test_a_link_at_the_target_is_replaced_and_what_it_points_to_is_kept(tmp_path: Path) -> None:
    for make in (os.symlink, os.link):
        victim, place = tmp_path / f"{make.__name__}.txt", tmp_path / f"{make.__name__}.json"
        victim.write_text("the user's")
        make(victim, place)
        files.write_bytes(place, b"1")
        assert victim.read_text() == "the user's" and place.read_bytes() == b"1" and not place.is_symlink()


def test_new_files_have_the_permissions_that_the_user_wants(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_bytes(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    sync, rename = os.fsync, os.replace

    def fsync(handle: int) -> None:
        events.append("sync " + Path(os.readlink(f"/proc/self/fd/{handle}")).suffix)
        sync(handle)

    def replace_(source: Path, target: Path) -> None:
        events.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace_)
    files.write_bytes(tmp_path / "a.txt", b"1")
    assert events == ["sync .txt", "rename", "sync " + tmp_path.suffix]


def test_a_folder_that_cannot_be_synced_is_no_fault_but_a_broken_disk_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = errno.EINVAL

    def fsync(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    files.sync_folder(tmp_path)
    code = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        files.sync_folder(tmp_path)


def test_folders_move_and_go_whole(tmp_path: Path) -> None:
    (tmp_path / "a.part").mkdir()
    (tmp_path / "a.part" / "x").write_text("1")
    put_in_place(tmp_path / "a.part", tmp_path / "a")
    assert (tmp_path / "a" / "x").read_text() == "1" and not (tmp_path / "a.part").exists()
    (tmp_path / "a.removing").mkdir()  # a kill during an earlier removal left this
    remove_folder(tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_checksums_are_those_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]) | st.sampled_from(BREAKS))))
def test_json_lines_that_were_written_are_the_lines_that_are_read(texts: list[str]) -> None:
    place = Path(os.environ["PYTEST_LINES"])
    place.write_bytes(b"".join(json.dumps(t, ensure_ascii=False).encode() + b"\n" for t in texts))
    assert [json.loads(line) for line in read_lines(place)] == texts


@pytest.fixture(autouse=True)
def _lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_LINES", str(tmp_path / "lines"))


def test_line_ends_of_windows_marks_and_torn_lines(tmp_path: Path) -> None:
    place = tmp_path / "a"
    place.write_bytes("\ufeffone\r\n\ntwo\u2028\x85\nthr".encode())
    assert list(read_lines(place)) == ["one", "", "two\u2028\x85", "thr"]
    assert list(read_lines(place, torn=False)) == ["one", "", "two\u2028\x85"]
    place.write_bytes(b"good\n\xff\xfe\n")
    with pytest.raises(UnicodeDecodeError, match=r"\(line 2\)"):
        list(read_lines(place))


HOLD = """
import sys, time
from cocoer.files import hold_folder
with hold_folder(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_held_folder_refuses_the_second_and_says_who_holds_it(tmp_path: Path) -> None:
    with holder(tmp_path / "run") as process:
        try:
            with (
                pytest.raises(FolderInUse, match=rf"run: process {process.pid} on {socket.gethostname()} \(.*since 20"),
                hold_folder(tmp_path / "run"),
            ):
                pytest.fail("held twice")
        finally:
            process.kill()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path, how: signal.Signals) -> None:
    with holder(tmp_path) as process:
        process.send_signal(how)
        process.wait()
        assert (tmp_path / LOCK_NAME).exists()  # what it left behind
        with hold_folder(tmp_path):
            assert json.loads((tmp_path / LOCK_NAME).read_text())["process"] == os.getpid()
    assert os.listdir(tmp_path) == []


def test_a_lock_within_one_process_counts_too_and_ends_with_its_block(tmp_path: Path) -> None:
    with hold_folder(tmp_path), pytest.raises(FolderInUse), hold_folder(tmp_path):
        pytest.fail("held twice")
    with pytest.raises(KeyError), hold_folder(tmp_path):
        raise KeyError
    with hold_folder(tmp_path):
        pass


def test_a_damaged_or_foreign_lock_file_is_no_obstacle_and_never_followed(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_bytes(b"\xff{[")
    with hold_folder(tmp_path), pytest.raises(FolderInUse), hold_folder(tmp_path):
        pass
    victim = tmp_path / "victim"
    victim.write_text("the user's")
    (tmp_path / LOCK_NAME).symlink_to(victim)
    with pytest.raises(OutputError, match="is no lock of cocoer"), hold_folder(tmp_path):
        pass
    assert victim.read_text() == "the user's"


def test_a_file_system_without_locks_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files.FileLock, "acquire", refuse)
    with pytest.warns(UserWarning, match="has no locks.*start no second run"), hold_folder(tmp_path):
        (tmp_path / "written").touch()


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("a file")
    with pytest.raises(OutputError, match=r"x/run: cannot be written"), hold_folder(tmp_path / "x" / "run"):
        pass


def test_of_many_processes_one_holds_at_a_time_and_each_gets_its_turn(tmp_path: Path) -> None:
    """Each adds one to a counter, unprotected but for the lock; the lock file comes and goes meanwhile."""
    code = """
import sys
from pathlib import Path
from cocoer.errors import FolderInUse
from cocoer.files import hold_folder
folder, done = Path(sys.argv[1]), 0
while done < 25:
    try:
        with hold_folder(folder):
            n = int((folder / "n").read_text())
            (folder / "n").write_text(str(n + 1))
            done += 1
    except FolderInUse:
        pass
"""
    (tmp_path / "n").write_text("0")
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(4)]
    start = time.monotonic()
    assert [process.wait(60) for process in running] == [0] * 4, time.monotonic() - start
    assert (tmp_path / "n").read_text() == "100" and os.listdir(tmp_path) == ["n"]


def test_only_one_module_renames_files_into_place_or_hashes_them() -> None:
    """`os.replace`, `os.rename`, `Path.rename`, `Path.replace(one argument)`, `hashlib.file_digest`, `flock`."""
    allowed = {"files.py", "vlm/client.py"}
    for source in sorted(PACKAGE.rglob("*.py")):
        if source.relative_to(PACKAGE).as_posix() in allowed:
            continue
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                said = ast.unparse(node.func)
                assert said not in ("os.replace", "os.rename", "hashlib.file_digest", "fcntl.flock"), (
                    source,
                    node.lineno,
                )
                assert not (node.func.attr in ("rename", "replace") and len(node.args) == 1 and not node.keywords), (
                    source,
                    node.lineno,
                )
                assert not (node.func.attr == "splitlines" and "read_text" in said), (source, node.lineno)


STREAMS = {
    "report/results.py": {"ab", "rb+"},
    "report/runlog.py": {"a", "r+b"},
    "training/launch.py": {"ab"},
    "vlm/run.py": {"w"},
    "data/prepare/detections.py": {"a"},
    "cli/talk.py": {"w"},  # standard output
}
"""Files that grow line by line, each whole after every line; what reads them leaves a torn last line out."""

WRITERS = {
    "write_text", "write_bytes", "save", "savefig", "savez", "savez_compressed", "imwrite", "copyfile", "save_file", "dump",
    "to_csv", "to_parquet", "tofile",
}  # fmt: skip


def test_everything_else_that_is_written_is_written_whole() -> None:
    """A writer is handed the `unfinished` file of `write_file`, a `scratch` file of a temporary folder, or a `buffer`."""
    found = []
    for source in [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "scripts").glob("*.py")]:
        name = source.relative_to(PACKAGE).as_posix() if source.is_relative_to(PACKAGE) else source.name
        if name == "files.py" or name.startswith("benchmark/"):  # a benchmark makes its inputs in a temporary folder
            continue
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called, line = ast.unparse(node.func), ast.unparse(node)
            words = [a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)]
            modes = [w for w in words if isinstance(w, str) and set(w) <= set("rwaxbt+") and set(w) & set("wax+")]
            opens = called.rpartition(".")[2] == "open" and modes and not STREAMS.get(name, set()) & set(modes)
            writes = "." in called and called.rpartition(".")[2] in WRITERS
            if (opens or writes) and not re.search(r"\b_?(unfinished|scratch|buffer|clear_refs)", line):
                found.append(f"{name}:{node.lineno}: {line[:90]}")
    assert not found, "\n".join(found)


def held_commands(folder: Path) -> dict[str, list[str]]:
    """Every command that writes into a folder, with what its parser wants; `folder` is where it is to write."""
    out = ["--output", str(folder)]
    return {
        "explain": ["explain", "--input", "a.jpg", *out],
        "cases": ["cases", "index", *out],
        "conflict": ["conflict", "--quick", *out],
        "agreement": ["agreement", "--quick", *out],
        "readings": ["readings", "--quick", *out],
        "evaluate": ["evaluate", "--checkpoint", "a.safetensors", "--device", "cpu", *out],
        "convert weights": ["weights", "convert", "--release", "GWT.pth", *out],
        "prepare emotic": ["prepare", "emotic", "--root", "emotic", *out],
        "prepare caers": ["prepare", "caers", "--root", "caers", *out],
        "prepare table": ["prepare", "table", "--folder", ".", *out],
        "prepare demo": ["prepare", "demo", *out],
        "demo images": ["prepare", "demo", "--images", str(folder)],
        "convert an index": ["data", "convert", "a", "--format", "tandon-csv", "--root", ".", *out],
        "vlm": ["vlm", "--input", "a.jpg", *out],
        "demo": ["demo", *out],
    }


def held_files(file: Path) -> dict[str, list[str]]:
    """Every command that makes a file by long work; `file` has no ending yet."""
    return {
        "calibrate": ["calibrate", "--checkpoint", "a.safetensors", "--output", f"{file}.safetensors"],
        "pack weights": ["weights", "pack", "a.safetensors", "--output", f"{file}.safetensors"],
        "export": ["export", "--checkpoint", str(DEMO_CHECKPOINT), "--output", f"{file}.onnx"],
    }


@pytest.mark.parametrize("command", list(held_files(Path())))
def test_no_command_makes_a_file_that_another_process_is_making(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = held_files(tmp_path / "out" / "made")[command]
    with hold_file(words[-1]), hold_file(tmp_path / "out" / "another.onnx"):
        assert main(words) in (1, 2)
        assert f"process {os.getpid()} on {socket.gethostname()}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", list(held_commands(Path())))
def test_no_command_writes_into_a_folder_that_another_process_writes_into(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "out"
    with hold_folder(folder):
        assert main(held_commands(folder)[command]) == 1
        assert f"process {os.getpid()} on {socket.gethostname()}" in capsys.readouterr().err
        assert os.listdir(folder) == [LOCK_NAME]


# ---- files that never end ------------------------------------------------------------------------------------------

needs_devices = pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no such device here")


@needs_devices
def test_a_device_or_a_file_that_is_too_large_is_an_error_and_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zero").symlink_to("/dev/zero")
    for read in (files.read_file, files.read_json):
        with pytest.raises(OSError, match="wanted a file, got a device"):
            read(tmp_path / "zero")
    (tmp_path / "a").write_bytes(b"[1, 2]")
    assert files.read_file(tmp_path / "a", 6) == b"[1, 2]" and files.read_json(tmp_path / "a") == [1, 2]
    with pytest.raises(OSError, match="more than 5 bytes"):
        files.read_file(tmp_path / "a", 5)
    monkeypatch.setattr(files, "LONGEST_LINE", 1000)
    with pytest.raises(OSError, match="wanted a file, got a device"):
        list(read_lines(tmp_path / "zero"))
    (tmp_path / "long").write_bytes(b"x" * 5000)
    with pytest.raises(OSError, match="line 1 has more than 1,000 bytes"):
        list(read_lines(tmp_path / "long"))
    (tmp_path / "b").write_bytes(b"x" * 999 + b"\n" + b"y" * 1000)
    assert [len(line) for line in read_lines(tmp_path / "b")] == [999, 1000]


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "9" * 5_000, "{", "", "\udc80"],
    ids=["lists", "objects", "digits", "open", "empty", "bytes"],
)
def test_json_that_is_none_is_a_value_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match="nested too deeply|digits|Expecting|decode"):
        files.read_json(tmp_path / "a")


def test_annotations_of_others_are_read_by_the_readers_that_know_a_limit() -> None:
    """Nothing in `cocoer/data` reads a whole file in another way than `files.read_file`, `read_json` and `read_lines`."""
    for source in sorted((PACKAGE / "data").rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                said = ast.unparse(node)
                assert node.func.attr not in ("read_text", "read_bytes") and "json.load(" not in said, (
                    source,
                    node.lineno,
                )
