# Runs first, before the file system is there and deaf to Ctrl-C.
import board

board.mount()
