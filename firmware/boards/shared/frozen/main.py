# The loader picks the application; Ctrl-C on the console comes back to the prompt.
import sys

import board

if not board.options().get("repl"):
    sys.path[:] = board.import_path  # whatever else lies in the file system is never imported
    from terminal.ota import loader

    loader.main(board)
