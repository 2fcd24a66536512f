"""Published MicroPython update libraries through the same power cuts as ours: `tableside bench shootout ota`.

The argument is that of bench/campaign: one undisturbed update is traced at the flash, and for every step the
flash is made that a cut before it or inside it leaves. Each is started on real MicroPython and littlefs,
first with the server away, then with the server back. What is judged is the application's files: whole old,
whole new, a mixture, or no start.

Libraries are fetched from the package index when the shoot-out runs and are never part of this repository.
"""
