# Reads what a guest or waiter types: `2x espresso + 1x "flat white" with oat milk, extra shot`.
from terminal.ui import UiError


# Splits at a separator, but not inside double quotes.
def _split(text, separator):
    parts = []
    part = ""
    quoted = False
    for char in text:
        if char == '"':
            quoted = not quoted
            part += char
        elif char == separator and not quoted:
            parts.append(part)
            part = ""
        else:
            part += char
    if quoted:
        raise UiError("BAD_QUOTES", "a quotation mark is missing")
    parts.append(part)
    return [p for p in [p.strip() for p in parts] if p]


# "2x espresso", "2 espresso", "espresso" -> (quantity, rest)
def _quantity(text):
    digits = 0
    while digits < len(text) and text[digits].isdigit():
        digits += 1
    if not digits or digits > 4:
        return 1, text
    rest = text[digits:]
    if rest[:1] in ("x", "X") and rest[1:2] in (" ", '"', ""):
        return int(text[:digits]), rest[1:].strip()
    if rest[:1] == " ":
        rest = rest.strip()
        if rest[:2] in ("x ", "X "):
            rest = rest[2:].strip()
        return int(text[:digits]), rest
    return 1, text


def _plain(text):
    return text.replace('"', " ").strip()


# -> list of (quantity, item words, [modifier words, ...]). Item names may contain "with":
# `find_name(words)` says whether some text is the name of an item as a whole. Raises UiError.
def parse(text, find_name):
    wishes = []
    for part in _split(text, "+"):
        quantity, rest = _quantity(part)
        modifiers = []
        cut = rest.rfind(" with ")
        if cut > 0 and rest.count('"', 0, cut) % 2 == 0 and not find_name(_plain(rest)):
            modifiers = [_plain(m) for m in _split(rest[cut + 6 :], ",")]
            rest = rest[:cut]
        name = _plain(rest)
        if not name:
            raise UiError("NO_NAME", "say what to order, for example: order 2x espresso")
        wishes.append((quantity, name, modifiers))
    if not wishes:
        raise UiError("NO_NAME", "say what to order, for example: order 2x espresso")
    return wishes
