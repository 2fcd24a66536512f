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
        if manifest is None or not manifest.firmware_min <= image_version <= manifest.firmware_max:
            return False
        if not fits.over_image(manifest, image_digest):
            return False
        wanted = {}
        for path, size, file_hash in manifest.files:
            wanted[path] = (size, file_hash)
        base = app_path(root, slot)
        if sorted(_walk(base, "")) != sorted(wanted):
            return False
        for path, (size, file_hash) in wanted.items():
            found = yield from _hash_steps(base + "/" + path, size)
            if found != file_hash:
                return False
        return True
    except OSError:
        return False


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


def _walk(base, prefix):
    # Yield the path of every file below base.
    for name in os.listdir(base):
        path = base + "/" + name
        if os.stat(path)[0] & _DIRECTORY:
            yield from _walk(path, prefix + name + "/")
        else:
            yield prefix + name


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


def wipe_slot(root, slot):
    # Empty a slot. A cut in the middle leaves a slot that check_slot_steps refuses.
    _remove_tree(slot_path(root, slot))


def _remove_tree(path):
    try:
        names = os.listdir(path)
    except OSError:
        return
    for name in names:
        child = path + "/" + name
        if os.stat(child)[0] & _DIRECTORY:
            _remove_tree(child)
        else:
            os.remove(child)
    os.rmdir(path)


def _make_directories(path):
    parts = path.split("/")
    for n in range(2, len(parts) + 1):
        part = "/".join(parts[:n])
        try:
            os.stat(part)
        except OSError:
            os.mkdir(part)


class Staging:
    # One bundle on its way into a slot; chunks arrive in order, each checked against the hash list.
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

    def begin(self, frame):
        # Empty the slot and store the manifest-frame.
        _remove_tree(self._path)
        _make_directories(self._path + "/app")
        with open(self._path + "/manifest", "wb") as file:
            file.write(frame)

    def resume(self):
        # Find out how far an interrupted download came; what is there is believed only chunk by chunk, and
        # all of it is read back at the end.
        if not self._has_all_hashes():
            return
        self.next_run = self._runs()
        position = 0
        for path, size, _ in self.manifest.files:
            length = _length(self._path + "/app/" + path)
            if length is None or length < size:
                position += length or 0
                break
            position += size
        self.next_chunk = min(position, self.manifest.size) // self.manifest.chunk_size
        if position >= self.manifest.size:
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

    def put_hashes(self, index, data):
        # Store the index-th run of up to 32 chunk hashes -> False if it is not the one expected now.
        # OtaError BAD_BYTES once the list is complete and is not the manifest's.
        wanted = min(32, self.chunks - self.next_run * 32) * _HASH_BYTES
        if self.has_hashes() or index != self.next_run or len(data) != wanted:
            return False
        with open(self._path + "/chunks", "ab" if index else "wb") as file:
            file.write(data)
        self.next_run += 1
        if self.has_hashes() and not self._has_all_hashes():
            self.next_run = 0
            raise OtaError(states.BAD_BYTES)
        return True

    def _has_all_hashes(self):
        steps = _hash_steps(self._path + "/chunks", self.chunks * _HASH_BYTES)
        try:
            while True:
                next(steps)
        except StopIteration as end:
            return end.value == self.manifest.chunks
        except OSError:
            return False

    def put_chunk(self, index, data):
        # Store the index-th chunk -> False if it is not the one expected now. OtaError BAD_BYTES for wrong
        # bytes.
        if index != self.next_chunk or self.is_complete():
            return False
        offset = self.offset()
        if len(data) != min(self.manifest.chunk_size, self.manifest.size - offset):
            raise OtaError(states.BAD_BYTES)
        with open(self._path + "/chunks", "rb") as file:
            file.seek(index * _HASH_BYTES)
            if hashlib.sha256(data).digest() != file.read(_HASH_BYTES):
                raise OtaError(states.BAD_BYTES)
        self._write(offset, memoryview(data))
        self.next_chunk += 1
        self._since_sync += 1
        if self.is_complete():
            self.close()
        elif self._file is not None and self._since_sync >= _SYNC_CHUNKS:
            self._file.flush()
            self._since_sync = 0
        return True

    def _write(self, offset, data):
        # Spread the bundle's bytes from `offset` on over its files.
        while True:
            path, size, _ = self._file_at(offset)
            if self._file is None:
                self._open(path, offset - self._file_start)
            n = min(len(data), self._file_start + size - offset)
            self._file.write(data[:n])
            offset += n
            data = data[n:]
            if offset == self._file_start + size:
                self.close()
            if not data:
                return

    def _file_at(self, offset):
        # -> the file that holds the bundle's byte at `offset`; empty files on the way are made.
        files = self.manifest.files
        while offset >= self._file_start + files[self._file_index][1]:
            path, size, _ = files[self._file_index]
            if not size:
                self._open(path, 0)
                self.close()
            self._file_start += size
            self._file_index += 1
        return files[self._file_index]

    def _open(self, path, at):
        path = self._path + "/app/" + path
        _make_directories(path.rsplit("/", 1)[0])
        if at and _length(path) is not None:
            self._file = open(path, "r+b")  # noqa: SIM115 - stays open over many chunks
            self._file.seek(at)
        else:
            self._file = open(path, "wb")  # noqa: SIM115

    def close(self):
        if self._file is not None:
            self._file.close()
            self._file = None

    def finish(self):
        # The bundle is complete: make what is left (empty files at the end), drop the hash list.
        # Raises OtaError WRONG_CODE for a compiled module that would not load here.
        self.close()
        for path, size, _ in self.manifest.files:
            if not size:
                self._open(path, 0)
                self.close()
            if path.endswith(".mpy"):
                with open(self._path + "/app/" + path, "rb") as file:
                    if not fits.is_loadable(file.read(fits.HEAD_BYTES)):
                        raise OtaError(states.WRONG_CODE)
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
    return states.NO_SPACE if error.errno == _ENOSPC else states.CANCELLED
