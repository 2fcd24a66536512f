# Frozen, so that no file of this name runs before the loader. For somebody at the prompt it does.
import board

if board.options().get("repl"):
    try:
        with open("/boot.py") as file:
            text = file.read()
    except OSError:
        text = ""
    exec(text)
