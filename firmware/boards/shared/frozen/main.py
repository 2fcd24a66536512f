# The loader picks the application; Ctrl-C on the console comes back to the prompt.
import board

if not board.options().get("repl"):
    from terminal.ota import loader

    loader.main(board)
