# The release number this application calls itself: major << 16 | minor << 8 | patch. Whoever builds a
# bundle writes this file anew.
VERSION = 0x000100


def text(version):
    return f"{version >> 16}.{version >> 8 & 255}.{version & 255}"
