"""What every store backend does; each one subclasses the contract."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovcache.errors import EnvironmentFailure
from fovcache.store.storage import LocalStorage, Storage


class StorageContract:
    """Subclass it, and give a fixture `storage` that is empty."""

    def test_what_is_put_is_read(self, storage: Storage) -> None:
        storage.put("a/b/c.bin", [b"one", memoryview(b"two"), b""])
        assert storage.read("a/b/c.bin") == b"onetwo"
        assert storage.exists("a/b/c.bin")
        assert storage.size("a/b/c.bin") == 6

    def test_put_takes_parts_of_any_item_size(self, storage: Storage) -> None:
        storage.put("x", [memoryview(bytes(range(8))).cast("H"), (b"tail")])
        assert storage.read("x") == bytes(range(8)) + b"tail"

    def test_an_empty_file_is_a_file(self, storage: Storage) -> None:
        storage.put("empty", [])
        assert storage.exists("empty")
        assert storage.size("empty") == 0
        assert storage.read("empty") == b""

    def test_put_replaces(self, storage: Storage) -> None:
        storage.put("x", [b"a long first text"])
        storage.put("x", [b"short"])
        assert storage.read("x") == b"short"
        assert storage.size("x") == 5

    def test_put_if_absent_keeps_the_first(self, storage: Storage) -> None:
        assert storage.put_if_absent("d/x", [b"first"])
        assert not storage.put_if_absent("d/x", [b"second"])
        assert storage.read("d/x") == b"first"

    def test_of_many_writers_exactly_one_is_first(self, storage: Storage) -> None:
        num_writers = 16
        for turn in range(5):
            start = threading.Barrier(num_writers)

            def write(number: int, start: threading.Barrier = start, turn: int = turn) -> bool:
                start.wait()
                return storage.put_if_absent(f"race/{turn}", [b"%d " % number] * 1000)

            with ThreadPoolExecutor(num_writers) as pool:
                told = list(pool.map(write, range(num_writers)))
            assert told.count(True) == 1
            assert storage.read(f"race/{turn}") == b"%d " % told.index(True) * 1000

    def test_readers_never_see_half_a_file(self, storage: Storage) -> None:
        storage.put("x", [b"0" * 50_000])
        done = threading.Event()

        def rewrite() -> None:
            for number in range(40):
                storage.put("x", [b"%d" % (number % 10) * 50_000])
            done.set()

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(rewrite)
            while not done.is_set():
                data = storage.read("x")
                assert len(data) == 50_000
                assert len(set(data)) == 1
            writing.result()

    def test_read_into_reads_a_range(self, storage: Storage) -> None:
        storage.put("x", [bytes(range(100))])
        buffer = bytearray(10)
        storage.read_into("x", 90, memoryview(buffer))
        assert buffer == bytes(range(90, 100))
        storage.read_into("x", 100, memoryview(bytearray(0)))

    @pytest.mark.parametrize(("offset", "length"), [(91, 10), (100, 1), (200, 1), (0, 101)])
    def test_read_into_past_the_end_is_an_error(self, storage: Storage, offset: int, length: int) -> None:
        storage.put("x", [bytes(100)])
        with pytest.raises(EOFError, match="x ends at byte"):
            storage.read_into("x", offset, memoryview(bytearray(length)))

    def test_what_is_not_there_is_file_not_found(self, storage: Storage) -> None:
        assert not storage.exists("no/such")
        for read in (storage.read, storage.size, storage.modified_s):
            with pytest.raises(FileNotFoundError):
                read("no/such")
        with pytest.raises(FileNotFoundError):
            storage.read_into("no/such", 0, memoryview(bytearray(1)))

    def test_list_is_sorted_and_goes_down(self, storage: Storage) -> None:
        names = ["l/b/2", "l/b/1", "l/a", "l/c", "l/b/x/y"]
        for name in [*names, "other/z", "lb"]:
            storage.put(name, [b"x"])
        assert list(storage.list("l")) == sorted(names)
        assert list(storage.list("l/b")) == ["l/b/1", "l/b/2", "l/b/x/y"]

    def test_list_of_an_absent_folder_is_empty(self, storage: Storage) -> None:
        assert list(storage.list("nowhere")) == []

    def test_a_folder_is_no_file(self, storage: Storage) -> None:
        storage.put("folder/x", [b"x"])
        assert not storage.exists("folder")

    def test_delete_removes_and_does_not_mind_absence(self, storage: Storage) -> None:
        storage.put("d/x", [b"x"])
        storage.delete("d/x")
        assert not storage.exists("d/x")
        assert list(storage.list("d")) == []
        storage.delete("d/x")
        storage.delete("never/was")

    def test_a_deleted_name_can_be_claimed_again(self, storage: Storage) -> None:
        storage.put_if_absent("x", [b"1"])
        storage.delete("x")
        assert storage.put_if_absent("x", [b"2"])
        assert storage.read("x") == b"2"

    def test_modified_moves_on(self, storage: Storage) -> None:
        storage.put("x", [b"1"])
        first = storage.modified_s("x")
        storage.put("x", [b"2"])
        assert storage.modified_s("x") >= first > 1_500_000_000

    def test_a_failed_write_leaves_nothing(self, storage: Storage) -> None:
        def parts():  # type: ignore[no-untyped-def]
            yield b"some"
            raise RuntimeError("the source of the bytes failed")

        for put in (storage.put, storage.put_if_absent):
            with pytest.raises(RuntimeError):
                put("half", parts())
        assert not storage.exists("half")
        storage.put("whole", [b"x"])
        assert storage.read("whole") == b"x"

    def test_binary_round_trip(self, storage: Storage) -> None:
        @given(st.lists(st.binary(max_size=300), max_size=5))
        def check(parts: list[bytes]) -> None:
            storage.put("round/trip", parts)
            assert storage.read("round/trip") == b"".join(parts)

        check()


class TestLocalStorage(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> LocalStorage:
        return LocalStorage(tmp_path / "store")

    def test_nothing_temporary_remains(self, storage: LocalStorage) -> None:
        storage.put("a/x", [b"1"])
        storage.put_if_absent("a/x", [b"2"])
        with pytest.raises(TypeError):
            storage.put("a/y", [1])  # type: ignore[list-item]
        assert list(storage.list(LocalStorage.TEMPORARY)) == []

    def test_temporary_files_carry_their_owner(self, storage: LocalStorage) -> None:
        seen = []

        def parts():  # type: ignore[no-untyped-def]
            seen.extend(storage.list(LocalStorage.TEMPORARY))
            yield b"x"

        storage.put("a", parts())
        assert [name.startswith(f"{LocalStorage.TEMPORARY}/{storage.owner}.") for name in seen] == [True]

    def test_a_file_system_without_links_has_one_first_writer_too(
        self, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_links(*_: object) -> None:
            raise PermissionError(1, "Operation not permitted")  # what FAT and some network file systems answer

        monkeypatch.setattr(os, "link", no_links)
        self.test_put_if_absent_keeps_the_first(storage)
        self.test_of_many_writers_exactly_one_is_first(storage)
        assert not [name for name in storage.list("race") if name.endswith(".claim")]

    def test_a_file_in_the_way_of_a_folder_is_an_environment_failure(self, storage: LocalStorage) -> None:
        storage.put("a", [b"x"])
        with pytest.raises(EnvironmentFailure, match="cannot write"):
            storage.put("a/b", [b"y"])

    def test_a_name_is_listed_even_when_it_is_a_link(self, storage: LocalStorage) -> None:
        storage.put("l/x", [b"x"])
        storage.path("l/link").symlink_to(storage.path("l"))
        assert list(storage.list("l")) == ["l/link", "l/x"]  # not followed: a loop would never end
