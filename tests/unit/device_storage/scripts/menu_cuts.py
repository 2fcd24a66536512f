# Runs on MicroPython: a menu update on real littlefs2 over the NOR model, cut at every n-th flash step.
# Arguments: firmware directory, folder with old.bin and new.bin (menu-frames, versions 1 and 2), stride.

import hashlib
import sys

sys.path.insert(0, sys.argv[1])

import vfs
from boards.host.nor import Nor, PowerCut
from terminal.menu import MenuStore

SECTORS = 40
TEARS = ((-1, 0), (9, 0), (130, 0), (0, 77), (255, 0))


def read(name):
    with open(sys.argv[2] + "/" + name, "rb") as file:
        return file.read()


def trusting(kid, digest, signature):
    # Signatures have their own tests; here they only cost time.
    return True
    yield


def mounted(nor):
    dev = nor.region(0, SECTORS * 4096)
    vfs.mount(vfs.VfsLfs2(dev, readsize=32, progsize=32, lookahead=32), "/t")
    return MenuStore("/t", "demo", trusting)


def unmount():
    vfs.umount("/t")


def download(menus, frame, version):
    count = (len(frame) + 1023) // 1024
    if not menus.begin(version, hashlib.sha256(frame).digest(), count):
        return
    for index in range(count):
        menus.chunk(index, frame[index * 1024 : index * 1024 + 1024])
    for _ in menus.finish_steps():
        pass


def prices(menus):
    return [(item.id, item.name, item.price, tuple(item.groups)) for item in menus.items()]


old = read("old.bin")
new = read("new.bin")
base = Nor(SECTORS * 4096)
vfs.VfsLfs2.mkfs(base.region(0, SECTORS * 4096), readsize=32, progsize=32, lookahead=32)
menus = mounted(base)
download(menus, old, 1)
wanted = {1: prices(menus)}
unmount()

golden = Nor(SECTORS * 4096, base.data)
menus = mounted(golden)
first = golden.steps
download(menus, new, 2)
wanted[2] = prices(menus)
unmount()
assert wanted[1] != wanted[2]

cuts = 0
seen = {1: 0, 2: 0}
stride = int(sys.argv[3])
last = golden.steps - first
steps = list(range(1, last, stride))
steps.append(last)
for step in steps:
    keep, seed = TEARS[cuts % len(TEARS)]
    nor = Nor(SECTORS * 4096, base.data)
    menus = mounted(nor)
    nor.cut_at(step, keep, seed)
    try:
        download(menus, new, 2)
        raise AssertionError("the power never failed")
    except PowerCut:
        cuts += 1
    nor.cut_at(0)
    image = bytes(nor.data)
    menus.abort()  # frees the dead store's file; what it writes now stays behind in the old flash
    unmount()
    nor = Nor(SECTORS * 4096, image)
    menus = mounted(nor)
    version = menus.current().version
    seen[version] += 1
    assert menus.fault is None
    assert prices(menus) == wanted[version], "a mixed menu"
    download(menus, new, 2)
    assert prices(menus) == wanted[2]
    assert nor.violations == 0
    unmount()
print("ok", cuts, "cuts,", seen[1], "old,", seen[2], "new")
