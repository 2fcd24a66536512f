# Putting a bundle into a slot, and telling whether a slot holds exactly its bundle.
#
# /slot/<a|b>/manifest   the manifest-frame; its SHA-256 is the bundle's name in the control record
# /slot/<a|b>/chunks     the chunk hash list while the bundle is being fetched
# /slot/<a|b>/app/...    the files; this directory goes to the front of sys.path
#
# A slot is never changed while it runs. What was installed is judged by reading it back: every file of the
# manifest with its size and hash, and nothing else below app/.

import hashlib
import os

from ..compat import const
from ..wire.cose import sign1_parse
from ..wire.errors import WireError
from ..wire.frames import parse_manifest
from . import fits, states
from .states import SLOT_NAMES, OtaError

MAX_BUNDLE_BYTES = const(524288)
MAX_CHUNKS = const(1024)
_MAX_FRAME_BYTES = const(8192)
_MAX_PATH_BYTES = const(64)
_MAX_DEPTH = const(4)
_READ_BYTES = const(1024)
_STEP_BYTES = const(4096)
_STEP_FILES = const(8)
_WRITE_BYTES = const(1024)  # in one step: it begins one more sector at most
_SYNC_CHUNKS = const(8)
_HASH_BYTES = const(32)
_DIRECTORY = const(0x4000)
_ENOSPC = const(28)
_SUFFIXES = (".py", ".mpy", ".json", ".txt", ".bin")
_ROOTS = ("terminal/", "assets/")
# What the image alone decides: which root key is trusted.
_RESERVED = ("terminal/trust.py", "terminal/trust.mpy")


def slot_path(root, slot):
    return root + "/slot/" + SLOT_NAMES[slot]


def app_path(root, slot):
    # -> what the loader puts in front of sys.path.
    return slot_path(root, slot) + "/app"


# ---------------------------------------------------------------- rules


def check_manifest(manifest, hardware, site, image_version, image_digest):
    # Whether a signed manifest may be installed on this terminal. Raises OtaError WRONG_TARGET, WRONG_IMAGE,
    # BAD_MANIFEST.
    if manifest.hardware != hardware or manifest.group not in ("", site):
        raise OtaError(states.WRONG_TARGET)
    if not manifest.firmware_min <= image_version <= manifest.firmware_max:
        raise OtaError(states.WRONG_TARGET)
    if not fits.over_image(manifest, image_digest):
        raise OtaError(states.WRONG_IMAGE)
    chunks = -(-manifest.size // manifest.chunk_size)
    if not 0 < manifest.size <= MAX_BUNDLE_BYTES or chunks > MAX_CHUNKS:
        raise OtaError(states.BAD_MANIFEST)
    total = 0
    modules = set()
    for path, size, _ in manifest.files:
        total += size
        module = path.rsplit(".", 1)[0]
        if not is_allowed_path(path) or module in modules:
            raise OtaError(states.BAD_MANIFEST)
        modules.add(module)  # x.py beside x.mpy: which one runs would be the interpreter's choice
    if total != manifest.size or manifest.floor > manifest.version:
        raise OtaError(states.BAD_MANIFEST)


def is_allowed_path(path):
    # terminal/... and assets/... only, so that a bundle cannot shadow what the image provides (board,
    # asyncio).
    if len(path) > _MAX_PATH_BYTES or not path.startswith(_ROOTS) or not path.endswith(_SUFFIXES):
        return False
    if path in _RESERVED:
        return False
    for c in path:
        if not ("a" <= c <= "z" or "0" <= c <= "9" or c in "_/.-"):
            return False
    parts = path.split("/")
    return len(parts) <= _MAX_DEPTH and all(part and not part.startswith(".") for part in parts)


# ---------------------------------------------------------------- judging a slot


def check_slot_steps(root, slot, digest, image_version, image_digest):
    # Generator; its value says whether the slot holds exactly the bundle named by digest and that bundle
    # runs on this image. Yields every few KiB; never raises for bad contents.
    try:
        manifest = load_manifest(root, slot, digest)
        if manifest is None or not is_over_image(manifest, image_version, image_digest):
            return False
        wanted = {}
        for path, size, file_hash in manifest.files:
            wanted[path] = (size, file_hash)
        base = app_path(root, slot)
        present = []
        yield from _walk_steps(base, "", present)
        if sorted(present) != sorted(wanted):
            return False
        for path, (size, file_hash) in wanted.items():
            found = yield from _hash_steps(base + "/" + path, size)
            if found != file_hash:
                return False
            yield
        return True
    except OSError:
        return False


def is_over_image(manifest, image_version, image_digest):
    # Whether a bundle was made over the image with this number and digest.
    in_range = manifest.firmware_min <= image_version <= manifest.firmware_max
    return in_range and fits.over_image(manifest, image_digest)


def load_manifest(root, slot, digest):
    # -> the Manifest stored in a slot, None if it is not the one with this digest. OSError if there is none.
    return read_manifest(slot_path(root, slot) + "/manifest", digest)


def read_manifest(path, digest):
    # -> as load_manifest, of any file that holds a manifest-frame.
    with open(path, "rb") as file:
        size = file.seek(0, 2)  # read() of a limit would take that much memory first
        if size > _MAX_FRAME_BYTES:
            return None
        file.seek(0)
        frame = file.read(size)
    if hashlib.sha256(frame).digest() != digest:
        return None
    try:
        return parse_manifest(sign1_parse(frame)[1])
    except WireError:
        return None


def _walk_steps(base, prefix, found):
    # Generator; adds the path of every file below base to found.
    for number, name in enumerate(os.listdir(base)):
        path = base + "/" + name
        if os.stat(path)[0] & _DIRECTORY:
            yield from _walk_steps(path, prefix + name + "/", found)
        else:
            found.append(prefix + name)
        if number % _STEP_FILES == 0:
            yield


def _hash_steps(path, size):
    # Generator; its value is the SHA-256 of a file of exactly `size` bytes, None if it has another length.
    h = hashlib.sha256()
    buf = memoryview(bytearray(_READ_BYTES))
    done = 0
    with open(path, "rb") as file:
        while True:
            n = file.readinto(buf)
            if not n:
                break
            done += n
            if done > size:
                return None
            h.update(buf[:n])
            if done % _STEP_BYTES == 0:
                yield
    return h.digest() if done == size else None


# ---------------------------------------------------------------- staging


# Everything below that changes flash is a generator that yields after each operation of the file system: on a
# chip one may take as long as a sector's erase, and orders go on meanwhile.


def _remove_steps(path):
    # A cut in the middle leaves a slot that check_slot_steps refuses.
    try:
        names = os.listdir(path)
    except OSError:
        return
    for name in names:
        child = path + "/" + name
        if os.stat(child)[0] & _DIRECTORY:
            yield from _remove_steps(child)
        else:
            os.remove(child)
            yield
    os.rmdir(path)
    yield


def _make_directories_steps(path):
    parts = path.split("/")
    for n in range(2, len(parts) + 1):
        part = "/".join(parts[:n])
        try:
            os.stat(part)
        except OSError:
            os.mkdir(part)
            yield


class Staging:
    # One bundle on its way into a slot; chunks are put in order, each checked against the hash list.
    # `begin` starts anew, `resume` goes on with what a reboot left. OSError is for the caller: `reason_of`.

    def __init__(self, root, slot, manifest):
        self.manifest = manifest
        self.chunks = -(-manifest.size // manifest.chunk_size)
        self.next_run = 0  # of the hash list
        self.next_chunk = 0
        self._path = slot_path(root, slot)
        self._file = None
        self._file_index = 0
        self._file_start = 0  # offset of that file in the bundle
        self._since_sync = 0
        self._is_synced = False  # the next write copies the last sector, which may not be changed any more

    def begin_steps(self, frame):
        # Empty the slot and store the manifest-frame.
        yield from _remove_steps(self._path)
        yield from _make_directories_steps(self._path + "/app")
        with open(self._path + "/manifest", "wb") as file:
            for at in range(0, len(frame), _WRITE_BYTES):
                file.write(frame[at : at + _WRITE_BYTES])
                yield

    def resume_steps(self):
        # Find out how far an interrupted download came; what is there is believed only chunk by chunk, and
        # all of it is read back at the end. With every file there the hash list may be gone already.
        position = 0
        for path, size, _ in self.manifest.files:
            length = _length(self._path + "/app/" + path)
            if length is None or length < size:
                position += length or 0
                break
            position += size
            yield
        is_complete = position >= self.manifest.size
        if not is_complete and not (yield from self._has_all_hashes_steps()):
            return
        self.next_run = self._runs()
        self.next_chunk = min(position, self.manifest.size) // self.manifest.chunk_size
        if is_complete:
            self.next_chunk = self.chunks

    def _runs(self):
        return -(-self.chunks // 32)

    def has_hashes(self):
        return self.next_run == self._runs()

    def is_complete(self):
        return self.next_chunk == self.chunks

    def offset(self):
        # -> bytes of the bundle that are in place.
        return min(self.next_chunk * self.manifest.chunk_size, self.manifest.size)

    def is_next(self, what, index):
        # Whether that is what must be put now: what 0, a run of hashes; 1, a chunk.
        if what == 0:
            return index == self.next_run and not self.has_hashes()
        return index == self.next_chunk and self.has_hashes() and not self.is_complete()

    def place_bytes(self, what):
        # -> the most that one of them may be.
        return self.manifest.chunk_size if what else 32 * _HASH_BYTES

    def put_hashes_steps(self, data):
        # Store the next run of up to 32 chunk hashes. OtaError BAD_BYTES if it has another length, or if the
        # list is complete and is not the manifest's.
        wanted = min(32, self.chunks - self.next_run * 32) * _HASH_BYTES
        if len(data) != wanted:
            raise OtaError(states.BAD_BYTES)
        with open(self._path + "/chunks", "ab" if self.next_run else "wb") as file:
            file.write(data[:1])  # copies the last sector, as above
            yield
            file.write(data[1:])
        yield
        self.next_run += 1
        if self.has_hashes() and not (yield from self._has_all_hashes_steps()):
            self.next_run = 0
            raise OtaError(states.BAD_BYTES)

    def _has_all_hashes_steps(self):
        try:
            found = yield from _hash_steps(self._path + "/chunks", self.chunks * _HASH_BYTES)
        except OSError:
            return False
        return found == self.manifest.chunks

    def put_chunk_steps(self, data):
        # Store the next chunk. OtaError BAD_BYTES for wrong bytes.
        offset = self.offset()
        if len(data) != min(self.manifest.chunk_size, self.manifest.size - offset):
            raise OtaError(states.BAD_BYTES)
        with open(self._path + "/chunks", "rb") as file:
            file.seek(self.next_chunk * _HASH_BYTES)
            if hashlib.sha256(data).digest() != file.read(_HASH_BYTES):
                raise OtaError(states.BAD_BYTES)
        yield
        yield from self._write_steps(offset, data)
        self.next_chunk += 1
        self._since_sync += 1
        if self.is_complete():
            self.close()
        elif self._file is not None and self._since_sync >= _SYNC_CHUNKS:
            self._file.flush()
            self._since_sync = 0
            self._is_synced = True

    def _write_steps(self, offset, data):
        # Spread the bundle's bytes from `offset` on over its files.
        while data:
            path, size, _ = yield from self._file_at_steps(offset)
            if self._file is None:
                yield from self._open_steps(path, offset - self._file_start)
            n = min(len(data), self._file_start + size - offset, 1 if self._is_synced else _WRITE_BYTES)
            self._is_synced = False
            self._file.write(data[:n])
            yield
            offset += n
            data = data[n:]
            if offset == self._file_start + size:
                self.close()
                yield

    def _file_at_steps(self, offset):
        # Its value is the file that holds the bundle's byte at `offset`; empty files on the way are made.
        files = self.manifest.files
        while offset >= self._file_start + files[self._file_index][1]:
            path, size, _ = files[self._file_index]
            if not size:
                yield from self._open_steps(path, 0)
                self.close()
                yield
            self._file_start += size
            self._file_index += 1
        return files[self._file_index]

    def _open_steps(self, path, at):
        path = self._path + "/app/" + path
        yield from _make_directories_steps(path.rsplit("/", 1)[0])
        if at and _length(path) is not None:
            self._file = open(path, "r+b")  # noqa: SIM115 - stays open over many chunks
            self._file.seek(at)
            self._is_synced = True
        else:
            self._file = open(path, "wb")  # noqa: SIM115
        yield

    def close(self):
        if self._file is not None:
            self._file.close()
            self._file = None

    def finish_steps(self):
        # The bundle is complete: make what is left (empty files at the end), drop the hash list.
        # Raises OtaError WRONG_CODE for a compiled module that would not load here.
        self.close()
        for path, size, _ in self.manifest.files:
            if not size:
                yield from self._open_steps(path, 0)
                self.close()
                yield
            if path.endswith(".mpy"):
                with open(self._path + "/app/" + path, "rb") as file:
                    if not fits.is_loadable(file.read(fits.HEAD_BYTES)):
                        raise OtaError(states.WRONG_CODE)
                yield
        try:
            os.remove(self._path + "/chunks")
        except OSError as error:
            if error.errno != 2:
                raise


def _length(path):
    # -> bytes of a file, None if there is none.
    try:
        return os.stat(path)[6]
    except OSError:
        return None


def reason_of(error):
    # -> the reason code for a failed file operation.
    return states.NO_SPACE if error.errno == _ENOSPC else states.FILE_FAILED
